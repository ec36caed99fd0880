// SPDX-License-Identifier: Apache-2.0
// The commands about registries as msb has them: it only knows their words. As msb-registry has
// them they are in pull.cpp and login.cpp.
#include "cli/login.hpp"
#include "cli/pull.hpp"
#include "cli/registry_program.hpp"

namespace msb::cli {

Result<void> pull(const PullOptions& /*options*/) {
  return std::unexpected(become_registry_program());
}

Result<void> login(const LoginOptions& /*options*/) {
  return std::unexpected(become_registry_program());
}

Result<void> logout(const std::string& /*registry*/) {
  return std::unexpected(become_registry_program());
}

}  // namespace msb::cli
