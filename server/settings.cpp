// SPDX-License-Identifier: Apache-2.0
#include "server/settings.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/nearest_word.hpp"
#include "base/socket_address.hpp"
#include "oci/config_file.hpp"
#include "oci/json_document.hpp"
#include "oci/printable.hpp"
#include "oci/reference.hpp"
#include "oci/settings.hpp"
#include "sandbox/spec_words.hpp"

namespace msb::server {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kFileName = "server.json";
constexpr std::size_t kMaxEntries = 1000;  // of one list
constexpr std::size_t kMaxHostName = 253;  // RFC 1035, section 2.3.4, as text
constexpr std::size_t kMaxHostLabel = 63;
constexpr std::size_t kMaxTail = 256;  // a tag has 128, a digest 71
constexpr std::uint64_t kMaxSandboxes = 100000;
constexpr std::size_t kShown = 80;

std::string shown(std::string_view word) {
  return fmt::format("\"{}\"", oci::printable(word, kShown));
}

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
}

std::string lower_case(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  });
  return text;
}

// In lower case. Underscores are in no host name (RFC 952), but in names that browsers open.
bool is_host_name(std::string_view host) {
  const auto is_label = [](std::string_view label) {
    return !label.empty() && label.size() <= kMaxHostLabel && label.front() != '-' &&
           label.back() != '-' && std::ranges::all_of(label, [](char c) {
             return is_alphanumeric(c) || c == '-' || c == '_';
           });
  };
  if (host.size() > kMaxHostName) {
    return false;
  }
  for (std::size_t dot = host.find('.'); dot != host.npos; dot = host.find('.')) {
    if (!is_label(host.substr(0, dot))) {
      return false;
    }
    host.remove_prefix(dot + 1);
  }
  return is_label(host);
}

// An IPv6 address in brackets, as the host of a URL.
bool is_bracketed(std::string_view host) {
  return host.starts_with('[') && host.ends_with(']') && host.find('%') == host.npos &&
         host.find(':') != host.npos && parse_address(host.substr(1, host.size() - 2), 0);
}

Result<std::string> parse_host(const std::string& word) {
  std::string host = lower_case(word);
  if (!is_host_name(host) && !is_bracketed(host)) {
    return fail(
        "{} is no name of a host; write it without scheme, port and path, an IPv6 address "
        "in brackets",
        shown(word));
  }
  return host;
}

// scheme://host[:port], RFC 6454, section 6.2.
Result<std::string> parse_origin(const std::string& word) {
  std::string origin = lower_case(word);
  const std::string_view all = origin;
  const std::size_t colon = std::min(all.find("://"), all.size());
  const std::string_view scheme = all.substr(0, colon);
  std::string_view rest = all.substr(std::min(colon + 3, all.size()));
  // A port has no brackets, and an IPv6 address always.
  const std::size_t port_colon = rest.rfind(':');
  const bool has_port = port_colon != rest.npos && rest.find(']', port_colon) == rest.npos;
  const std::string_view port = has_port ? rest.substr(port_colon + 1) : "";
  rest = has_port ? rest.substr(0, port_colon) : rest;
  const bool is_scheme = !scheme.empty() && scheme.front() >= 'a' && scheme.front() <= 'z' &&
                         std::ranges::all_of(scheme, [](char c) {
                           return is_alphanumeric(c) || c == '+' || c == '-' || c == '.';
                         });
  if (!is_scheme || (!is_host_name(rest) && !is_bracketed(rest)) ||
      (has_port && !parse_port(port))) {
    return fail(
        "{} is no origin; write SCHEME://HOST[:PORT] without a path, such as "
        "https://app.example",
        shown(word));
  }
  if ((scheme == "https" && port == "443") || (scheme == "http" && port == "80")) {
    return fail("{} has the port that {} has anyway, which browsers leave out; leave it out, too",
                shown(word), scheme);
  }
  return origin;
}

Result<std::string> parse_image(const std::string& word) {
  if (word.starts_with('/') || word.starts_with("./") || word.starts_with("../")) {
    return fail("{} is a directory, and clients can use images of registries alone", shown(word));
  }
  // Whatever * stands for, what is around it has to be of a reference. Digits are right everywhere.
  std::string name = word.substr(0, oci::end_of_name(word));
  std::ranges::replace(name, '*', '1');
  const std::string tail = word.substr(oci::end_of_name(word));  // tag and digest
  const bool is_tail = tail.size() <= kMaxTail && std::ranges::all_of(tail, [](char c) {
                         return is_alphanumeric(c) || (c >= 'A' && c <= 'Z') ||
                                std::string_view("*:@._-").find(c) != std::string_view::npos;
                       });
  if (!oci::parse_reference(name) || !is_tail) {
    return fail("{} matches no reference of an image; write one, with * for any text", shown(word));
  }
  return word;
}

