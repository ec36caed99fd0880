// SPDX-License-Identifier: Apache-2.0
#include "initramfs/test_agent.hpp"

extern "C" {
#include "initramfs/agent.h"
#include "initramfs/namespace.h"
}

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>

namespace msb::test {
namespace {

sockaddr_un address_of(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, sizeof address.sun_path - 2);  // abstract: nothing to clean up
  return address;
}

int listen_at(const std::string& name) {
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address = address_of(name);
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(listener, 1000) == 0);
  return listener;
}

/// Everything that the namespace's init changes is the agent's own.
void enter_namespaces() {
  if (unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 ||
      mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    std::perror("unshare");
    std::exit(99);
  }
}

/// The process that is PID 1 in a machine.
[[noreturn]] void run_agent(int control, int listener, Agent::Namespace kind,
                            const std::function<void()>& prepare,
                            const std::function<void(agent_options&)>& configure) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  failure why{};
  namespace_init init{.pid = -1, .report = -1};
  if (kind == Agent::Namespace::kOwn) enter_namespaces();
  prepare();
  if (kind == Agent::Namespace::kOwn) {
    if (!namespace_start(&init, &why) || !namespace_wait_ready(&init, &why)) {
      std::fprintf(stderr, "%s\n", why.text);
      std::exit(98);
    }
  }
  agent_options options{};
  options.control = control;
  options.listener = listener;
  options.kmsg = -1;
  options.namespace_init = init.pid;
  configure(options);
  msb_bye_reason reason = agent_run(&options, &why);
  reason = namespace_end(&init, 5000, reason);
  close(control);
  close(listener);
  // The leak check of ASan forks, which is over with the namespace.
  if (kind == Agent::Namespace::kOwn) _exit(reason);
  std::exit(reason);
}

}  // namespace

bool can_raise_limits() {
  return geteuid() == 0 && prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE) == 1;
}

bool dies(pid_t pid) {
  for (int i = 0; i < kPatienceSeconds * 100; i++) {
    if (kill(pid, 0) != 0) return true;
    usleep(10000);
  }
  return false;
}

std::string frame(uint32_t type, const std::string& payload) {
  msb_frame_header header{.type = type, .length = static_cast<uint32_t>(payload.size())};
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) + payload;
}

std::string Start::payload() const {
  msb_start start{.flags = flags,
                  .arguments = static_cast<uint32_t>(arguments.size()),
                  .variables = static_cast<uint32_t>(variables.size()),
                  .groups = static_cast<uint32_t>(groups.size()),
                  .limits = static_cast<uint32_t>(limits.size()),
                  .umask = umask,
                  .timeout_ms = timeout_ms,
                  .keep = keep,
                  .rows = rows,
                  .columns = columns,
                  .reserved = 0};
  std::string bytes = bytes_of(start);
  for (const msb_limit& limit : limits) bytes += bytes_of(limit);
  for (const std::string& text : {label, user, directory}) bytes += text + '\0';
  for (const std::string& group : groups) bytes += group + '\0';
  for (const std::string& argument : arguments) bytes += argument + '\0';
  for (const std::string& variable : variables) bytes += variable + '\0';
  return bytes;
}

Start shell(const std::string& command) {
  return {.arguments = {"sh", "-c", command}};
}

