// SPDX-License-Identifier: Apache-2.0
#include "launcher/session.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <string_view>
#include <utility>

#include "protocol/msb_exec.h"

namespace msb::launcher {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;  // nanoseconds
// How long a guest may take over its orderly end before the machine is ended for it.
constexpr std::uint64_t kShutdownTimeout = 5 * kSecond;
// A guest that takes longer than this to become ready may be on a KVM that cannot run it. Some of
// those go wrong only after half a minute of emulating the guest, so it is worth asking; where KVM
// works, boots end long before.
constexpr std::uint64_t kSlowBoot = 2 * kSecond;
// So many SIGINTs while a command runs end the machine: it may not react to any.
constexpr int kImpatience = 3;

// A guest's text as part of our own message: one line, printable, not too long.
std::string quote(std::span<const std::byte> text) {
  constexpr std::size_t kMax = 300;
  std::string quoted;
  for (const std::byte byte : text.first(std::min(text.size(), kMax))) {
    const auto c = std::to_integer<unsigned char>(byte);
    quoted += c >= 0x20 && c < 0x7f ? static_cast<char>(c) : '?';
  }
  return quoted;
}

Outcome guest_broke_protocol(const Error& error) {
  return {kExitLauncher, error.message};
}

}  // namespace

Session::Session(Loop& loop, MachineProcess& machine, SessionOptions options, Timeline& timeline)
    : loop_(loop),
      machine_(machine),
      options_(std::move(options)),
      timeline_(timeline),
      input_(loop, STDIN_FILENO, [this](std::span<const std::byte> bytes) { on_input(bytes); }),
      stdout_(loop, STDOUT_FILENO, [this](int error) { on_output_written(stdout_open_, error); }),
      stderr_(loop, STDERR_FILENO, [this](int error) { on_output_written(stderr_open_, error); }),
      signal_read_([this](std::int32_t result) { on_signals(result); }),
      control_readable_([this](std::int32_t result) {
        if (result >= 0) {
          on_control();
        }
      }),
      machine_ended_([this](std::int32_t result) {
        if (result >= 0) {
          on_machine_ended();
        }
      }),
      boot_timeout_([this](std::int32_t result) {
        if (result == -ETIME) {
          on_boot_timeout();
        }
      }),
      end_timeout_([this](std::int32_t result) {
        if (result == -ETIME) {
          finish({kExitLauncher, "the guest did not end in time and was ended"});
        }
      }),
      slow_boot_([this](std::int32_t result) {
        if (result == -ETIME) {
          on_slow_boot();
        }
      }) {}

sigset_t Session::forwarded_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) {
    ::sigaddset(&set, signal);
  }
  return set;
}

Outcome Session::run() {
  const sigset_t set = forwarded_signals();
  signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!signals_) {
    return {kExitLauncher, fail_errno(errno, "cannot watch for signals").error().message};
  }
  loop_.read(signals_.get(), {&signal_iovec_, 1}, AsyncIo::kNoOffset, signal_read_);
  loop_.poll(machine_.control(), POLLIN, control_readable_);
  loop_.poll(machine_.process(), POLLIN, machine_ended_);
  loop_.timeout(options_.ready_timeout_s * kSecond, boot_timeout_);
  loop_.timeout(kSlowBoot, slow_boot_);
  if (auto ran = loop_.run(); !ran) {
    finish({kExitLauncher, ran.error().message});
  }
  if (guest_) {
    guest_->close();
  }
  if (process_) {
    process_->close();
  }
  loop_.drain();
  return std::move(*outcome_);
}

// The guest is about to end, or should be: waits for the machine's word, but not for ever.
void Session::expect_end() {
  state_ = State::kEnding;
  if (!end_timeout_.pending()) {
    loop_.timeout(kShutdownTimeout, end_timeout_);
  }
}

// Ends the loop. The outcome that was decided first stands.
void Session::finish(Outcome outcome) {
  finished_ = true;
  if (!outcome_) {
    outcome_ = std::move(outcome);
  }
  loop_.stop();
}

// The guest failed before it was ready. When that is this host's fault, the cause is more use than
// the symptom.
void Session::fail_boot(std::string symptom) {
  const std::optional<std::string> cause = options_.diagnose();
  finish({kExitLauncher, cause ? *cause : std::move(symptom)});
}

