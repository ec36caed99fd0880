// SPDX-License-Identifier: Apache-2.0
#include "server/policy.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>

#include "base/network_policy.hpp"
#include "base/publish.hpp"
#include "oci/printable.hpp"
#include "oci/reference.hpp"
#include "oci/settings.hpp"
#include "sandbox/disk.hpp"
#include "sandbox/image_choice.hpp"
#include "sandbox/spec_words.hpp"

namespace msb::server {

namespace {

using sandbox::SandboxSpec;

constexpr std::string_view kAnyText = "*";
constexpr std::uint32_t kDefaultMemoryMib = 512;  // of `msb-vmm run` (launcher/run.hpp)
constexpr std::size_t kMaxListed = 20;            // of a rule, in an error
constexpr std::size_t kShown = 80;

std::string shown(std::string_view word) {
  return fmt::format("\"{}\"", oci::printable(word, kShown));
}

// What a list of the settings has, to be the end of a sentence.
template <typename T, typename Word>
std::string listed(const std::vector<T>& entries, Word word) {
  if (entries.empty()) {
    return "nothing";
  }
  std::string text;
  for (const T& entry : std::span(entries).first(std::min(entries.size(), kMaxListed))) {
    fmt::format_to(std::back_inserter(text), "{}{}", text.empty() ? "" : ", ", word(entry));
  }
  return text + (entries.size() > kMaxListed ? ", ..." : "");
}

// Whether `text` is `pattern` with something for every '*' of it.
bool is_like(std::string_view text, std::string_view pattern) {
  std::size_t at = 0;
  std::size_t star = pattern.npos;  // the last one that was met
  std::size_t resume = 0;           // of the text, when that stands for one character more
  for (std::size_t i = 0; i < pattern.size() || at < text.size();) {
    if (i < pattern.size() && pattern[i] == '*') {
      star = i++;
      resume = at;
    } else if (i < pattern.size() && at < text.size() && pattern[i] == text[at]) {
      ++i;
      ++at;
    } else if (star != pattern.npos && resume < text.size()) {
      i = star + 1;
      at = ++resume;
    } else {
      return false;
    }
  }
  return true;
}

// Docker's rule for what is a registry, and not a part of a repository of Docker Hub.
bool names_registry(std::string_view first) {
  return first == "localhost" || std::ranges::any_of(first, [](char c) {
           return c == '.' || c == ':' || (c >= 'A' && c <= 'Z');
         });
}

// A '*' in front of the first slash is no way into another registry, or to another owner.
bool matches(std::string_view name, std::string_view pattern) {
  const std::size_t end = std::min(name.find('/'), name.size());
  const std::size_t pattern_end = std::min(pattern.find('/'), pattern.size());
  return is_like(name.substr(0, end), pattern.substr(0, pattern_end)) &&
         is_like(name.substr(end), pattern.substr(pattern_end));
}

bool is_allowed(const oci::Reference& reference, std::string_view pattern) {
  const std::size_t slash = pattern.find('/');
  const bool has_registry = slash != pattern.npos && names_registry(pattern.substr(0, slash));
  const bool of_hub = reference.registry == oci::kDefaultRegistry;
  if (!has_registry && !of_hub) {
    return false;
  }
  constexpr std::string_view kOfficial = "library/";
  std::vector<std::string> names{reference.repository};
  if (of_hub && reference.repository.starts_with(kOfficial)) {
    names.push_back(reference.repository.substr(kOfficial.size()));
  }
  std::vector<std::string> tails{""};
  if (!reference.digest) {
    tails.push_back(fmt::format(":{}", reference.tag.value_or("")));
  } else {
    tails.push_back(fmt::format("@{}", reference.digest->to_string()));
    // The tag says nothing about what is pulled, unless the pattern has a digest, too.
    if (reference.tag && pattern.find('@') != pattern.npos) {
      tails.push_back(fmt::format(":{}{}", *reference.tag, tails.back()));
    }
  }
  const std::string registry = has_registry ? reference.registry + "/" : "";
  return std::ranges::any_of(names, [&](const std::string& name) {
    return std::ranges::any_of(
        tails, [&](const std::string& tail) { return matches(registry + name + tail, pattern); });
  });
}

// The store takes such words for the first digits of a digest when it has no image of that name
// (oci/store/lookup.hpp), and so for any image that is here.
bool may_be_digest(std::string_view image) {
  constexpr std::string_view kAlgorithm = "sha256:";
  constexpr std::size_t kLeast = 6;
  if (image.starts_with(kAlgorithm)) {
    image.remove_prefix(kAlgorithm.size());
  }
  return image.size() >= kLeast && image.find_first_not_of("0123456789abcdef") == image.npos;
}

// With the aliases of now, which whatever starts or pulls the image goes by.
Result<oci::Settings> image_settings() {
  const auto path = oci::settings_path();
  return path ? oci::load_settings(*path) : std::unexpected(path.error());
}

// What may be had, of a list that is not everything.
Outcome<void> judge_listed(const std::string& image, const std::vector<std::string>& list) {
  const auto aliases = image_settings();
  if (!aliases) {
    return refuse(Reason::kInternal, aliases.error());
  }
  const std::string meant = oci::resolve_alias(*aliases, image);
  const auto reference = oci::parse_reference(meant);
  if (!reference) {
    return refuse(Reason::kInvalid, reference.error());
  }
  const auto allows = [&](const std::string& pattern) {
    return is_allowed(*reference, oci::resolve_alias(*aliases, pattern));
  };
  if (std::ranges::none_of(list, allows)) {
    return refuse(Reason::kForbidden,
                  "the image {}{} is not allowed: the operator's \"allow\": \"images\" has {}",
                  shown(image), meant == image ? "" : fmt::format(", which is {},", shown(meant)),
                  listed(list, shown));
  }
  if (may_be_digest(image) && std::ranges::find(list, image) == list.end()) {
    return refuse(Reason::kForbidden,
                  "the image {} may be meant by digits of its digest, which are not allowed; write "
                  "its name with a tag, such as python:3.12",
                  shown(image));
  }
  return {};
}

Outcome<void> judge_image(const std::string& image, const Settings& settings) {
  if (sandbox::is_local_image(image)) {
    return refuse(
        Reason::kForbidden,
        "the image {} is a directory of the server's host, which clients cannot use; name "
        "an image of a registry, such as python:3.12",
        shown(image));
  }
  if (const auto reference = oci::parse_reference(image); !reference) {
    return refuse(Reason::kInvalid, reference.error());
  }
  const bool any = std::ranges::find(settings.images, kAnyText) != settings.images.end();
  return any ? Outcome<void>() : judge_listed(image, settings.images);
}

// Whether a number is one that its word could be. `what`: its name.
template <typename T>
Outcome<void> judge_number(std::string_view what, const std::optional<T>& number,
                           Result<T> (*parse)(std::string_view)) {
  if (number) {
    if (const auto parsed = parse(fmt::format("{}", *number)); !parsed) {
      return refuse(Reason::kInvalid, parsed.error().within(shown(what)));
    }
  }
  return {};
}

Outcome<void> judge_numbers(const SandboxSpec& spec) {
  for (const auto& judged :
       {judge_number("cpus", spec.cpus, &sandbox::parse_cpus),
        judge_number("memory", spec.memory_mib, &sandbox::parse_memory),
        judge_number("disk", spec.disk_mib, &sandbox::parse_disk),
        judge_number("processes", spec.processes, &sandbox::parse_processes),
        judge_number("timeout", spec.timeout_s, &sandbox::parse_duration),
        judge_number("idle_timeout", spec.idle_timeout_s, &sandbox::parse_duration)}) {
    if (!judged) {
      return judged;
    }
  }
  return {};
}

// What a sandbox is to have, and one who says how much that may be.
struct Amount {
  std::string_view what;  // its name, and how it is counted
  std::optional<std::uint64_t> wanted;
  std::optional<std::uint64_t> most;
  std::string_view rule;
};

Outcome<void> judge_amounts(const SandboxSpec& spec, const Settings& settings, const Scope& key) {
  // How long it may do nothing is no matter: that ends with its lifetime.
  for (const Amount& amount : {
           Amount{"\"cpus\"", spec.cpus, settings.max_cpus, "the operator's \"limits\": \"cpus\""},
           Amount{"\"memory\" in MiB", spec.memory_mib, settings.max_sandbox_memory_mib,
                  "the operator's \"limits\": \"sandbox_memory\""},
           Amount{"\"memory\" in MiB", spec.memory_mib, settings.max_memory_mib,
                  "the operator's \"limits\": \"memory\""},
           Amount{"\"memory\" in MiB", spec.memory_mib, key.max_memory_mib,
                  "the key's limit of memory"},
           Amount{"\"disk\" in MiB", spec.disk_mib, settings.max_disk_mib,
                  "the operator's \"limits\": \"disk\""},
           Amount{"\"processes\"", spec.processes, settings.max_processes,
                  "the operator's \"limits\": \"processes\""},
           Amount{"\"timeout\" in seconds", spec.timeout_s, settings.max_lifetime_s,
                  "the operator's \"limits\": \"lifetime\""},
           Amount{"\"timeout\" in seconds", spec.timeout_s, key.max_lifetime_s,
                  "the key's limit of lifetime"},
       }) {
    if (amount.wanted && amount.most && *amount.wanted > *amount.most) {
      return refuse(Reason::kForbidden, "{} is {}, and {} allows {} at most", amount.what,
                    *amount.wanted, amount.rule, *amount.most);
    }
  }
  return {};
}

std::string ports_word(const AllowedPorts& ports) {
  const bool six = ports.address.find(':') != ports.address.npos;
  return fmt::format("{}{}{}:{}-{}", six ? "[" : "", ports.address, six ? "]" : "", ports.first,
                     ports.last);
}

Outcome<void> judge_ports(const std::vector<std::string>& words, const Settings& settings) {
  if (words.size() > kMaxPublished) {
    return refuse(Reason::kInvalid, "\"ports\" has {} of them, and at most {} can be published",
                  words.size(), kMaxPublished);
  }
  for (const std::string& word : words) {
    if (const auto checked = sandbox::check_port(word); !checked) {
      return refuse(Reason::kInvalid, checked.error());
    }
  }
  const auto published = parse_publish(words);
  if (!published) {
    return refuse(Reason::kInvalid, published.error().within("\"ports\""));
  }
  for (const PublishWords& one : *published) {
    const std::string address = one.host.text();
    const std::uint16_t port = one.host.port();
    const auto allows = [&](const AllowedPorts& ports) {
      return ports.address == address && (port == 0 || (port >= ports.first && port <= ports.last));
    };
    if (std::ranges::none_of(settings.ports, allows)) {
      return refuse(Reason::kForbidden,
                    "{} of {} cannot be published: the operator's \"allow\": \"ports\" has {}",
                    port == 0 ? "a free port" : fmt::format("the port {}", port), address,
                    listed(settings.ports, ports_word));
    }
  }
  return {};
}

std::string volume_word(const AllowedVolume& volume) {
  return fmt::format("{}{}", oci::printable(volume.path), volume.read_only ? ":ro" : "");
}

std::unexpected<Problem> refuse_volume(const std::string& guest, bool read_only,
                                       const Settings& settings) {
  // Without its path, which a symbolic link may have led to.
  return refuse(Reason::kForbidden,
                "the volume at {} is not allowed{}: the operator's \"allow\": \"volumes\" has {}",
                shown(guest), read_only ? "" : " to be written",
                listed(settings.volumes, volume_word));
}

Outcome<void> judge_volumes(const std::vector<sandbox::Volume>& volumes, const Settings& settings) {
  for (const sandbox::Volume& volume : volumes) {
    if (!volume.host.starts_with('/')) {
      return refuse(Reason::kInvalid,
                    "the volume {} is no absolute path of the server's host, where a client has no "
                    "directory of its own",
                    shown(volume.host));
    }
  }
  if (!volumes.empty() && settings.volumes.empty()) {
    return refuse(Reason::kForbidden,
                  "volumes are not allowed: the operator's \"allow\": \"volumes\" has nothing");
  }
  // By their words already, so that no answer tells what there is elsewhere on this host. Where
  // links lead is seen once they are open.
  for (const sandbox::Volume& volume : volumes) {
    const std::string path = std::filesystem::path(volume.host).lexically_normal();
    if (std::ranges::none_of(settings.volumes, [&](const AllowedVolume& allowed) {
          return is_in(path.ends_with('/') ? path.substr(0, path.size() - 1) : path, allowed);
        })) {
      return refuse_volume(volume.guest, volume.read_only, settings);
    }
  }
  return {};
}

Outcome<void> judge_scope(const std::optional<sandbox::Scope>& scope, const Settings& settings) {
  if (scope && *scope > settings.scope) {
    return refuse(Reason::kForbidden,
                  "the scope {} is wider than {}, the widest that the operator's \"allow\": "
                  "\"scope\" has",
                  sandbox::scope_word(*scope), sandbox::scope_word(settings.scope));
  }
  return {};
}

// Where not everything is allowed, rules can only narrow what a scope has.
Outcome<void> judge_network(const std::vector<std::string>& rules, const Settings& settings) {
  for (const std::string& rule : rules) {
    NetworkPolicy policy;
    if (const auto added = add_rule(rule, policy); !added) {
      return refuse(Reason::kInvalid, "{}", added.error().message);
    }
    if (settings.scope != sandbox::Scope::kAny && policy.allows_anything()) {
      return refuse(
          Reason::kForbidden,
          "the rule \"{}\" allows something, which it may where the operator's \"allow\": "
          "\"scope\" is any, and here it is {}",
          rule, sandbox::scope_word(settings.scope));
    }
  }
  return {};
}

Outcome<void> judge_files(const SandboxSpec& spec) {
  if (!spec.env_files.empty()) {
    return refuse(Reason::kInvalid,
                  "\"env_files\" are files of the server's host, where a client has none; give the "
                  "variables themselves as \"envs\"");
  }
  if (!spec.depends_on.empty()) {
    return refuse(Reason::kInvalid,
                  "\"depends_on\" names sandboxes of a Sandboxfile, which a client has none of; "
                  "start them first");
  }
  return {};
}

// The least of the limits that there are.
std::optional<std::uint32_t> least(std::optional<std::uint32_t> a, std::optional<std::uint32_t> b) {
  return a && b ? std::min(*a, *b) : a ? a : b;
}

}  // namespace

Outcome<void> apply_policy(SandboxSpec& spec, const Settings& settings, const Key& key) {
  static_assert(sandbox::Scope::kNone < sandbox::Scope::kGroup &&
                sandbox::Scope::kGroup < sandbox::Scope::kPublic &&
                sandbox::Scope::kPublic < sandbox::Scope::kAny);
  for (const Outcome<void>& judged :
       {judge_files(spec), judge_image(spec.image, settings), judge_numbers(spec),
        judge_amounts(spec, settings, key.scope), judge_scope(spec.scope, settings),
        judge_network(spec.network, settings), judge_ports(spec.ports, settings),
        judge_volumes(spec.volumes, settings)}) {
    if (!judged) {
      return judged;
    }
  }
  // The usual amounts, where these are not too much.
  if (!spec.memory_mib) {
    spec.memory_mib = least(least(settings.max_sandbox_memory_mib, settings.max_memory_mib),
                            least(key.scope.max_memory_mib, kDefaultMemoryMib));
  }
  if (!spec.disk_mib) {
    spec.disk_mib = std::min(settings.max_disk_mib, sandbox::kDefaultDiskMib);
  }
  if (!spec.timeout_s) {
    spec.timeout_s = least(settings.max_lifetime_s, key.scope.max_lifetime_s);
  }
  if (!spec.processes) {
    spec.processes = settings.max_processes;
  }
  if (!spec.scope) {
    spec.scope = std::min(sandbox::Scope::kPublic, settings.scope);
  }
  return {};
}

Outcome<void> check_image(const std::string& image, const Settings& settings) {
  return judge_image(image, settings);
}

Outcome<void> check_labels(const std::map<std::string, std::string>& labels) {
  constexpr std::size_t kMaxLabels = 64;
  constexpr std::size_t kMaxLabelName = 63;
  // Commas and equals signs are what lists of them are written with.
  if (labels.size() > kMaxLabels) {
    return refuse(Reason::kInvalid, "\"labels\" has {} of them, and {} are the most", labels.size(),
                  kMaxLabels);
  }
  for (const auto& [name, value] : labels) {
    const bool good =
        !name.empty() && name.size() <= kMaxLabelName && std::ranges::all_of(name, [](char c) {
          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 std::string_view("._/-").contains(c);
        });
    if (!good) {
      return refuse(Reason::kInvalid,
                    "'{}' is no name for a label: it has 1 to {} letters, digits, '.', '_', '/' "
                    "and '-'",
                    oci::printable(name), kMaxLabelName);
    }
    if (value.contains(',')) {
      return refuse(Reason::kInvalid, "the value of the label '{}' has a comma", name);
    }
  }
  return {};
}

Outcome<void> check_volumes(const std::vector<sandbox::OpenVolume>& volumes,
                            const Settings& settings) {
  for (const sandbox::OpenVolume& volume : volumes) {
    const auto allows = [&](const AllowedVolume& allowed) {
      return is_in(volume.path, allowed) && (volume.read_only || !allowed.read_only);
    };
    if (std::ranges::none_of(settings.volumes, allows)) {
      return refuse_volume(volume.guest, volume.read_only, settings);
    }
  }
  return {};
}

bool may_enter(const Key& key, const std::string& space) {
  return key.scope.space == kAllNamespaces || key.scope.space == space;
}

}  // namespace msb::server
