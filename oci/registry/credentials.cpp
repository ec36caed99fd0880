// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/credentials.hpp"

#include <nlohmann/json.hpp>
#include <utility>

#include "oci/config_file.hpp"
#include "oci/registry/credential_helper.hpp"
#include "oci/registry/docker_config.hpp"

namespace msb::oci {
namespace {

constexpr std::string_view kFileName = "/config.json";

struct Configuration {
  nlohmann::json document;
  std::string helper;  // of the registry that was asked about; empty for the file itself
};

Result<Configuration> read(const std::string& path, const std::string& registry) {
  const auto content = read_config_file(path);
  if (!content) {
    return std::unexpected(content.error());
  }
  const auto context = [&](const Error& error) {
    return std::unexpected(error.within(fmt::format("'{}'", path)));
  };
  auto document = parse_docker_config(content->value_or(""));
  if (!document) {
    return context(document.error());
  }
  auto helper = configured_helper(*document, registry);
  if (!helper) {
    return context(helper.error());
  }
  return Configuration{std::move(*document), std::move(*helper)};
}

Result<void> write(const std::string& path, const nlohmann::json& document) {
  // As Docker writes it. What was parsed is UTF-8; a password need not be, but is in base64.
  return replace_config_file(
      path, document.dump(1, '\t', false, nlohmann::json::error_handler_t::replace) + '\n');
}

}  // namespace

DockerConfig::DockerConfig(std::string path, std::chrono::milliseconds helper_timeout)
    : path_(std::move(path)), helper_timeout_(helper_timeout) {}

Result<std::string> DockerConfig::default_path() {
  if (std::string directory = absolute_path_from_environment("DOCKER_CONFIG"); !directory.empty()) {
    return directory.append(kFileName);
  }
  if (std::string home = absolute_path_from_environment("HOME"); !home.empty()) {
    return home.append("/.docker").append(kFileName);
  }
  return fail("there is no place for credentials: set HOME to the absolute path of a directory");
}

Result<std::optional<Credentials>> DockerConfig::find(const std::string& registry) const {
  const auto configuration = read(path_, registry);
  if (!configuration) {
    return std::unexpected(configuration.error());
  }
  if (!configuration->helper.empty()) {
    auto credentials =
        CredentialHelper(configuration->helper, helper_timeout_).get(docker_config_key(registry));
    if (!credentials || *credentials) {
      return credentials;
    }
  }
  auto credentials = configured_auth(configuration->document, registry);
  if (!credentials) {
    return std::unexpected(credentials.error().within(fmt::format("'{}'", path_)));
  }
  return credentials;
}

Result<std::string> DockerConfig::store(const std::string& registry,
                                        const Credentials& credentials) const {
  auto configuration = read(path_, registry);
  if (!configuration) {
    return std::unexpected(configuration.error());
  }
  if (!configuration->helper.empty()) {
    auto stored = CredentialHelper(configuration->helper, helper_timeout_)
                      .store(docker_config_key(registry), credentials);
    if (!stored) {
      return std::unexpected(stored.error());
    }
    // What the file held would now be out of date.
    if (erase_auth(configuration->document, registry)) {
      if (auto written = write(path_, configuration->document); !written) {
        return std::unexpected(written.error());
      }
    }
    return fmt::format("the credential helper '{}'", configuration->helper);
  }
  auto changed = set_auth(configuration->document, registry, credentials);
  if (!changed) {
    return std::unexpected(changed.error().within(fmt::format("'{}'", path_)));
  }
  if (auto written = write(path_, configuration->document); !written) {
    return std::unexpected(written.error());
  }
  return path_;
}

Result<bool> DockerConfig::erase(const std::string& registry) const {
  auto configuration = read(path_, registry);
  if (!configuration) {
    return std::unexpected(configuration.error());
  }
  bool erased = false;
  if (!configuration->helper.empty()) {
    const auto answer =
        CredentialHelper(configuration->helper, helper_timeout_).erase(docker_config_key(registry));
    if (!answer) {
      return std::unexpected(answer.error());
    }
    erased = *answer;
  }
  if (erase_auth(configuration->document, registry)) {
    if (auto written = write(path_, configuration->document); !written) {
      return std::unexpected(written.error());
    }
    erased = true;
  }
  return erased;
}

}  // namespace msb::oci