void Session::on_slow_boot() {
  if (state_ == State::kBooting) {
    if (const std::optional<std::string> cause = options_.diagnose()) {
      finish({kExitLauncher, *cause});
    }
  }
}

void Session::on_boot_timeout() {
  if (state_ == State::kBooting) {
    finish(
        {kExitLauncher,
         fmt::format("the guest did not become ready within {} s; see what it says with --console, "
                     "or give it more time with --ready-timeout",
                     options_.ready_timeout_s)});
  }
}

// --- the machine process ---

void Session::on_control() {
  while (!finished_) {
    auto message = receive_control(machine_.control());
    if (message) {
      on_control_message(std::move(*message));
    } else if (message.error().code == EAGAIN) {
      if (!control_readable_.pending()) {
        loop_.poll(machine_.control(), POLLIN, control_readable_);
      }
      return;
    } else {
      lose_machine();
    }
  }
}

// What it said last is still in the socket, and comes first.
void Session::on_machine_ended() {
  on_control();
  if (!finished_) {
    lose_machine();
  }
}

void Session::lose_machine() {
  if (!announced_) {
    outcome_.reset();  // connections that broke with it were only the symptom
  }
  finish({kExitLauncher,
          fmt::format("the machine process ended unexpectedly with {}", machine_.end())});
}

void Session::on_control_message(ControlMessage message) {
  switch (message.kind) {
    case ControlKind::kRunning:
      timeline_.add("machine: ", message.text);
      break;
    case ControlKind::kVsockAccept:
      // One control connection per boot; whoever else in the guest connects is turned away.
      if (message.value == MSB_PORT_CONTROL && message.descriptors.size() == 1 && !guest_) {
        guest_ = std::make_unique<protocol::FrameStream>(
            loop_, std::move(message.descriptors.front()), false,
            protocol::FrameStream::Owner{
                .frame = [this](const protocol::Frame& frame) { return on_guest_frame(frame); },
                .closed = [this](const std::optional<Error>& error) { on_guest_closed(error); },
                .sent = nullptr});
        guest_->start();
      }
      break;
    case ControlKind::kStopped:
      on_stopped(static_cast<StopReason>(message.value), message.text);
      break;
    case ControlKind::kError:
      finish({kExitLauncher, quote(std::as_bytes(std::span(message.text)))});
      break;
    default:
      finish({kExitLauncher, "the machine process sent a message of an unknown kind"});
      break;
  }
}

void Session::on_stopped(StopReason reason, const std::string& detail) {
  timeline_.mark("machine stopped");
  if (announced_) {
    finish({kExitLauncher, "the guest ended without running the command"});
    return;
  }
  std::string symptom =
      "the guest crashed: it stopped without announcing its end; see what it says with --console";
  if (reason == StopReason::kInternalError) {
    symptom = fmt::format("the guest could not go on: {}; see what it says with --console",
                          quote(std::as_bytes(std::span(detail))));
  }
  outcome_.reset();  // an exit status of a guest that then crashed is nothing to rely on
  if (!ready_) {
    fail_boot(std::move(symptom));
  } else {
    finish({kExitLauncher, std::move(symptom)});
  }
}

// --- the guest's control connection ---

bool Session::on_guest_frame(const protocol::Frame& frame) {
  switch (frame.type) {
    case MSB_HELLO:
      on_hello(frame);
      break;
    case MSB_FAILED: {
      std::span<const std::byte> text;
      if (protocol::payload_as<msb_failure>(frame, &text) && !outcome_) {
        outcome_ = {kExitLauncher, fmt::format("the guest could not {}: {}",
                                               ready_ ? "go on" : "start", quote(text))};
      }
      break;
    }
    case MSB_BYE:
      on_bye(frame);
      break;
    default:
      finish(
          {kExitLauncher,
           fmt::format("the guest sent a frame of type {} on its control connection", frame.type)});
      break;
  }
  return !finished_;
}

