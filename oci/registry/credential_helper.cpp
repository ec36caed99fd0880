// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/credential_helper.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/fd.hpp"
#include "oci/json_document.hpp"
#include "oci/printable.hpp"

namespace msb::oci {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

constexpr std::size_t kMaxOutput = 256 * 1024;  // bytes
constexpr int kFirstOther = 3;                  // descriptor after the standard ones
// Instead of a user name: the secret is an identity token.
constexpr std::string_view kTokenUser = "<token>";
constexpr std::string_view kNotFound = "credentials not found";

// A child process, killed and reaped at the end.
class Child {
 public:
  // Runs `program`, looked up on PATH, with `action`, the two descriptors and nothing else.
  static Result<Child> spawn(const std::string& program, const char* action, int input, int output);
  Child(Child&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), ended_(std::move(other.ended_)) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  Child& operator=(Child&&) = delete;
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      wait();
    }
  }

  // Readable once it has ended.
  [[nodiscard]] int ended() const { return ended_.get(); }
  // Its wait status.
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  explicit Child(pid_t pid)
      : pid_(pid), ended_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}

  pid_t pid_;
  Fd ended_;
};

Result<Child> Child::spawn(const std::string& program, const char* action, int input, int output) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, kFirstOther);
  // What this process blocks or ignores is no business of the helper.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string word(action);
  std::string name(program);
  const std::array<char*, 3> arguments = {name.data(), word.data(), nullptr};
  pid_t pid = -1;
  const int error =
      ::posix_spawnp(&pid, program.c_str(), &files, &attributes, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return fail_errno(error, "cannot run the credential helper '{}'", program);
  }
  Child child(pid);
  if (child.ended() < 0) {
    return fail_errno(errno, "cannot watch the credential helper '{}'", program);
  }
  return child;
}

// A file in memory with `content`, at its start: a pipe could fill up, or break with SIGPIPE.
Result<Fd> memory_file(const std::string& content) {
  Fd fd(::memfd_create("credentials", MFD_CLOEXEC));
  if (!fd || ::pwrite(fd.get(), content.data(), content.size(), 0) !=
                 static_cast<ssize_t>(content.size())) {
    return fail_errno(errno, "cannot make a file in memory");
  }
  return fd;
}

// Reads what is there. False at the end.
bool read_available(int fd, std::string& output) {
  std::array<char, 4096> piece{};
  while (output.size() <= kMaxOutput) {
    const ssize_t count = ::read(fd, piece.data(), piece.size());
    if (count > 0) {
      output.append(piece.data(), static_cast<std::size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      return count < 0 && errno == EAGAIN;
    }
  }
  return true;
}

// A program's answer, of which only a part may be fit to be shown.
std::string first_line(std::string_view output) {
  const auto start = output.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos) {
    return "it does not say why";
  }
  output.remove_prefix(start);
  return printable(output.substr(0, output.find_first_of("\r\n")));
}

}  // namespace

Result<std::optional<Credentials>> CredentialHelper::get(const std::string& server) const {
  const auto answer = run("get", server);
  if (!answer) {
    return std::unexpected(answer.error());
  }
  if (!answer->succeeded) {
    if (answer->output.find(kNotFound) != std::string::npos) {
      return std::nullopt;
    }
    return fail("the credential helper '{}' fails: {}", program_, first_line(answer->output));
  }
  const auto document = parse_object(answer->output);
  const auto text = [&](const char* name) -> const std::string* {
    const auto member = document->find(name);
    return member == document->end() ? nullptr : member->get_ptr<const std::string*>();
  };
  if (!document || text("Username") == nullptr || text("Secret") == nullptr) {
    return fail("the credential helper '{}' answers with something else than credentials",
                program_);
  }
  const std::string& username = *text("Username");
  const std::string& secret = *text("Secret");
  if (username == kTokenUser) {
    return Credentials{.username = {}, .password = {}, .identity_token = secret};
  }
  if (username.empty() && secret.empty()) {
    return std::nullopt;
  }
  return Credentials{.username = username, .password = secret, .identity_token = {}};
}

Result<void> CredentialHelper::store(const std::string& server,
                                     const Credentials& credentials) const {
  const bool token = !credentials.identity_token.empty();
  const Json document = {{"ServerURL", server},
                         {"Username", token ? std::string(kTokenUser) : credentials.username},
                         {"Secret", token ? credentials.identity_token : credentials.password}};
  const auto answer = run("store", document.dump(-1, ' ', false, Json::error_handler_t::replace));
  if (!answer) {
    return std::unexpected(answer.error());
  }
  if (!answer->succeeded) {
    // What it says may quote what it was given.
    return fail("the credential helper '{}' cannot store the credentials", program_);
  }
  return {};
}

Result<bool> CredentialHelper::erase(const std::string& server) const {
  const auto answer = run("erase", server);
  if (!answer) {
    return std::unexpected(answer.error());
  }
  if (!answer->succeeded && answer->output.find(kNotFound) == std::string::npos) {
    return fail("the credential helper '{}' fails: {}", program_, first_line(answer->output));
  }
  return answer->succeeded;
}

Result<CredentialHelper::Answer> CredentialHelper::run(const char* action,
                                                       const std::string& input) const {
  const auto input_file = memory_file(input);
  if (!input_file) {
    return std::unexpected(input_file.error());
  }
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot make a pipe");
  }
  const Fd read_end(ends[0]);
  Fd write_end(ends[1]);
  ::fcntl(read_end.get(), F_SETFL, O_NONBLOCK);
  auto child = Child::spawn(program_, action, input_file->get(), write_end.get());
  write_end.reset();
  if (!child) {
    return std::unexpected(child.error());
  }
  Answer answer;
  const auto deadline = Clock::now() + timeout_;
  // A process that it left behind may hold the pipe open, so the end of the pipe is not waited for.
  bool output_open = true;
  for (bool ended = false; !ended;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    std::array<pollfd, 2> files = {pollfd{child->ended(), POLLIN, 0},
                                   pollfd{output_open ? read_end.get() : -1, POLLIN, 0}};
    if (left <= 0) {
      return fail("the credential helper '{}' does not answer within {} ms", program_,
                  timeout_.count());
    }
    constexpr std::int64_t kLongestPoll = 60'000;
    if (::poll(files.data(), files.size(), static_cast<int>(std::min(left, kLongestPoll))) < 0 &&
        errno != EINTR) {
      return fail_errno(errno, "cannot wait for the credential helper '{}'", program_);
    }
    ended = (files[0].revents & POLLIN) != 0;
    output_open = output_open && read_available(read_end.get(), answer.output);
    if (answer.output.size() > kMaxOutput) {
      return fail("the credential helper '{}' writes more than {} bytes", program_, kMaxOutput);
    }
  }
  const int status = child->wait();
  answer.succeeded = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return answer;
}

}  // namespace msb::oci
