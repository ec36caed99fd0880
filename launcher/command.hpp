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
  // Where to attach, if not at the agent: at a sandbox's supervisor, whose own command it is.
  protocol::Opener supervisor{};
  // Of a process that is attached to, the agent tells the next two.
  bool input = true;      // our standard input is the process's
  bool terminal = false;  // the process has a terminal: ours, if there is one, becomes raw
  bool kept = false;      // it outlives us: Ctrl-P Ctrl-Q in a terminal lets go of it
  // Our standard streams are its own. Else it has input from send_input() alone.
  bool standard_streams = true;
  // Ctrl-P Ctrl-Q in a terminal takes our standard streams away from it, and it goes on.
  bool may_detach = false;
  std::string memory_hint;  // for the message when memory ran out, after "ran out of memory"
};

// The exit status when the agent did not start a process.
int status_of_refusal(const protocol::Failure& failure);

// The loop must be drained, after close(), before it is destroyed.
class Command {
 public:
  struct Events {
    std::function<void(const msb_started&)> started;  // or attached to
    std::function<void()> first_output{};             // optional
    // Optional. All that it writes, also when our standard streams are not its own.
    std::function<void(msb_stream, std::span<const std::byte>)> output{};
    // Optional. Input that was given has left, or was ended.
    std::function<void()> input_taken{};
    std::function<void()> input_ended{};
    // Optional. The keys of `may_detach` were pressed.
    std::function<void()> detached{};
    // Optional. How it ended, before `ended`.
    std::function<void(const protocol::Exited&)> exited{};
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
  // Input besides that of our standard stream. It goes nowhere when the command takes none (any
  // more).
  void send_input(std::span<const std::byte> bytes);
  void end_input();
  // Whether there is little that has not left yet.
  [[nodiscard]] bool takes_input() const;
  // A signal that this process got: SIGWINCH and SIGCONT for the terminal, others for the command
  // while it runs.
  void on_signal(int number);
  // Lets go of the process, and gives the terminal back. Nothing is called any more.
  void close();

 private:
  void on_started(const msb_started& started);
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
  void on_keys();
  void detach();
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
