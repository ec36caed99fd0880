// SPDX-License-Identifier: Apache-2.0
// `msb server start` and `msb mcp` as msb has them: it becomes msb-server, or starts one in the
// background.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/home.hpp"
#include "base/spawn.hpp"
#include "cli/notice.hpp"
#include "cli/program_parts.hpp"
#include "cli/server.hpp"
#include "sandbox/files.hpp"
#include "server/keys.hpp"
#include "server/presence.hpp"
#include "server/request_log.hpp"

namespace msb::cli {

namespace {

std::vector<std::string> arguments_of(const server::ServeOptions& serve, int ready) {
  std::vector<std::string> arguments = {"msb",
                                        "server",
                                        "start",
                                        "--host",
                                        serve.host,
                                        "--port",
                                        fmt::format("{}", serve.port),
                                        fmt::format("--ready={}", ready)};
  if (!serve.project.empty()) {
    arguments.insert(arguments.end(), {"--path", serve.project});
  }
  if (serve.dev) {
    arguments.emplace_back("--dev");
  }
  return arguments;
}

// What it says first: where it is, or why it is not.
std::string read_line(int fd) {
  std::string line;
  char byte = 0;
  ssize_t length = 0;
  while (byte != '\n' && ((length = ::read(fd, &byte, 1)) > 0 || (length < 0 && errno == EINTR))) {
    line.append(length > 0 && byte != '\n' ? 1 : 0, byte);
  }
  return line;
}

Result<int> start_in_background(const ServerWords& words) {
  const auto home = home_directory();
  const auto path = part_path(kServerProgram);
  if (!home || !path) {
    return std::unexpected(home ? path.error() : home.error());
  }
  const auto log = server::open_server_log(*home);
  if (!log) {
    return std::unexpected(log.error());
  }
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot make a pipe for '{}'", *path);
  }
  const Fd reading(ends[0]);
  Fd writing(ends[1]);
  Spawn spawn;
  spawn.null(STDIN_FILENO);
  spawn.null(STDOUT_FILENO);
  spawn.give(log->get(), STDERR_FILENO);
  spawn.give(writing.get(), writing.get());
  spawn.own_session();
  spawn.usual_signals();
  const auto child = spawn.start(*path, arguments_of(words.serve, writing.get()));
  if (!child) {
    return std::unexpected(child.error());
  }
  writing.reset();
  const std::string line = read_line(reading.get());
  constexpr std::string_view kReady = "ready ";
  constexpr std::string_view kError = "error ";
  if (line.starts_with(kReady)) {
    const auto printed = print(fmt::format("The server runs at {}; `msb server stop` stops it\n",
                                           line.substr(kReady.size())));
    return printed ? Result<int>(0) : std::unexpected(printed.error());
  }
  if (line.starts_with(kError)) {
    return fail("{}", line.substr(kError.size()));
  }
  return fail("the server ended with status {} before it listened; see `msb server log`",
              wait_for(*child));
}

}  // namespace

Result<int> start_server(const ServerWords& words) {
  if (words.reset_key) {
    const auto home = home_directory();
    if (!home) {
      return std::unexpected(home.error());
    }
    server::Keys keys(server::server_folder(*home) + "/keys.json");
    const auto revoked = keys.revoke_all();
    if (!revoked) {
      return std::unexpected(revoked.error());
    }
    write_error(fmt::format("msb: revoked {} keys\n", *revoked));
  }
  if (!words.detach) {
    return std::unexpected(become_part(kServerProgram));
  }
  if (!words.serve.key.empty()) {
    // It would show in the list of processes.
    return fail(
        "--key is for a server in the foreground; `msb server keygen` makes keys that stay");
  }
  return start_in_background(words);
}

Result<int> serve_mcp() {
  return std::unexpected(become_part(kServerProgram));
}

}  // namespace msb::cli
