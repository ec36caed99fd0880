// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/passt.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>
#include <vector>

#include "launcher/network/ip_text.hpp"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

constexpr int kSocket = 3;              // where it finds its end
constexpr int kSocketBuffer = 4 << 20;  // bytes: dozens of frames; the kernel gives what it allows

// Nothing is given to the guest but what is said here: no DHCP, no router advertisements. Frames to
// the gateway's own address do not become connections to this host.
std::vector<std::string> arguments_of(const PasstOptions& options) {
  std::vector<std::string> arguments{
      "passt",       "--foreground",    "--quiet",     "--fd",     std::to_string(kSocket),
      "--no-map-gw", "--no-dhcp",       "--no-dhcpv6", "--no-ra",  "--dns",
      "none",        "--search",        "none",        "--mtu",    std::to_string(kMaxMtu),
      "--interface", options.interface, "--mac-addr",  options.mac};
  if (options.ipv4) {
    arguments.insert(arguments.end(), {"--address", address_text(*options.ipv4), "--netmask", "32",
                                       "--gateway", address_text(*options.ipv4_gateway)});
  }
  if (options.ipv6) {
    arguments.insert(arguments.end(), {"--address", address_text(*options.ipv6), "--gateway",
                                       address_text(*options.ipv6_gateway)});
  }
  if (!options.ipv4 || !options.ipv6) {
    arguments.emplace_back(options.ipv4 ? "--ipv4-only" : "--ipv6-only");
  }
  return arguments;
}

}  // namespace

Result<Passt> Passt::start(const PasstOptions& options) {
  Passt passt;
  std::array<int, 2> sockets{};
  std::array<int, 2> words{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
    return fail_errno(errno, "cannot create a socket pair for passt");
  }
  passt.socket_ = Fd(sockets[0]);
  const Fd theirs(sockets[1]);
  if (::pipe2(words.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    return fail_errno(errno, "cannot create a pipe for passt's messages");
  }
  passt.words_ = Fd(words[0]);
  const Fd standard_error(words[1]);
  for (const int socket : sockets) {
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof kSocketBuffer);
  }
  // Moved out of the way first, so that neither lands on the other's place.
  const Fd moved(::fcntl(theirs.get(), F_DUPFD_CLOEXEC, kSocket + 1));
  if (!moved) {
    return fail_errno(errno, "cannot duplicate a descriptor for passt");
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&actions, standard_error.get(), STDERR_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, moved.get(), kSocket);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, kSocket + 1);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  // A session of its own: a Ctrl-C in our terminal is for the command in the guest.
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> arguments = arguments_of(options);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) {
    pointers.push_back(argument.data());
  }
  pointers.push_back(nullptr);
  const int status =
      ::posix_spawnp(&passt.pid_, "passt", &actions, &attributes, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (status == ENOENT) {
    passt.pid_ = -1;
    return fail(
        "there is no passt, which gives sandboxes their network: install it (the package "
        "\"passt\"), or go without a network by --net none");
  }
  if (status != 0) {
    passt.pid_ = -1;
    return fail_errno(status, "cannot start passt");
  }
  // Not waited for yet, so the number is still its own.
  passt.process_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, passt.pid_, 0)));
  if (!passt.process_) {
    return fail_errno(errno, "cannot watch passt");
  }
  return passt;
}

Passt::Passt(Passt&& other) noexcept
    : socket_(std::move(other.socket_)),
      process_(std::move(other.process_)),
      words_(std::move(other.words_)),
      pid_(std::exchange(other.pid_, -1)) {}

Passt& Passt::operator=(Passt&& other) noexcept {
  if (this != &other) {
    end();
    socket_ = std::move(other.socket_);
    process_ = std::move(other.process_);
    words_ = std::move(other.words_);
    pid_ = std::exchange(other.pid_, -1);
  }
  return *this;
}

Passt::~Passt() {
  end();
}

// It is our child and not waited for, so the number is still its own.
void Passt::kill() const {
  if (pid_ >= 0) {
    ::kill(pid_, SIGKILL);
  }
}

std::string Passt::end() {
  if (pid_ < 0) {
    return "";
  }
  kill();
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                        : fmt::format("exit status {}", WEXITSTATUS(status));
  std::array<char, 4096> words{};
  const ssize_t size = ::read(words_.get(), words.data(), words.size());
  if (size > 0) {
    how += fmt::format(
        ", saying {}",
        protocol::quote(std::as_bytes(std::span(words).first(static_cast<std::size_t>(size)))));
  }
  return how;
}

}  // namespace msb::launcher