void Session::on_hello(const protocol::Frame& frame) {
  const auto hello = protocol::payload_as<msb_hello>(frame);
  if (!hello || state_ != State::kBooting) {
    finish({kExitLauncher, "the guest sent a HELLO that is malformed or out of place"});
    return;
  }
  if (hello->version != MSB_EXEC_VERSION) {
    finish({kExitLauncher,
            fmt::format(
                "the guest's initramfs speaks version {} of the exec protocol and this program "
                "version {}; build both from the same source",
                hello->version, MSB_EXEC_VERSION)});
    return;
  }
  timeline_.mark("guest ready");
  ready_ = true;
  loop_.cancel(boot_timeout_);
  loop_.cancel(slow_boot_);
  start_process();
}

void Session::on_bye(const protocol::Frame& frame) {
  const auto bye = protocol::payload_as<msb_bye>(frame);
  announced_ = true;
  if (bye && (bye->reason == MSB_BYE_RESTART || bye->reason == MSB_BYE_POWER_OFF)) {
    const bool restart = bye->reason == MSB_BYE_RESTART;
    // As container engines see it: the kernel ends a PID namespace by this signal when reboot(2) is
    // called in it.
    outcome_ = {kExitSignal + (restart ? SIGHUP : SIGINT),
                fmt::format("the sandbox has ended: a process in it called reboot(2) to {}",
                            restart ? "restart" : "power off")};
  }
  expect_end();
  guest_->close();  // the guest waits for this, and then ends the machine
}

void Session::on_guest_closed(const std::optional<Error>& error) {
  if (finished_) {
    return;  // seen in the same turn of the loop as what ended the session
  }
  if (error) {
    finish(guest_broke_protocol(*error));
  } else if (!announced_) {
    // A machine that crashes takes its connections with it, and then says so itself.
    outcome_ = {kExitLauncher,
                "the guest closed its control connection without announcing its end"};
    expect_end();
  }
}

// --- the command's connection ---

void Session::start_process() {
  auto start = protocol::encode_start(options_.process);
  int ends[2];
  if (!start || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    shut_down({kExitLauncher, start
                                  ? fail_errno(errno, "cannot create a socket pair").error().message
                                  : start.error().message});
    return;
  }
  Fd ours(ends[0]);
  const Fd theirs(ends[1]);
  const int descriptor = theirs.get();
  if (auto sent = send_control(machine_.control(), ControlKind::kVsockConnect, MSB_PORT_PROCESS, {},
                               {&descriptor, 1});
      !sent) {
    finish({kExitLauncher, sent.error().message});
    return;
  }
  state_ = State::kStarting;
  process_ = std::make_unique<protocol::FrameStream>(
      loop_, std::move(ours), true,
      protocol::FrameStream::Owner{
          .frame = [this](const protocol::Frame& frame) { return on_process_frame(frame); },
          .closed = [this](const std::optional<Error>& error) { on_process_closed(error); },
          .sent =
              [this] {
                if (state_ == State::kRunning && !input_ended_) {
                  input_.read();
                }
              }});
  process_->send(std::move(*start));
  process_->start();
}

bool Session::on_process_frame(const protocol::Frame& frame) {
  switch (frame.type) {
    case MSB_STARTED:
      on_started(frame);
      return true;
    case MSB_REFUSED:
      on_refused(frame);
      return true;
    case MSB_STDOUT:
      return on_output(stdout_, stdout_open_, frame.payload);
    case MSB_STDERR:
      return on_output(stderr_, stderr_open_, frame.payload);
    case MSB_EXITED:
      on_exited(frame);
      return true;
    default:
      finish({kExitLauncher,
              fmt::format("the guest sent a frame of type {} on the command's connection",
                          frame.type)});
      return false;
  }
}

void Session::on_process_closed(const std::optional<Error>& error) {
  if (finished_ || state_ == State::kEnding) {
    return;
  }
  // The guest may be ending for a reason that it tells on the control connection, or that the
  // machine tells.
  if (error) {
    outcome_ = guest_broke_protocol(*error);
  }
  expect_end();
}

void Session::on_started(const protocol::Frame& frame) {
  const auto started = protocol::payload_as<msb_started>(frame);
  if (!started || state_ != State::kStarting) {
    finish({kExitLauncher, "the guest sent a STARTED that is malformed or out of place"});
    return;
  }
  timeline_.mark("command started");
  state_ = State::kRunning;
  process_id_ = started->process;
  input_.read();
}

