// SPDX-License-Identifier: Apache-2.0
// One command in one machine, from the configured machine process to the exit status.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/control.hpp"
#include "base/loop.hpp"
#include "base/result.hpp"
#include "launcher/command.hpp"
#include "launcher/connect_server.hpp"
#include "launcher/control_server.hpp"
#include "launcher/machine_process.hpp"
#include "launcher/machine_requests.hpp"
#include "launcher/network/denial_reports.hpp"
#include "launcher/network/guest_forwards.hpp"
#include "launcher/network/published_ports.hpp"
#include "launcher/network/sandbox_network.hpp"
#include "launcher/outcome.hpp"
#include "launcher/signals.hpp"
#include "launcher/timeline.hpp"
#include "protocol/frame_stream.hpp"
#include "protocol/frames.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

struct SessionOptions {
  CommandOptions command;
  std::uint64_t ready_timeout_s = 0;
  // What SIGTERM means: this signal to every process that was started, and death after so long.
  std::uint32_t stop_signal = 0;
  std::uint32_t stop_grace_ms = 0;
  // Optional: opened when the guest is ready, closed when it ends.
  ConnectServer* server = nullptr;
  // Optional: open for as long as run() takes, and told what becomes of the sandbox.
  ControlServer* control = nullptr;
  // Open for as long as run() takes; the ports from when the guest is ready.
  SandboxNetwork* network = nullptr;
  GuestForwards* forwards = nullptr;
  PublishedPorts* ports = nullptr;
  // Asked once when the guest takes long to become ready: why this host cannot run guests, or
  // nothing when it can.
  std::function<std::optional<std::string>()> diagnose;
};

// Runs the command: waits until the guest is ready, passes standard streams and signals through,
// and ends the machine in good order. take_signals() must have been called. Everything from the
// machine or the guest is treated as hostile.
class Session {
 public:
  // `machine` has been sent its configuration; `requests` are made to it, here or by the control
  // socket. All references must outlive the session.
  Session(Loop& loop, MachineProcess& machine, MachineRequests& requests, SessionOptions options,
          Timeline& timeline);

  Outcome run();

 private:
  enum class State {
    kBooting,   // waiting for HELLO
    kStarting,  // START was sent
    kRunning,   // the command runs
    kStopping,  // SHUTDOWN was sent, with a grace
    kEnding,    // SHUTDOWN was sent without, or the guest ends by itself
  };

  // From the machine process.
  void on_control();
  void on_control_message(ControlMessage message);
  void on_machine_ended();
  void on_answer(const ControlMessage& message);
  void on_connection(std::uint32_t port, Fd connection);
  void on_denied(const ControlMessage& message);
  void on_stopped(StopReason reason, const std::string& detail);
  // From the guest's control connection.
  bool on_guest_frame(const protocol::Frame& frame);
  void on_guest_closed(const std::optional<Error>& error);
  void on_hello(const protocol::Frame& frame);
  void on_failed(const protocol::Frame& frame);
  void on_bye(const protocol::Frame& frame);
  // From the command.
  void start_command();
  void on_started();
  void on_ended(Outcome outcome);
  void on_lost(const Error& error);
  // From outside.
  void on_signal(int signal);
  void on_boot_timeout();
  void on_slow_boot();
  void on_end_timeout();

  void on_signal_for_command(int signal);
  void stop();
  void settle_stop(Outcome outcome);
  [[nodiscard]] Outcome killed() const;
  void shut_down(Outcome outcome);
  void finish(Outcome outcome);
  void expect_end();
  void tell_stopping();
  void watch_network();
  void tell(std::string_view event, Json details);
  void fail_boot(std::string symptom);
  void lose_machine();

  Loop& loop_;
  MachineProcess& machine_;
  MachineRequests& requests_;
  SessionOptions options_;
  Timeline& timeline_;

  State state_ = State::kBooting;
  std::optional<Outcome> outcome_;  // what run() gives, as far as it is known
  bool ready_ = false;              // the guest said HELLO
  bool announced_ = false;          // the guest said BYE
  bool finished_ = false;
  bool stopping_ = false;         // SIGTERM came, and what the command came to is not known yet
  bool machine_is_gone_ = false;  // in good order, and what the command wrote is still being read
  std::string kernel_log_;        // what the guest's kernel said last
  int interrupts_ = 0;            // SIGINTs while the command ran

  std::optional<protocol::FrameStream> guest_;
  const protocol::Opener opener_;
  DenialReports denials_;
  Command command_;
  Signals signals_;
  Operation control_readable_;
  Operation machine_ended_;
  Operation boot_timeout_;
  Operation stop_timeout_;
  Operation end_timeout_;
  Operation slow_boot_;
};

}  // namespace msb::launcher
