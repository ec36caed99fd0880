// SPDX-License-Identifier: Apache-2.0
#include "launcher/environment.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace msb::launcher {

namespace {

constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string_view name_of(std::string_view variable) {
  return variable.substr(0, variable.find('='));
}

// Sets NAME=VALUE, in place of an earlier value of the name.
void set_variable(std::vector<std::string>& environment, std::string variable) {
  const auto found = std::ranges::find(environment, name_of(variable), name_of);
  if (found != environment.end()) {
    *found = std::move(variable);
  } else {
    environment.push_back(std::move(variable));
  }
}

void set_default(std::vector<std::string>& environment, std::string variable) {
  if (std::ranges::find(environment, name_of(variable), name_of) == environment.end()) {
    environment.push_back(std::move(variable));
  }
}

}  // namespace

Result<std::vector<std::string>> make_environment(const std::vector<std::string>& base,
                                                  const std::vector<std::string>& words) {
  std::vector<std::string> environment;
  for (const std::string& variable : base) {
    // A name without a value would be a word that asks for the caller's, wherever it is passed on
    // to.
    if (const std::size_t equals = variable.find('='); equals != 0 && equals != std::string::npos) {
      set_variable(environment, variable);
    }
  }
  for (const std::string& variable : words) {
    if (variable.empty() || variable.starts_with('=')) {
      return fail("environment variable \"{}\" has no name; give NAME=VALUE or NAME", variable);
    }
    if (variable.find('=') != std::string::npos) {
      set_variable(environment, variable);
    } else if (const char* value = std::getenv(variable.c_str())) {
      set_variable(environment, fmt::format("{}={}", variable, value));
    }
  }
  set_default(environment, fmt::format("PATH={}", kDefaultPath));
  return environment;
}

void prepend_path(std::vector<std::string>& environment, const std::string& directory) {
  const auto found = std::ranges::find(environment, "PATH", name_of);
  const std::string_view rest =
      found != environment.end() ? std::string_view(*found).substr(5) : kDefaultPath;
  set_variable(environment, fmt::format("PATH={}:{}", directory, rest));
}

void add_terminal_type(std::vector<std::string>& environment) {
  const char* value = std::getenv("TERM");
  set_default(environment, fmt::format("TERM={}", value != nullptr ? value : "xterm"));
}

}  // namespace msb::launcher
