// SPDX-License-Identifier: Apache-2.0
#include "cli/registry_program.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/spawn.hpp"
#include "cli/program_parts.hpp"
#include "oci/printable.hpp"

namespace msb::cli {

Result<void> fetch_image(const std::string& reference) {
  const auto program = part_path(kRegistryProgram);
  if (!program) {
    return std::unexpected(program.error());
  }
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot make a pipe for '{}'", *program);
  }
  const Fd reading(ends[0]);
  Fd writing(ends[1]);
  Spawn spawn;
  spawn.null(STDIN_FILENO);
  spawn.null(STDOUT_FILENO);
  spawn.give(writing.get(), writing.get());
  const auto child = spawn.start(
      *program, {"msb", "pull", fmt::format("--errors={}", writing.get()), "--", reference});
  if (!child) {
    return std::unexpected(child.error());
  }
  writing.reset();
  std::string message;
  char piece[1024];
  ssize_t length = 0;
  while ((length = ::read(reading.get(), piece, sizeof piece)) > 0 ||
         (length < 0 && errno == EINTR)) {
    message.append(piece, length < 0 ? 0 : static_cast<std::size_t>(length));
  }
  if (wait_for(*child) == 0) {
    return {};
  }
  return message.empty() ? fail("the pull of '{}' was broken off", oci::printable(reference))
                         : Result<void>(std::unexpected(Error{message}));
}

}  // namespace msb::cli
