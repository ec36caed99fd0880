// SPDX-License-Identifier: Apache-2.0
// A sandbox's own command, with everything that its output goes to and its input comes from.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "launcher/attach_server.hpp"
#include "launcher/command.hpp"
#include "launcher/outcome.hpp"
#include "launcher/output_log.hpp"
#include "protocol/msb_exec.h"
#include "protocol/opener.hpp"

namespace msb::launcher {

struct MainCommandOptions {
  std::optional<CommandOptions> command;  // none: the sandbox is there until it is stopped
  OutputLog* log = nullptr;               // optional
};

// The loop must be drained, after close(), before it is destroyed.
class MainCommand {
 public:
  struct Events {
    std::function<void(std::uint32_t process)> started;
    std::function<void()> first_output;
    // It wrote something, or got something from who is attached.
    std::function<void()> active;
    // Its standard streams are not ours any more.
    std::function<void()> detached;
    // As of Command.
    std::function<void(Outcome)> ended;
    std::function<void(Error)> lost;
    std::function<void(const Error&)> undelivered;
  };

  MainCommand(AsyncIo& io, const protocol::Opener& agent, MainCommandOptions options,
              Events events);

  [[nodiscard]] bool exists() const { return command_.has_value(); }
  // Not without a command. Fails as Command::start() does.
  Result<void> start();
  void on_signal(int number);
  // Takes a stream socket in blocking mode, on which OK is still to be written.
  void attach(Fd socket) { clients_.add(std::move(socket)); }
  // The guest did not say how it ended: it was killed.
  void killed() { clients_.killed(exit_flags_); }
  // Who is attached learns that time was over, and not which signal that came to.
  void time_is_over() { exit_flags_ = MSB_EXITED_TIMED_OUT; }
  // Ends it. Who is attached is still there: see clients().
  void close();

  [[nodiscard]] AttachServer& clients() { return clients_; }

 private:
  [[nodiscard]] Command::Events command_events();
  void on_output(msb_stream stream, std::span<const std::byte> bytes);

  OutputLog* const log_;
  const Events events_;
  std::uint32_t exit_flags_ = 0;  // of msb_exited, besides those that the agent gives
  AttachServer clients_;
  std::optional<Command> command_;
  bool terminal_ = false;
};

}  // namespace msb::launcher