Connection::Connection(int descriptor) : descriptor_(descriptor) {
  timeval patience{.tv_sec = kPatienceSeconds, .tv_usec = 0};
  setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

Connection::Connection(Connection&& other) noexcept : descriptor_(other.descriptor_) {
  other.descriptor_ = -1;
}

Connection::~Connection() {
  close();
}

void Connection::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

void Connection::send(const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    ssize_t n = ::send(descriptor_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // what the agent thinks of it is seen when receiving
    sent += static_cast<size_t>(n);
  }
}

size_t Connection::send_until_stuck(const std::string& bytes) {
  size_t sent = 0;
  pollfd wait{.fd = descriptor_, .events = POLLOUT, .revents = 0};
  while (sent < bytes.size() && poll(&wait, 1, 300) > 0) {
    ssize_t n =
        ::send(descriptor_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) break;
    sent += static_cast<size_t>(n);
  }
  return sent;
}

void Connection::send_input(const std::string& bytes) {
  for (size_t at = 0; at < bytes.size(); at += MSB_MAX_DATA) {
    send(frame(MSB_STDIN, bytes.substr(at, MSB_MAX_DATA)));
  }
}

void Connection::end_input() {
  send(frame(MSB_STDIN));
}

void Connection::send_channel(const std::string& bytes) {
  for (size_t at = 0; at < bytes.size(); at += MSB_MAX_DATA) {
    send(frame(MSB_CHANNEL_INPUT, bytes.substr(at, MSB_MAX_DATA)));
  }
}

bool Connection::receive_until(const std::string& text) {
  std::string output;
  while (output.find(text) == std::string::npos) {
    auto next = receive();
    if (!next) {
      MESSAGE("came instead: ", output);
      return false;
    }
    if (next->type == MSB_STDOUT || next->type == MSB_STDERR) output += next->payload;
  }
  return true;
}

msb_started Connection::started() {
  auto next = receive();
  REQUIRE(next);
  REQUIRE(next->type == MSB_STARTED);
  return next->as<msb_started>();
}

bool Connection::receive_exactly(char* to, size_t length) {
  size_t filled = 0;
  while (filled < length) {
    ssize_t n = recv(descriptor_, to + filled, length - filled, 0);
    if (n <= 0) return false;
    filled += static_cast<size_t>(n);
  }
  return true;
}

std::optional<Frame> Connection::receive() {
  msb_frame_header header;
  if (!receive_exactly(reinterpret_cast<char*>(&header), sizeof header)) return std::nullopt;
  REQUIRE(header.length <= MSB_MAX_DATA);
  Frame frame{.type = header.type, .payload = std::string(header.length, '\0')};
  if (!receive_exactly(frame.payload.data(), header.length)) return std::nullopt;
  if (frame.type == MSB_STARTED) started_ = frame.as<msb_started>();
  return frame;
}

bool Connection::is_closed_by_agent() {
  char byte;
  return recv(descriptor_, &byte, 1, 0) == 0 || errno == ECONNRESET;
}

Outcome Connection::finish() {
  Outcome outcome;
  while (auto next = receive()) {
    outcome.started = started_;
    CHECK_FALSE(outcome.exited);
    CHECK_FALSE(outcome.refused);
    CHECK_FALSE(outcome.detached);
    bool begun = outcome.attached || outcome.started.process != 0;
    switch (next->type) {
      case MSB_STARTED:
        break;
      case MSB_STDOUT:
        CHECK(begun);
        outcome.output += next->payload;
        break;
      case MSB_STDERR:
        CHECK(begun);
        outcome.error += next->payload;
        break;
      case MSB_CHANNEL:
        CHECK(begun);
        outcome.channel += next->payload;
        break;
      case MSB_ATTACHED:
        CHECK_FALSE(begun);
        outcome.attached = next->as<msb_attached>();
        break;
      case MSB_DETACHED:
        outcome.detached = true;
        break;
      case MSB_REFUSED:
        outcome.refused = next->as<msb_failure>();
        outcome.why = next->payload.substr(sizeof(msb_failure));
        break;
      case MSB_EXITED:
        outcome.exited = next->as<msb_exited>();
        outcome.exited_text = next->payload.substr(sizeof(msb_exited));
        break;
      default:
        FAIL("a frame of type ", next->type);
    }
  }
  outcome.closed = is_closed_by_agent();
  return outcome;
}

Agent::Agent(Namespace kind, const std::function<void()>& prepare,
             const std::function<void(agent_options&)>& configure) {
  static int count = 0;
  address_ = "msb-agent-test-" + std::to_string(getpid()) + "-" + std::to_string(count++);
  int control[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) == 0);
  int listener = listen_at(address_);
  std::cout.flush();
  std::fflush(nullptr);
  pid_ = fork();
  REQUIRE(pid_ >= 0);
  if (pid_ == 0) {
    ::close(control[0]);
    run_agent(control[1], listener, kind, prepare, configure);
  }
  ::close(control[1]);
  ::close(listener);
  control_.emplace(control[0]);
}

Agent::~Agent() {
  if (pid_ < 0) return;
  control_->close();
  CHECK(wait() == MSB_BYE_REQUESTED);
}

Connection Agent::connect() const {
  int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = address_of(address_);
  REQUIRE(::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return Connection(descriptor);
}

Connection Agent::start(const Start& start) const {
  Connection connection = connect();
  connection.send(frame(MSB_START, start.payload()));
  return connection;
}

Outcome Agent::run(const Start& start) const {
  Connection connection = this->start(start);
  connection.end_input();
  return connection.finish();
}

Connection Agent::attach(uint32_t process, uint64_t output, uint64_t error,
                         uint64_t channel) const {
  msb_attach request{.process = process, .reserved = 0, .offsets = {output, error, channel}};
  Connection connection = connect();
  connection.send(frame(MSB_ATTACH, bytes_of(request)));
  return connection;
}

std::vector<Frame> Agent::request(uint32_t type, const std::string& payload) const {
  Connection connection = connect();
  connection.send(frame(type, payload));
  std::vector<Frame> answer;
  while (auto next = connection.receive()) {
    answer.push_back(*next);
    if (next->type != MSB_PROCESS) return answer;
  }
  FAIL("no answer to a request of type ", type);
  return answer;
}

Frame Agent::request_about(uint32_t type, uint32_t process) const {
  return request(type, bytes_of(msb_process_id{.process = process})).back();
}

Frame Agent::send_signal(uint32_t process, uint32_t signal, uint32_t flags) const {
  return request(MSB_SIGNAL,
                 bytes_of(msb_signal{.process = process, .signal = signal, .flags = flags}))
      .back();
}

std::vector<msb_process> Agent::list() const {
  std::vector<msb_process> processes;
  std::vector<Frame> answer = request(MSB_LIST);
  for (const Frame& each : answer) {
    if (each.type == MSB_PROCESS) processes.push_back(each.as<msb_process>());
  }
  REQUIRE(answer.back().type == MSB_DONE);
  CHECK(answer.back().as<msb_done>().value == processes.size());
  return processes;
}

void Agent::shut_down(uint32_t signal, uint32_t grace_ms) {
  control_->send(
      frame(MSB_SHUTDOWN, bytes_of(msb_shutdown{.signal = signal, .grace_ms = grace_ms})));
}

int Agent::wait() {
  int status = 0;
  REQUIRE(waitpid(pid_, &status, 0) == pid_);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace msb::test
