// SPDX-License-Identifier: Apache-2.0
// One command in one machine, from the configured machine process to the exit status.
#pragma once

#include <sys/signalfd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/control.hpp"
#include "base/loop.hpp"
#include "base/result.hpp"
#include "launcher/machine_process.hpp"
#include "launcher/standard_streams.hpp"
#include "launcher/timeline.hpp"
#include "protocol/frame_stream.hpp"
#include "protocol/frames.hpp"

namespace msb::launcher {

// Exit statuses of container engines.
inline constexpr int kExitLauncher = 125;  // the launcher or the machine failed, not the command
inline constexpr int kExitNotExecutable = 126;  // the command exists and cannot be run
inline constexpr int kExitNotFound = 127;
inline constexpr int kExitSignal = 128;  // plus the signal that ended the command

struct SessionOptions {
  protocol::ProcessSpec process;
  std::uint64_t memory_mib = 0;  // for messages
  std::uint64_t ready_timeout_s = 0;
  // Asked once when the guest takes long to become ready: why this host cannot run guests, or
  // nothing when it can.
  std::function<std::optional<std::string>()> diagnose;
};

// How a session ended: the launcher's exit status, and a sentence when there is more to say.
struct Outcome {
  int status = kExitLauncher;
  std::string message;
};

// Runs the command: waits until the guest is ready, passes standard streams and signals through,
// and ends the machine in good order. The signals of kForwardedSignals must be blocked. Everything
// that comes from the machine or the guest is treated as hostile.
class Session {
 public:
  // `machine` has been sent its configuration. All references must outlive the session.
  Session(Loop& loop, MachineProcess& machine, SessionOptions options, Timeline& timeline);

  Outcome run();
  // Signals that belong to the command once it runs.
  static sigset_t forwarded_signals();

 private:
  enum class State {
    kBooting,   // waiting for HELLO
    kStarting,  // START was sent
    kRunning,   // the command runs
    kEnding,    // SHUTDOWN was sent, or the guest ends by itself
  };

  // From the machine process.
  void on_control();
  void on_control_message(ControlMessage message);
  void on_machine_ended();
  void on_stopped(StopReason reason, const std::string& detail);
  // From the guest's control connection.
  bool on_guest_frame(const protocol::Frame& frame);
  void on_guest_closed(const std::optional<Error>& error);
  void on_hello(const protocol::Frame& frame);
  void on_bye(const protocol::Frame& frame);
  // From the command's connection.
  bool on_process_frame(const protocol::Frame& frame);
  void on_process_closed(const std::optional<Error>& error);
  void on_started(const protocol::Frame& frame);
  void on_refused(const protocol::Frame& frame);
  void on_exited(const protocol::Frame& frame);
  void on_input(std::span<const std::byte> bytes);
  bool on_output(OutputWriter& writer, bool& open, std::span<const std::byte> bytes);
  void on_output_written(bool& open, int error);
  // From outside.
  void on_signals(std::int32_t result);
  void on_signal(int signal);
  void on_boot_timeout();
  void on_slow_boot();

  void start_process();
  void forward(int signal);
  void shut_down(Outcome outcome);
  void finish(Outcome outcome);
  void expect_end();
  void fail_boot(std::string symptom);
  void lose_machine();

  Loop& loop_;
  MachineProcess& machine_;
  SessionOptions options_;
  Timeline& timeline_;

  State state_ = State::kBooting;
  std::optional<Outcome> outcome_;  // what run() gives, as far as it is known
  bool ready_ = false;              // the guest said HELLO
  bool announced_ = false;          // the guest said BYE
  bool finished_ = false;
  std::optional<std::uint32_t> process_id_;
  int interrupts_ = 0;  // SIGINTs while the command ran
  bool input_ended_ = false;
  bool first_output_ = true;
  bool stdout_open_ = true;
  bool stderr_open_ = true;

  std::unique_ptr<protocol::FrameStream> guest_;
  std::unique_ptr<protocol::FrameStream> process_;
  InputReader input_;
  OutputWriter stdout_;
  OutputWriter stderr_;
  Fd signals_;
  signalfd_siginfo signal_{};
  iovec signal_iovec_{&signal_, sizeof signal_};
  Operation signal_read_;
  Operation control_readable_;
  Operation machine_ended_;
  Operation boot_timeout_;
  Operation end_timeout_;
  Operation slow_boot_;
};

}  // namespace msb::launcher