Result<AllowedVolume> parse_allowed_volume(const std::string& word) {
  constexpr std::string_view kReadOnly = ":ro";
  AllowedVolume volume;
  volume.read_only = word.ends_with(kReadOnly);
  const std::string path = volume.read_only ? word.substr(0, word.size() - kReadOnly.size()) : word;
  if (!path.starts_with('/') || path.find('\0') != path.npos) {
    return fail("{} is no absolute path; write PATH or PATH:ro", shown(word));
  }
  std::error_code error;
  volume.path = fs::canonical(path, error).string();
  if (error) {
    return fail_errno(error.value(), "cannot find {}", shown(path));
  }
  if (volume.path == "/") {
    return fail("{} is all of this host; name what is needed of it", shown(word));
  }
  return volume;
}

Result<AllowedPorts> parse_allowed_ports(const std::string& word) {
  const std::size_t colon = std::min(word.rfind(':'), word.size());
  const std::string_view host = std::string_view(word).substr(0, colon);
  const std::string_view range = std::string_view(word).substr(std::min(colon + 1, word.size()));
  const std::size_t dash = std::min(range.find('-'), range.size());
  const bool six = host.starts_with('[') && host.ends_with(']');
  const auto address = parse_address(six ? host.substr(1, host.size() - 2) : host, 0);
  const auto first = parse_port(range.substr(0, dash));
  const auto last = dash == range.size() ? first : parse_port(range.substr(dash + 1));
  if (!address || six != (address->family() == AF_INET6) || !first || !last || *first == 0 ||
      *first > *last) {
    return fail(
        "{} is not ADDRESS:FIRST[-LAST], with ports from 1 to 65535, and an IPv6 address "
        "in brackets",
        shown(word));
  }
  return AllowedPorts{address->text(), *first, *last};
}

// The elements of a list of texts.
template <typename T>
Result<std::vector<T>> read_list(const Json& value, Result<T> (*parse)(const std::string&)) {
  if (!value.is_array() || value.size() > kMaxEntries) {
    return fail("it has to be a list of at most {} texts", kMaxEntries);
  }
  std::vector<T> list;
  for (const Json& element : value) {
    if (!element.is_string()) {
      return fail("it has an entry that is not a text");
    }
    auto parsed = parse(element.get_ref<const std::string&>());
    if (!parsed) {
      return std::unexpected(parsed.error());
    }
    list.push_back(std::move(*parsed));
  }
  return list;
}

// A whole number, or a text, as the parsers of words take it.
Result<std::string> word_of(const Json& value) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_number_integer()) {
    return value.dump();
  }
  return fail("it has to be a whole number, or a text");
}

// What a Result holds goes into the settings.
template <typename T, typename Member>
Result<void> put(Result<T> value, Member& member) {
  if (!value) {
    return std::unexpected(value.error());
  }
  member = std::move(*value);
  return {};
}

template <typename T, typename Member>
Result<void> put_word(const Json& value, Result<T> (*parse)(std::string_view), Member& member) {
  const auto word = word_of(value);
  return word ? put(parse(*word), member) : std::unexpected(word.error());
}

Result<void> read_volumes(const Json& value, Settings& settings) {
  auto volumes = read_list(value, &parse_allowed_volume);
  if (!volumes) {
    return std::unexpected(volumes.error());
  }
  // Whoever mounts the outer one could write what is in it.
  for (const AllowedVolume& inner : *volumes) {
    for (const AllowedVolume& outer : *volumes) {
      if (inner.read_only && !outer.read_only && is_in(inner.path, outer)) {
        return fail(
            "{} may only be read, and is in {}, which may be written; allow that with :ro, "
            "or something else",
            shown(inner.path), shown(outer.path));
      }
    }
  }
  settings.volumes = std::move(*volumes);
  return {};
}

Result<void> read_sandboxes(const Json& value, Settings& settings) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() == 0 ||
      value.get<std::uint64_t>() > kMaxSandboxes) {
    return fail("it has to be a whole number from 1 to {}", kMaxSandboxes);
  }
  settings.max_sandboxes = value.get<std::uint32_t>();
  return {};
}

// parse_memory() is for one sandbox, and a host may have more.
Result<std::uint32_t> parse_total_memory(std::string_view word) {
  static_assert(sandbox::kMaxDiskMib <= std::numeric_limits<std::uint32_t>::max());
  const auto mib = sandbox::parse_disk(word);
  return mib ? Result<std::uint32_t>(static_cast<std::uint32_t>(*mib))
             : std::unexpected(mib.error());
}

