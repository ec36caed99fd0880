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
#include "launcher/connect_server.hpp"
#include "launcher/control_server.hpp"
#include "launcher/machine_process.hpp"
#include "launcher/machine_requests.hpp"
#include "launcher/main_command.hpp"
#include "launcher/network/guest_forwards.hpp"
#include "launcher/network/network_events.hpp"
#include "launcher/network/published_ports.hpp"
#include "launcher/network/sandbox_network.hpp"
#include "launcher/outcome.hpp"
#include "launcher/run_reports.hpp"
#include "launcher/signals.hpp"
#include "launcher/socket_connections.hpp"
#include "launcher/time_limits.hpp"
#include "launcher/timeline.hpp"
#include "protocol/frame_stream.hpp"
#include "protocol/frames.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

struct SessionOptions {
  MainCommandOptions command;
  // Our standard streams are not the command's, and nobody has to be there for whom it runs.
  bool background = false;
  // What standard error, a terminal, shows while it takes long to start; empty: nothing.
  std::string notice;
  // It has a disk that is there after it: what is still to be written is waited for.
  bool lasting = false;
  TimeLimits::Options limits;
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
  // Told what becomes of the sandbox, before the control socket is closed.
  RunReports* reports = nullptr;
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
  // Carries out what a connection of the sandbox's socket asked for (ConnectServer::Connect).
  Result<void> connect(Fd socket, std::uint32_t port) {
    return connections_.connect(std::move(socket), port);
  }

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
  void on_stopped(StopReason reason, const std::string& detail);
  // From the guest's control connection.
  bool on_guest_frame(const protocol::Frame& frame);
  void on_guest_closed(const std::optional<Error>& error);
  void on_hello(const protocol::Frame& frame);
  void on_failed(const protocol::Frame& frame);
  void on_bye(const protocol::Frame& frame);
  // From the command.
  void start_command();
  void on_started(std::uint32_t process);
  void begin(std::optional<std::uint32_t> process);
  void on_detached();
  void on_ended(Outcome outcome);
  void on_lost(const Error& error);
  // From outside.
  void on_signal(int signal);
  void on_stop_order(const StopWords& words);
  void on_kill_order();
  void on_starter_gone();
  void on_limit(Outcome outcome);
  void on_boot_timeout();
  void on_slow_boot();
  void show_notice();
  void take_notice_back();
  void on_end_timeout();

  [[nodiscard]] bool means_stop(int signal) const;
  void on_signal_for_command(int signal);
  void stop(std::uint32_t signal, std::uint32_t grace_ms);
  void settle_stop(Outcome outcome);
  [[nodiscard]] Outcome killed() const;
  void shut_down(Outcome outcome);
  void finish(Outcome outcome);
  void expect_end();
  [[nodiscard]] std::uint64_t end_patience() const;
  void tell_stopping();
  void watch_starter();
  void hold(std::size_t& connections, std::size_t count);
  void part();
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
  bool stopping_ = false;  // SIGTERM came, and what the command came to is not known yet
  bool notice_shown_ = false;
  bool machine_is_gone_ = false;  // in good order, and what the command wrote is still being read
  std::string kernel_log_;        // what the guest's kernel said last
  int interrupts_ = 0;            // SIGINTs while the command ran
  bool background_;
  std::uint32_t stop_grace_ms_ = 0;       // what the command was given to end
  std::optional<Outcome> limit_reached_;  // for which it is being stopped
  std::size_t socket_connections_ = 0;    // that are open now, into the guest
  std::size_t port_connections_ = 0;

  std::optional<protocol::FrameStream> guest_;
  const protocol::Opener opener_;
  NetworkEvents network_;
  TimeLimits limits_;
  MainCommand command_;
  SocketConnections connections_;
  Signals signals_;
  Operation control_readable_;
  Operation machine_ended_;
  Operation boot_timeout_;
  Operation stop_timeout_;
  Operation end_timeout_;
  Operation slow_boot_;
  Operation notice_due_;
  Operation starter_gone_;
  Operation parting_;
};

}  // namespace msb::launcher
