// SPDX-License-Identifier: Apache-2.0
// What the user settled about images and registries, in images.json:
//
//   {
//     "aliases": {"microsandbox/python": "python:3.12-slim"},
//     "insecure_registries": ["registry.local:5000"],
//     "certificates": {"registry.example": "/etc/ssl/registry-ca.pem"}
//   }
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "oci/reference.hpp"

namespace msb::oci {

struct Settings {
  // Name without tag and digest -> reference. Holds the built-in ones, unless the file says
  // otherwise.
  std::map<std::string, std::string, std::less<>> aliases;
  // Registries (host or host:port) that may be spoken to without verified TLS.
  std::set<std::string, std::less<>> insecure_registries;
  // Registry (host or host:port) -> absolute path of a PEM file with the CA certificates that it is
  // to be trusted by, beside the system's.
  std::map<std::string, std::string, std::less<>> certificates;
};

// The settings of someone who has no file: only the built-in aliases.
Settings default_settings();

// The content of images.json. Fails with a sentence that names the key: unknown, of a wrong type,
// an alias that is no name or whose target is no reference, a registry or path that is none.
Result<Settings> parse_settings(std::string_view json);

// "images.json" in $MSB_CONFIG, else in $XDG_CONFIG_HOME/microsandbox, else in
// ~/.config/microsandbox; fails when none of the three is an absolute path.
Result<std::string> settings_path();

// Reads the file at `path`; one that does not exist gives the default settings.
Result<Settings> load_settings(const std::string& path);

// `text` with an alias replaced by what it stands for. The name is compared as it is written,
// without tag and digest; where `text` has one of these, it takes the place of the target's. What
// an alias stands for is not looked up again.
std::string resolve_alias(const Settings& settings, std::string_view text);

// resolve_alias(), then parse_reference().
Result<Reference> resolve_reference(const Settings& settings, std::string_view text);

}  // namespace msb::oci