struct Setting {
  std::string_view group;  // the object that it is in; empty: the document itself
  std::string_view name;
  Result<void> (*read)(const Json& value, Settings& settings);
};

constexpr std::string_view kAllow = "allow";
constexpr std::string_view kLimits = "limits";
constexpr std::array<Setting, 13> kSettings = {
    {{"", "hosts",
      [](const Json& value, Settings& settings) {
        return put(read_list(value, &parse_host), settings.hosts);
      }},
     {"", "origins",
      [](const Json& value, Settings& settings) {
        return put(read_list(value, &parse_origin), settings.origins);
      }},
     {kAllow, "images",
      [](const Json& value, Settings& settings) {
        return put(read_list(value, &parse_image), settings.images);
      }},
     {kAllow, "volumes", &read_volumes},
     {kAllow, "ports",
      [](const Json& value, Settings& settings) {
        return put(read_list(value, &parse_allowed_ports), settings.ports);
      }},
     {kAllow, "scope",
      [](const Json& value, Settings& settings) {
        return put_word(value, &sandbox::parse_scope, settings.scope);
      }},
     {kLimits, "sandboxes", &read_sandboxes},
     {kLimits, "memory",
      [](const Json& value, Settings& settings) {
        return put_word(value, &parse_total_memory, settings.max_memory_mib);
      }},
     {kLimits, "cpus",
      [](const Json& value, Settings& settings) {
        return put_word(value, &sandbox::parse_cpus, settings.max_cpus);
      }},
     {kLimits, "sandbox_memory",
      [](const Json& value, Settings& settings) {
        return put_word(value, &sandbox::parse_memory, settings.max_sandbox_memory_mib);
      }},
     {kLimits, "disk",
      [](const Json& value, Settings& settings) {
        return put_word(value, &sandbox::parse_disk, settings.max_disk_mib);
      }},
     {kLimits, "processes",
      [](const Json& value, Settings& settings) {
        return put_word(value, &sandbox::parse_processes, settings.max_processes);
      }},
     {kLimits, "lifetime", [](const Json& value, Settings& settings) {
        return put_word(value, &sandbox::parse_duration, settings.max_lifetime_s);
      }}}};

std::string place_of(std::string_view group, std::string_view name) {
  return fmt::format("{}{}{}", group, group.empty() ? "" : ".", oci::printable(name, kShown));
}

Result<void> read_setting(std::string_view group, const std::string& name, const Json& value,
                          Settings& settings) {
  std::vector<std::string_view> names;
  if (group.empty()) {
    names = {kAllow, kLimits};
  }
  for (const Setting& setting : kSettings) {
    if (setting.group != group) {
      continue;
    }
    if (setting.name == name) {
      auto read = setting.read(value, settings);
      return read ? read
                  : std::unexpected(read.error().within(
                        fmt::format("the setting \"{}\"", place_of(group, name))));
    }
    names.push_back(setting.name);
  }
  return fail("there is no setting \"{}\"{}", place_of(group, name), did_you_mean(name, names));
}

Result<void> read_group(const std::string& group, const Json& members, Settings& settings) {
  if (!members.is_object()) {
    return fail("the setting \"{}\": it has to be an object", group);
  }
  for (const auto& [name, value] : members.items()) {
    if (auto read = read_setting(group, name, value, settings); !read) {
      return read;
    }
  }
  return {};
}

}  // namespace

bool is_in(const std::string& path, const AllowedVolume& volume) {
  return path.starts_with(volume.path) &&
         (path.size() == volume.path.size() || path[volume.path.size()] == '/');
}

Result<Settings> parse_server_settings(std::string_view json) {
  const auto document = oci::parse_object(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  Settings settings;
  for (const auto& [name, value] : document->items()) {
    auto read = name == kAllow || name == kLimits ? read_group(name, value, settings)
                                                  : read_setting("", name, value, settings);
    if (!read) {
      return std::unexpected(read.error());
    }
  }
  return settings;
}

Result<std::string> server_settings_path() {
  const auto images = oci::settings_path();
  return images ? Result<std::string>(fs::path(*images).replace_filename(kFileName).string())
                : std::unexpected(images.error());
}

Result<Settings> load_server_settings(const std::string& path) {
  const auto content = oci::read_config_file(path);
  if (!content) {
    return std::unexpected(content.error().within("server settings"));
  }
  if (!*content) {
    return Settings{};
  }
  auto settings = parse_server_settings(**content);
  if (!settings) {
    return std::unexpected(settings.error().within(fmt::format("server settings '{}'", path)));
  }
  return settings;
}

}  // namespace msb::server
