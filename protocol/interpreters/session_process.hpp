// SPDX-License-Identifier: Apache-2.0
// What an interpreter session needs of the exec protocol, as interfaces: so that a session is
// tested without a guest, and so that the adapter to the client (protocol/process.hpp) stays small.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb::protocol {

// START of a session: always with the flags KEEP, CHANNEL and NO_STDIN.
struct SessionStart {
  std::string label;
  std::string user;
  std::string directory = "/";
  std::vector<std::string> arguments;
  std::vector<std::string> variables;
};

// How a session's process ended, or why there is none to speak with.
struct SessionEnd {
  enum class Kind { kExited, kSignalled, kLost };  // kLost: refused, broken, or taken by another
  Kind kind = Kind::kLost;
  std::uint32_t value = 0;  // exit status, or signal
  std::string reason;       // kLost: one sentence
};

// A connection to a session's process. Destroying it lets go, and the process goes on; that may
// happen inside its own events.
class SessionProcess {
 public:
  struct Events {
    std::function<void(std::span<const std::byte>)> channel;
    std::function<void(std::string_view)> output;        // standard output
    std::function<void(std::string_view)> error_output;  // standard error
    std::function<void(const SessionEnd&)> ended;        // last
  };

  virtual ~SessionProcess() = default;
  virtual void write_channel(std::string_view bytes) = 0;
  virtual void end_channel() = 0;
  // SIGNAL to the process, or to its group. `answered` is called once the agent has answered, never
  // inside the call, and also when that failed; not after the process was let go.
  virtual void signal(int number, bool group, std::function<void()> answered) = 0;
  // SIGKILL to the group, and FORGET once it has ended, also when that was long ago; goes on by
  // itself after the process was let go.
  virtual void kill() = 0;
};

// Runs its function once, later; destroying it before that cancels it. May be destroyed inside its
// function.
class SessionTimer {
 public:
  virtual ~SessionTimer() = default;
};

// Events and timers come on the loop's thread, never inside a call of these.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  virtual Result<std::unique_ptr<SessionProcess>> start(const SessionStart& start,
                                                        SessionProcess::Events events) = 0;
  // ATTACH with the offset "only what is written from now on" for each stream.
  virtual Result<std::unique_ptr<SessionProcess>> attach(std::uint32_t process,
                                                         SessionProcess::Events events) = 0;
  virtual std::unique_ptr<SessionTimer> after(std::chrono::milliseconds delay,
                                              std::function<void()> function) = 0;
};

}  // namespace msb::protocol
