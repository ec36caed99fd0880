// SPDX-License-Identifier: Apache-2.0
#include "cli/program_parts.hpp"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <fstream>
#include <iterator>

#include "sandbox/program.hpp"

namespace msb::cli {

Result<std::string> part_path(const char* name) {
  const auto directory = sandbox::program_directory();
  return directory ? Result<std::string>(fmt::format("{}/{}", *directory, name)) : directory;
}

Error become_part(const char* name) {
  const auto path = part_path(name);
  if (!path) {
    return path.error();
  }
  // proc(5): the arguments, each with a null byte behind.
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> words;
  for (std::size_t at = 0; at < text.size(); at = text.find('\0', at) + 1) {
    words.emplace_back(text.c_str() + at);
  }
  return become_program(*path, std::move(words));
}

Error become_program(const std::string& path, std::vector<std::string> arguments) {
  std::vector<char*> words;
  words.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) {
    words.push_back(argument.data());
  }
  words.push_back(nullptr);
  std::signal(SIGPIPE, SIG_DFL);
  ::execv(path.c_str(), words.data());
  return fail_errno(errno, "cannot run '{}'", path).error();
}

}  // namespace msb::cli
