// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/docker_config.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "oci/base64.hpp"
#include "oci/json_document.hpp"
#include "oci/printable.hpp"
#include "oci/reference.hpp"

namespace msb::oci {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kDockerHubKey = "https://index.docker.io/v1/";
constexpr std::size_t kMaxHelperName = 64;

// The registry that a key is about. Keys were URLs once, and still are for Docker Hub; other tools
// write them with a path.
std::string registry_of_key(std::string_view key) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (key.starts_with(scheme)) {
      key.remove_prefix(scheme.size());
      break;
    }
  }
  const std::string_view host = key.substr(0, key.find('/'));
  auto registry = parse_registry_host(host);
  return registry ? std::move(*registry) : std::string(host);
}

// The member `name` where it is an object.
const Json* find_object(const Json& config, std::string_view name) {
  const auto member = config.find(name);
  return member != config.end() && member->is_object() ? &*member : nullptr;
}

// The keys of `object` that are about `registry`, the one that Docker itself would write first.
std::vector<std::string> keys_of(const Json& object, const std::string& registry) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) {
    if (registry_of_key(key) == registry) {
      keys.push_back(key);
    }
  }
  std::ranges::partition(
      keys, [own = docker_config_key(registry)](const std::string& key) { return key == own; });
  return keys;
}

bool is_helper_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxHelperName && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

Result<std::string> text_of(const Json& entry, std::string_view name) {
  const auto member = entry.find(name);
  if (member == entry.end() || member->is_null()) {
    return std::string();
  }
  if (!member->is_string()) {
    return fail("'{}' is not a string", name);
  }
  return member->get<std::string>();
}

Result<Credentials> parse_auth(const Json& entry) {
  if (!entry.is_object()) {
    return fail("it is not an object");
  }
  Credentials credentials;
  std::string encoded;
  struct Field {
    std::string_view name;
    std::string* into;
  };
  for (const Field& field :
       {Field{"username", &credentials.username}, Field{"password", &credentials.password},
        Field{"identitytoken", &credentials.identity_token}, Field{"auth", &encoded}}) {
    auto text = text_of(entry, field.name);
    if (!text) {
      return std::unexpected(text.error());
    }
    *field.into = std::move(*text);
  }
  if (encoded.empty()) {
    return credentials;
  }
  const auto decoded = decode_base64(encoded);
  const auto colon = decoded ? decoded->find(':') : std::string::npos;
  if (colon == std::string::npos) {
    return fail("'auth' is not USER:PASSWORD in base64");
  }
  credentials.username = decoded->substr(0, colon);
  credentials.password = decoded->substr(colon + 1);
  // Old clients padded it.
  const auto end = credentials.password.find_last_not_of('\0');
  credentials.password.resize(end == std::string::npos ? 0 : end + 1);
  return credentials;
}

}  // namespace

std::string docker_config_key(const std::string& registry) {
  return registry == kDefaultRegistry ? std::string(kDockerHubKey) : registry;
}

Result<Json> parse_docker_config(std::string_view text) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return Json::object();
  }
  return parse_object(text);
}

Result<std::string> configured_helper(const Json& config, const std::string& registry) {
  std::string name;
  if (const auto store = text_of(config, "credsStore"); !store) {
    return std::unexpected(store.error());
  } else {
    name = *store;
  }
  if (const Json* helpers = find_object(config, "credHelpers"); helpers != nullptr) {
    if (const auto keys = keys_of(*helpers, registry); !keys.empty()) {
      const auto own = text_of(*helpers, keys.front());
      if (!own) {
        return std::unexpected(own.error().within("credHelpers"));
      }
      name = *own;  // an empty one says that the file keeps them
    }
  }
  if (!name.empty() && !is_helper_name(name)) {
    return fail("'{}' is not the name of a credential helper", printable(name));
  }
  return name;
}

Result<std::optional<Credentials>> configured_auth(const Json& config,
                                                   const std::string& registry) {
  const Json* auths = find_object(config, "auths");
  if (auths == nullptr) {
    return std::nullopt;
  }
  for (const std::string& key : keys_of(*auths, registry)) {
    auto credentials = parse_auth(auths->at(key));
    if (!credentials) {
      return std::unexpected(
          credentials.error().within(fmt::format("'auths' of '{}'", printable(key))));
    }
    // Docker leaves an empty entry where a helper has the credentials.
    if (!credentials->username.empty() || !credentials->identity_token.empty()) {
      return std::move(*credentials);
    }
  }
  return std::nullopt;
}

Result<void> set_auth(Json& config, const std::string& registry, const Credentials& credentials) {
  if (config.contains("auths") && !config["auths"].is_object()) {
    return fail("'auths' is not an object");
  }
  erase_auth(config, registry);
  Json entry = {
      {"auth", encode_base64(fmt::format("{}:{}", credentials.username, credentials.password))}};
  if (!credentials.identity_token.empty()) {
    entry["identitytoken"] = credentials.identity_token;
  }
  config["auths"][docker_config_key(registry)] = std::move(entry);
  return {};
}

bool erase_auth(Json& config, const std::string& registry) {
  const Json* auths = find_object(config, "auths");
  if (auths == nullptr) {
    return false;
  }
  const auto keys = keys_of(*auths, registry);
  for (const std::string& key : keys) {
    config["auths"].erase(key);
  }
  return !keys.empty();
}

}  // namespace msb::oci
