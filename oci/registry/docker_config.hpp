// SPDX-License-Identifier: Apache-2.0
// The parts of Docker's config.json that are about registries, read and changed as JSON. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "oci/registry/credentials.hpp"

namespace msb::oci {

// The name under which Docker keeps what belongs to `registry`, in the file and in helpers.
std::string docker_config_key(const std::string& registry);

// Fails for what is no JSON object. An empty file is one without anything.
Result<nlohmann::json> parse_docker_config(std::string_view text);

// The helper that keeps the credentials for `registry`, NAME of docker-credential-NAME; empty when
// the file does. Fails for a name with other characters than A-Z a-z 0-9 . _ -
Result<std::string> configured_helper(const nlohmann::json& config, const std::string& registry);

// The credentials in `auths`; nothing where there are none. Fails when they are malformed.
Result<std::optional<Credentials>> configured_auth(const nlohmann::json& config,
                                                   const std::string& registry);

// Replaces what `auths` holds for `registry`, under whatever key. Fails when `auths` is no object.
Result<void> set_auth(nlohmann::json& config, const std::string& registry,
                      const Credentials& credentials);
// False when it held nothing.
bool erase_auth(nlohmann::json& config, const std::string& registry);

}  // namespace msb::oci
