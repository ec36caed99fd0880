// SPDX-License-Identifier: Apache-2.0
#include "sandbox/program.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <system_error>
#include <utility>

#include "oci/printable.hpp"

namespace msb::sandbox {

namespace {

// The arguments of posix_spawn(3) that have to be destroyed.
struct SpawnSettings {
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    sigset_t none;
    sigset_t usual;
    ::sigemptyset(&none);
    ::sigemptyset(&usual);
    ::sigaddset(&usual, SIGPIPE);  // which msb ignores
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &usual);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
};

Result<Program> spawn(const std::string& path, std::vector<std::string> arguments,
                      SpawnSettings& settings) {
  std::vector<char*> words;
  words.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) {
    words.push_back(argument.data());
  }
  words.push_back(nullptr);
  Program program;
  const int code = ::posix_spawnp(&program.pid, path.c_str(), &settings.actions,
                                  &settings.attributes, words.data(), environ);
  if (code != 0) {
    return fail_errno(code, "cannot start '{}'", path);
  }
  // Not waited for yet, so the number is still its own.
  program.process.reset(static_cast<int>(::syscall(SYS_pidfd_open, program.pid, 0)));
  return program;
}

}  // namespace

Result<Program> start_program(const ProgramOptions& options) {
  SpawnSettings settings;
  if (!options.streams) {
    ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
    ::posix_spawn_file_actions_adddup2(&settings.actions, STDIN_FILENO, STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&settings.actions, STDIN_FILENO, STDERR_FILENO);
  }
  for (const int descriptor : options.inherited) {
    // To itself: it loses its close-on-exec flag there.
    ::posix_spawn_file_actions_adddup2(&settings.actions, descriptor, descriptor);
  }
  return spawn(options.path, options.arguments, settings);
}

int wait_for(const Program& program) {
  int status = 0;
  pid_t waited = 0;
  while ((waited = ::waitpid(program.pid, &status, 0)) < 0 && errno == EINTR) {
  }
  constexpr int kSignal = 128;
  constexpr int kUnknown = 125;
  if (waited < 0) {
    return kUnknown;
  }
  return WIFSIGNALED(status) ? kSignal + WTERMSIG(status) : WEXITSTATUS(status);
}

Result<void> run_program(const std::string& path, std::vector<std::string> arguments) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot make a pipe for '{}'", path);
  }
  const Fd reading(ends[0]);
  Fd writing(ends[1]);
  SpawnSettings settings;
  ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&settings.actions, STDIN_FILENO, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&settings.actions, writing.get(), STDERR_FILENO);
  const auto program = spawn(path, std::move(arguments), settings);
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
