// SPDX-License-Identifier: Apache-2.0
// A process in a guest, joined to the launcher's own standard streams, terminal and signals.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/async_io.hpp"
#include "launcher/detach_keys.hpp"
#include "launcher/outcome.hpp"
#include "launcher/standard_streams.hpp"
#include "launcher/terminal.hpp"
#include "protocol/opener.hpp"
#include "protocol/process.hpp"
#include "protocol/requests.hpp"

namespace msb::launcher {

struct CommandOptions {
  protocol::ProcessSpec process;               // to start, unless:
  std::optional<protocol::AttachSpec> attach;  // to go on with one that was started before
  // Of a process that is attached to, the agent tells the next two.
  bool input = true;        // our standard input is the process's
  bool terminal = false;    // the process has a terminal: ours, if there is one, becomes raw
  bool kept = false;        // it outlives us: Ctrl-P Ctrl-Q in a terminal lets go of it
  std::string memory_hint;  // for the message when memory ran out, after "ran out of memory"
};

// The exit status when the agent did not start a process.
int status_of_refusal(const protocol::Failure& failure);

// The loop must be drained, after close(), before it is destroyed.
class Command {
 public:
  struct Events {
    std::function<void(std::uint32_t process)> started;  // or attached to
    std::function<void()> first_output;                  // optional
    // One of these comes last. What the command came to:
    std::function<void(Outcome)> ended;
    // The connection ended or broke before that.
    std::function<void(Error)> lost;
    // A signal or the terminal's new size did not get there.
    std::function<void(const Error&)> undelivered;
  };

  // Connections come from `opener`, which must outlive it.
  Command(AsyncIo& io, const protocol::Opener& opener, CommandOptions options, Events events);

  // Fails when there is no connection, or the process is one that the agent would refuse.
  Result<void> start();
  [[nodiscard]] bool running() const { return process_id_.has_value(); }
  // A signal that this process got: SIGWINCH and SIGCONT for the terminal, others for the command
  // while it runs.
  void on_signal(int number);
  // Lets go of the process, and gives the terminal back. Nothing is called any more.
  void close();

 private:
  void on_started(std::uint32_t process);
  void on_attached(const msb_attached& attached);
  bool on_output(msb_stream stream, std::span<const std::byte> bytes);
  void on_output_written(bool& open, int error);
  void on_input(std::span<const std::byte> bytes);
  void on_sent();
  void on_exited(const protocol::Exited& exited);
  void on_failed(const protocol::Failure& failure);
  void read_input();
  void signal(int number);
  void resize();
  protocol::Requests* requests();
  protocol::Requests::Done<void> delivered();
  void end(Outcome outcome);

  AsyncIo& io_;
  const protocol::Opener& opener_;
  CommandOptions options_;
  Events events_;
  std::optional<protocol::Process> process_;
  std::optional<protocol::Requests> requests_;  // opened when first needed
  std::optional<std::uint32_t> process_id_;     // while it runs
  bool closed_ = false;
  bool first_output_ = true;
  bool stdout_open_ = true;
  bool stderr_open_ = true;
  DetachKeys keys_;
  Terminal terminal_;
  InputReader input_;
  bool reading_ = false;
  OutputWriter stdout_;
  OutputWriter stderr_;
};

}  // namespace msb::launcher