void Session::on_refused(const protocol::Frame& frame) {
  std::span<const std::byte> text;
  const auto failure = protocol::payload_as<msb_failure>(frame, &text);
  if (!failure || state_ != State::kStarting) {
    finish({kExitLauncher, "the guest sent a REFUSED that is malformed or out of place"});
    return;
  }
  int status = kExitLauncher;
  if (failure->stage == MSB_STAGE_EXECUTE) {
    const bool missing = failure->code == ENOENT || failure->code == ENOTDIR;
    status = missing ? kExitNotFound : kExitNotExecutable;
  } else if (failure->stage == MSB_STAGE_DIRECTORY || failure->stage == MSB_STAGE_USER) {
    status = kExitNotExecutable;
  }
  shut_down({status, quote(text)});
}

void Session::on_exited(const protocol::Frame& frame) {
  const auto exited = protocol::payload_as<msb_exited>(frame);
  if (!exited || state_ != State::kRunning) {
    finish({kExitLauncher, "the guest sent an EXITED that is malformed or out of place"});
    return;
  }
  timeline_.mark("command exited");
  const int value = static_cast<int>(exited->value & 0xff);
  Outcome outcome{exited->kind == MSB_EXIT_SIGNAL ? kExitSignal + value : value, ""};
  if ((exited->flags & MSB_EXITED_OUT_OF_MEMORY) != 0) {
    outcome.message = fmt::format(
        "the command was ended because the sandbox ran out of its {} MiB of memory; give it "
        "more with --memory",
        options_.memory_mib);
  }
  shut_down(std::move(outcome));
}

void Session::on_input(std::span<const std::byte> bytes) {
  if (state_ != State::kRunning) {
    return;
  }
  // The next piece is read when this one has left (FrameStream's `sent`); after the end there is
  // none.
  if (bytes.empty()) {
    input_ended_ = true;
  }
  process_->send(protocol::encode_frame(MSB_STDIN, bytes));
}

bool Session::on_output(OutputWriter& writer, bool& open, std::span<const std::byte> bytes) {
  if (state_ != State::kRunning) {
    finish({kExitLauncher, "the guest sent output of a command that does not run"});
    return false;
  }
  if (std::exchange(first_output_, false)) {
    timeline_.mark("first output");
  }
  if (!open || bytes.empty()) {
    return true;
  }
  writer.write(bytes);
  return false;  // until it is written: a slow reader of ours slows the command down, and nothing
                 // else
}

void Session::on_output_written(bool& open, int error) {
  if (error != 0) {
    // Nobody reads on. The command learns it as it would on this host; what it still writes is
    // dropped.
    open = false;
    forward(SIGPIPE);
  }
  process_->resume();
}

// --- signals, and the end ---

void Session::on_signals(std::int32_t result) {
  if (result == -ECANCELED || finished_) {
    return;
  }
  if (result == static_cast<std::int32_t>(sizeof signal_)) {
    on_signal(static_cast<int>(signal_.ssi_signo));
  }
  if (!finished_) {
    loop_.read(signals_.get(), {&signal_iovec_, 1}, AsyncIo::kNoOffset, signal_read_);
  }
}

void Session::on_signal(int signal) {
  switch (state_) {
    case State::kBooting:
    case State::kStarting:
      finish({kExitSignal + signal, "interrupted before the command had started"});
      break;
    case State::kRunning:
      if (signal == SIGINT && ++interrupts_ == kImpatience) {
        finish({kExitSignal + signal, "the sandbox was ended after three interrupts"});
        break;
      }
      forward(signal);
      break;
    case State::kEnding:
      finish({kExitSignal + signal, ""});
      break;
  }
}

void Session::forward(int signal) {
  if (process_id_ && state_ == State::kRunning) {
    guest_->send(protocol::encode_signal(*process_id_, static_cast<std::uint32_t>(signal)));
  }
}

void Session::shut_down(Outcome outcome) {
  if (!outcome_) {
    outcome_ = std::move(outcome);
  }
  guest_->send(protocol::encode_frame(MSB_SHUTDOWN, {}));
  expect_end();
}

}  // namespace msb::launcher
