// SPDX-License-Identifier: Apache-2.0
// An agent in a process of its own, reached over Unix sockets as it would be over vsock, and a
// client of it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "protocol/msb_exec.h"

struct agent_options;

namespace msb::test {

/// How long anything may take before a test gives up.
constexpr int kPatienceSeconds = 20;

struct Frame {
  uint32_t type = 0;
  std::string payload;

  /// The payload as one of the protocol's structures; zeros where it is shorter.
  template <typename T>
  T as() const {
    T value{};
    payload.copy(reinterpret_cast<char*>(&value), sizeof value);
    return value;
  }
};

std::string frame(uint32_t type, const std::string& payload = {});

/// Whether this process may raise hard limits and lower out-of-memory scores: PID 1 of a machine
/// may.
bool can_raise_limits();

/// Whether a process ends, and is reaped, soon.
bool dies(pid_t pid);

/// A structure of the protocol as bytes.
template <typename T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

/// A START request. Runs as the user that runs the test where that is root.
struct Start {
  std::vector<std::string> arguments;
  std::vector<std::string> variables = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/"};
  std::string directory = "/";
  uint32_t flags = 0;
  std::string user = {};
  std::vector<std::string> groups = {};
  std::vector<msb_limit> limits = {};
  std::string label = {};
  uint32_t umask = MSB_UMASK_DEFAULT;
  uint32_t timeout_ms = 0;
  uint32_t keep = 0;
  uint16_t rows = 0;
  uint16_t columns = 0;

  std::string payload() const;
};

/// A command for the shell.
Start shell(const std::string& command);

/// What a process did, once it is over.
struct Outcome {
  std::optional<msb_failure> refused;
  std::string why;  // the text of REFUSED
  msb_started started{};
  std::string output;
  std::string error;
  std::string channel;
  std::optional<msb_attached> attached;
  std::optional<msb_exited> exited;
  std::string exited_text;
  bool detached = false;
  bool closed = false;  // the agent closed the connection after the last frame
};

class Connection {
 public:
  explicit Connection(int descriptor);
  ~Connection();
  Connection(Connection&& other) noexcept;
  Connection& operator=(Connection&&) = delete;

  void send(const std::string& bytes);
  /// Sends as much as is taken within a short while. Returns how many bytes that was.
  size_t send_until_stuck(const std::string& bytes);
  void send_input(const std::string& bytes);
  void end_input();
  void send_channel(const std::string& bytes);
  /// The next frame; none when the agent closed the connection or took too long.
  std::optional<Frame> receive();
  Outcome finish();
  /// Receives until standard output or error, whichever, was read up to `text`. False when that
  /// does not come.
  bool receive_until(const std::string& text);
  /// STARTED. Fails the test when something else comes.
  msb_started started();
  /// The descriptor, for what is not in frames.
  int descriptor() const { return descriptor_; }
  /// Whether the agent closes the connection without another frame.
  bool is_closed_by_agent();
  void close();

 private:
  bool receive_exactly(char* to, size_t length);
  int descriptor_;
  msb_started started_{};  // as received
};

class Agent {
 public:
  enum class Namespace { kNone, kOwn };

  /// Forks the agent. Namespace::kOwn gives it a pid namespace like in a machine, and needs root.
  /// `prepare` runs in the agent's process first, after its mount namespace was made; `configure`
  /// right before the agent.
  explicit Agent(
      Namespace kind = Namespace::kNone, const std::function<void()>& prepare = [] {},
      const std::function<void(agent_options&)>& configure = [](agent_options&) {});
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  Connection connect() const;
  Connection start(const Start& start) const;
  /// Starts, ends the input, and waits for the end.
  Outcome run(const Start& start) const;
  Connection attach(uint32_t process, uint64_t output, uint64_t error = MSB_OFFSET_END,
                    uint64_t channel = MSB_OFFSET_END) const;
  /// One request on a connection of its own: all frames of the answer.
  std::vector<Frame> request(uint32_t type, const std::string& payload = {}) const;
  /// The same for a request that is about one process and needs nothing else.
  Frame request_about(uint32_t type, uint32_t process) const;
  Frame send_signal(uint32_t process, uint32_t signal, uint32_t flags = 0) const;
  /// Processes as LIST tells of them.
  std::vector<msb_process> list() const;
  void shut_down(uint32_t signal = 0, uint32_t grace_ms = 0);
  Connection& control() { return *control_; }
  pid_t pid() const { return pid_; }
  /// Waits for the agent to end by itself. Returns why (enum msb_bye_reason), or -1 for a crash.
  int wait();

 private:
  std::optional<Connection> control_;
  std::string address_;
  pid_t pid_ = -1;
};

}  // namespace msb::test
