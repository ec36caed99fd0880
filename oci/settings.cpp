// SPDX-License-Identifier: Apache-2.0
#include "oci/settings.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "oci/config_file.hpp"
#include "oci/json_document.hpp"
#include "oci/printable.hpp"

namespace msb::oci {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kFileName = "/images.json";
constexpr std::size_t kMaxEntries = 10000;  // of one key

Result<void> check_kind(const Json& value, std::string_view key, Json::value_t type) {
  const bool is_object = type == Json::value_t::object;
  if (value.type() != type) {
    return fail("'{}' is not an {}", key, is_object ? "object" : "array");
  }
  if (value.size() > kMaxEntries) {
    return fail("'{}' has more than {} entries", key, kMaxEntries);
  }
  for (const Json& element : value) {
    if (!element.is_string()) {
      return fail("'{}' has an entry that is not a string", key);
    }
  }
  return {};
}

Result<void> read_aliases(const Json& value, Settings& settings) {
  for (const auto& [name, target] : value.items()) {
    if (end_of_name(name) != name.size() || !parse_reference(name)) {
      return fail("the alias '{}' is not a name of an image without tag and digest",
                  printable(name));
    }
    const auto& text = target.get_ref<const std::string&>();
    if (const auto reference = parse_reference(text); !reference) {
      return std::unexpected(
          reference.error().within(fmt::format("the alias '{}'", printable(name))));
    }
    settings.aliases.insert_or_assign(name, text);
  }
  return {};
}

Result<void> read_insecure_registries(const Json& value, Settings& settings) {
  for (const Json& element : value) {
    auto registry = parse_registry_host(element.get_ref<const std::string&>());
    if (!registry) {
      return std::unexpected(registry.error().within("'insecure_registries'"));
    }
    settings.insecure_registries.insert(std::move(*registry));
  }
  return {};
}

Result<void> read_certificates(const Json& value, Settings& settings) {
  for (const auto& [name, element] : value.items()) {
    auto registry = parse_registry_host(name);
    if (!registry) {
      return std::unexpected(registry.error().within("'certificates'"));
    }
    const auto& path = element.get_ref<const std::string&>();
    if (!path.starts_with('/') || path.find('\0') != std::string::npos) {
      return fail("the certificates of '{}' are not given as an absolute path", *registry);
    }
    settings.certificates.insert_or_assign(std::move(*registry), path);
  }
  return {};
}

}  // namespace

Settings default_settings() {
  return Settings{.aliases = {{"microsandbox/node", "docker.io/library/node:22-slim"},
                              {"microsandbox/python", "docker.io/library/python:3.12-slim"}},
                  .insecure_registries = {},
                  .certificates = {}};
}

Result<Settings> parse_settings(std::string_view json) {
  const auto document = parse_object(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  struct Key {
    std::string_view name;
    Json::value_t type;
    Result<void> (*read)(const Json&, Settings&);
  };
  static constexpr Key kKeys[] = {
      {"aliases", Json::value_t::object, &read_aliases},
      {"certificates", Json::value_t::object, &read_certificates},
      {"insecure_registries", Json::value_t::array, &read_insecure_registries}};
  Settings settings = default_settings();
  for (const auto& [name, value] : document->items()) {
    const Key* key = std::ranges::find(kKeys, name, &Key::name);
    if (key == std::ranges::end(kKeys)) {
      return fail("there is no setting '{}', only aliases, certificates and insecure_registries",
                  printable(name));
    }
    auto read = check_kind(value, name, key->type);
    if (read) {
      read = key->read(value, settings);
    }
    if (!read) {
      return std::unexpected(read.error());
    }
  }
  return settings;
}

Result<std::string> settings_path() {
  struct Place {
    const char* variable;
    std::string_view below;
  };
  for (const Place& place : {Place{"MSB_CONFIG", ""}, Place{"XDG_CONFIG_HOME", "/microsandbox"},
                             Place{"HOME", "/.config/microsandbox"}}) {
    if (std::string directory = absolute_path_from_environment(place.variable);
        !directory.empty()) {
      return directory.append(place.below).append(kFileName);
    }
  }
  return fail("there is no place for settings: set MSB_CONFIG to the absolute path of a directory");
}

Result<Settings> load_settings(const std::string& path) {
  const auto content = read_config_file(path);
  if (!content) {
    return std::unexpected(content.error().within("image settings"));
  }
  if (!*content) {
    return default_settings();
  }
  auto settings = parse_settings(**content);
  if (!settings) {
    return std::unexpected(settings.error().within(fmt::format("image settings '{}'", path)));
  }
  return settings;
}

std::string resolve_alias(const Settings& settings, std::string_view text) {
  const std::size_t end = end_of_name(text);
  const auto alias = settings.aliases.find(text.substr(0, end));
  if (alias == settings.aliases.end()) {
    return std::string(text);
  }
  const std::string_view target = alias->second;
  if (end == text.size()) {
    return std::string(target);
  }
  return std::string(target.substr(0, end_of_name(target))).append(text.substr(end));
}

Result<Reference> resolve_reference(const Settings& settings, std::string_view text) {
  return parse_reference(resolve_alias(settings, text));
}

}  // namespace msb::oci
