// SPDX-License-Identifier: Apache-2.0
// `msb login` and `msb logout`
#pragma once

#include <string>

#include "base/result.hpp"

namespace msb::cli {

struct LoginOptions {
  std::string registry;  // empty for Docker Hub
  std::string user;      // empty: asked for
  bool password_from_input = false;
  bool insecure = false;
};

// Asks on the terminal for what is missing, checks it with the registry and keeps it where Docker
// does.
Result<void> login(const LoginOptions& options);

Result<void> logout(const std::string& registry);

}  // namespace msb::cli
