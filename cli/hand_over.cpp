// SPDX-License-Identifier: Apache-2.0
// The commands about registries as msb has them: it only knows their words. As msb-registry has
// them they are in pull.cpp and login.cpp.
#include "cli/login.hpp"
#include "cli/program_parts.hpp"
#include "cli/pull.hpp"

namespace msb::cli {

Result<void> pull(const PullOptions& /*options*/) {
  return std::unexpected(become_part(kRegistryProgram));
}

Result<void> login(const LoginOptions& /*options*/) {
  return std::unexpected(become_part(kRegistryProgram));
}

Result<void> logout(const std::string& /*registry*/) {
  return std::unexpected(become_part(kRegistryProgram));
}

}  // namespace msb::cli
