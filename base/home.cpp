// SPDX-License-Identifier: Apache-2.0
#include "base/home.hpp"

#include <cstdlib>

namespace msb {

Result<std::string> home_directory() {
  const auto absolute = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value != nullptr && value[0] == '/' ? value : "";
  };
  if (std::string home = absolute("MSB_HOME"); !home.empty()) {
    return home;
  }
  // Another place would look as if all were gone.
  if (const char* home = std::getenv("MSB_HOME"); home != nullptr && *home != '\0') {
    return fail("MSB_HOME is \"{}\", and has to be an absolute path", home);
  }
  if (const std::string data = absolute("XDG_DATA_HOME"); !data.empty()) {
    return data + "/microsandbox";
  }
  if (const std::string home = absolute("HOME"); !home.empty()) {
    return home + "/.local/share/microsandbox";
  }
  return fail("there is no place for images: set MSB_HOME to an absolute path");
}

}  // namespace msb
