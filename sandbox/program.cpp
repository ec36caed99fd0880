// SPDX-License-Identifier: Apache-2.0
#include "sandbox/program.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "oci/printable.hpp"

namespace msb::sandbox {

Result<Spawned> start_program(const ProgramOptions& options) {
  Spawn spawn;
  if (!options.streams) {
    spawn.null(STDIN_FILENO);
    spawn.null(STDOUT_FILENO);
    spawn.null(STDERR_FILENO);
  }
  for (const int descriptor : options.inherited) {
    spawn.give(descriptor, descriptor);
  }
  return spawn.start(options.path, options.arguments);
}

Result<void> run_program(const std::string& path, std::vector<std::string> arguments,
                         const std::vector<int>& inherited) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot make a pipe for '{}'", path);
  }
  const Fd reading(ends[0]);
  Fd writing(ends[1]);
  Spawn spawn;
  spawn.null(STDIN_FILENO);
  spawn.null(STDOUT_FILENO);
  spawn.give(writing.get(), STDERR_FILENO);
  for (const int descriptor : inherited) {
    spawn.give(descriptor, descriptor);
  }
  const auto program = spawn.start(path, std::move(arguments));
  if (!program) {
    return std::unexpected(program.error());
  }
  writing.reset();
  constexpr std::size_t kMaxText = 1024;
  std::string text;
  char piece[1024];
  ssize_t length = 0;
  while ((length = ::read(reading.get(), piece, sizeof piece)) > 0 ||
         (length < 0 && errno == EINTR)) {
    text.append(piece, length < 0 ? 0 : static_cast<std::size_t>(length));
    text.resize(std::min(text.size(), kMaxText));
  }
  if (const int status = wait_for(*program); status != 0) {
    while (text.ends_with('\n')) {
      text.pop_back();
    }
    return fail("'{}' failed with status {}: {}", path, status, oci::printable(text, kMaxText));
  }
  return {};
}

Result<std::string> program_directory() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    return fail_errno(error.value(), "cannot find this program's own directory");
  }
  return path.parent_path().string();
}

}  // namespace msb::sandbox
