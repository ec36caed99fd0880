// SPDX-License-Identifier: Apache-2.0
#include "launcher/session.hpp"

#include <poll.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <utility>

#include "launcher/last_words.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/host_frames.hpp"
#include "protocol/msb_exec.h"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;  // nanoseconds
constexpr std::uint64_t kMillisecond = 1'000'000;
// Of the machine, before others have their turn.
constexpr int kMessagesAtATime = 64;
// How long a guest may take over its orderly end before the machine is ended for it.
constexpr std::uint64_t kShutdownTimeout = 5 * kSecond;
// A guest that takes longer than this to become ready may be on a KVM that cannot run it. Some of
// those go wrong only after half a minute of emulating the guest, so it is worth asking; where KVM
// works, boots end long before.
constexpr std::uint64_t kSlowBoot = 2 * kSecond;
Outcome guest_broke_protocol(const Error& error) {
  return {kExitLauncher, error.message};
}

void complain_undelivered(const Error& error) {
  fmt::print(stderr, "msb-vmm: {}\n", error.message);
}

}  // namespace

Session::Session(Loop& loop, MachineProcess& machine, MachineRequests& requests,
                 SessionOptions options, Timeline& timeline)
    : loop_(loop),
      machine_(machine),
      requests_(requests),
      options_(std::move(options)),
      timeline_(timeline),
      opener_([this] { return machine_.connect(MSB_PORT_AGENT); }),
      denials_(loop, opener_,
               [this](const NetworkDenial& denial, const auto& program) {
                 tell("denied", options_.network->describe(denial, program));
               }),
      command_(loop, opener_, std::move(options_.command),
               {.started = [this](std::uint32_t) { on_started(); },
                .first_output = [this] { timeline_.mark("first output"); },
                .ended = [this](Outcome outcome) { on_ended(std::move(outcome)); },
                .lost = [this](const Error& error) { on_lost(error); },
                .undelivered = complain_undelivered}),
      signals_(loop, [this](int signal) { on_signal(signal); }),
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
      stop_timeout_([this](std::int32_t result) {
        if (result == -ETIME) {
          on_end_timeout();
        }
      }),
      end_timeout_([this](std::int32_t result) {
        if (result == -ETIME) {
          on_end_timeout();
        }
      }),
      slow_boot_([this](std::int32_t result) {
        if (result == -ETIME) {
          on_slow_boot();
        }
      }) {}

Outcome Session::run() {
  if (auto started = signals_.start(); !started) {
    return {kExitLauncher, started.error().message};
  }
  loop_.poll(machine_.control(), POLLIN, control_readable_);
  loop_.poll(machine_.process(), POLLIN, machine_ended_);
  loop_.timeout(options_.ready_timeout_s * kSecond, boot_timeout_);
  loop_.timeout(kSlowBoot, slow_boot_);
  if (options_.control != nullptr) {
    options_.control->open();
  }
  watch_network();
  if (auto ran = loop_.run(); !ran) {
    finish({kExitLauncher, ran.error().message});
  }
  if (guest_) {
    guest_->close();
  }
  command_.close();
  if (options_.server != nullptr) {
    options_.server->close();
  }
  denials_.close();
  options_.ports->close();
  options_.forwards->close();
  options_.network->close();
  requests_.close();
  if (options_.control != nullptr) {
    options_.control->stopped(outcome_->status);
    options_.control->close();
  }
  loop_.drain();
  return std::move(*outcome_);
}

// The guest is about to end, or should be: waits for the machine's word, but not for ever.
void Session::expect_end() {
  state_ = State::kEnding;
  tell_stopping();
  if (options_.server != nullptr) {
    options_.server->close();
  }
  if (!end_timeout_.pending()) {
    loop_.timeout(kShutdownTimeout, end_timeout_);
  }
}

void Session::tell_stopping() {
  if (options_.control != nullptr) {
    options_.control->stopping();
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
  std::optional<std::string> cause = options_.diagnose();
  finish({kExitLauncher, cause ? std::move(*cause) : std::move(symptom)});
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

void Session::on_end_timeout() {
  finish(
      {kExitLauncher, machine_is_gone_
                          ? "the sandbox has stopped, but what the command wrote last was not read "
                            "in time, so that its exit status is not known"
                          : "the guest did not end in time and was ended"});
}

// --- the machine process ---

void Session::on_control() {
  for (int turn = 0; turn < kMessagesAtATime && !finished_; ++turn) {
    auto message = receive_control(machine_.control());
    if (message) {
      on_control_message(std::move(*message));
    } else if (message.error().code == EAGAIN) {
      break;
    } else {
      lose_machine();
      return;
    }
  }
  if (!finished_ && !control_readable_.pending()) {
    loop_.poll(machine_.control(), POLLIN, control_readable_);
  }
}

// What it said last is still in the socket, and comes first.
void Session::on_machine_ended() {
  while (!finished_) {
    auto message = receive_control(machine_.control());
    if (!message) {
      lose_machine();
      return;
    }
    on_control_message(std::move(*message));
  }
}

void Session::lose_machine() {
  requests_.close();
  if (announced_ && stopping_) {
    machine_is_gone_ = true;
    return;
  }
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
      if (message.descriptors.size() == 1) {
        on_connection(message.value, std::move(message.descriptors.front()));
      }
      break;
    case ControlKind::kDenied:
      on_denied(message);
      break;
    case ControlKind::kNetworkLost:
      options_.network->on_backend_lost();
      break;
    case ControlKind::kStopped:
      on_stopped(static_cast<StopReason>(message.value), message.text);
      break;
    case ControlKind::kKernelLog:
      kernel_log_ = std::move(message.text);
      break;
    case ControlKind::kDone:
    case ControlKind::kRefused:
      on_answer(message);
      break;
    case ControlKind::kError:
      finish({kExitLauncher, protocol::quote(std::as_bytes(std::span(message.text)))});
      break;
    default:
      finish({kExitLauncher, "the machine process sent a message of an unknown kind"});
      break;
  }
}

// One control connection per boot; whoever else in the guest connects to its port is turned away.
void Session::on_connection(std::uint32_t port, Fd connection) {
  if (port != MSB_PORT_CONTROL) {
    options_.forwards->accept(port, std::move(connection));
  } else if (!guest_) {
    guest_.emplace(
        loop_, std::move(connection), protocol::Connection::kControl,
        protocol::FrameStream::Greeting::kNone,
        protocol::FrameStream::Owner{
            .frame = [this](const protocol::Frame& frame) { return on_guest_frame(frame); },
            .closed = [this](const std::optional<Error>& error) { on_guest_closed(error); },
            .sent = nullptr});
    guest_->start();
  }
}

// When nobody wants to know, nobody has to be found out.
void Session::on_denied(const ControlMessage& message) {
  const auto denial = NetworkDenial::from_text(message.text);
  if (!denial) {
    finish({kExitLauncher, denial.error().message});
    return;
  }
  const auto release = [this, number = message.value] {
    // A machine that is gone has nobody to answer to; one that is busy answers by itself.
    if (number != 0 && control_has_space(machine_.control())) {
      [[maybe_unused]] const auto sent =
          send_control(machine_.control(), ControlKind::kRelease, number);
    }
  };
  if (options_.control == nullptr || !options_.control->has_subscribers()) {
    release();
  } else {
    denials_.add(*denial, release);
  }
}

void Session::tell(std::string_view event, Json details) {
  if (options_.control != nullptr) {
    options_.control->tell(event, std::move(details));
  }
}

void Session::watch_network() {
  options_.network->watch(
      {.replace =
           [this](Fd backend, std::function<void(bool)> done) {
             requests_.send(
                 ControlKind::kNetwork, {},
                 [done = std::move(done)](const Result<std::string>& answer) {
                   done(answer.has_value());
                 },
                 std::move(backend));
           },
       .host_changed =
           [this](const std::vector<IpAddress>& addresses, std::function<void(bool)> done) {
             requests_.send(ControlKind::kHostAddresses, host_addresses_text(addresses),
                            [done = std::move(done)](const Result<std::string>& answer) {
                              done(answer.has_value());
                            });
           },
       .restarted =
           [this](const std::string& how) { tell("network_restarted", {{"message", how}}); },
       .lost =
           [this](const std::string& how) {
             fmt::print(stderr, "msb-vmm: the sandbox has no network any more: {}\n", how);
             tell("network_lost", {{"message", how}});
           }});
}

void Session::on_answer(const ControlMessage& message) {
  if (auto answered = requests_.on_answer(message); !answered) {
    finish({kExitLauncher, answered.error().message});
  }
}

void Session::on_stopped(StopReason reason, const std::string& detail) {
  timeline_.mark("machine stopped");
  if (announced_) {
    if (!stopping_) {
      finish({kExitLauncher, "the guest ended without running the command"});
    }
    return;
  }
  std::string symptom = "the guest crashed: it stopped without announcing its end";
  if (reason == StopReason::kInternalError) {
    symptom = fmt::format("the guest could not go on: {}", protocol::quote(detail));
  }
  const std::string words = last_words(kernel_log_);
  symptom += words.empty() ? "; see what it says with --console"
                           : fmt::format("; its kernel said:{}", words);
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
    case MSB_FAILED:
      on_failed(frame);
      break;
    case MSB_BYE:
      on_bye(frame);
      break;
    default:
      finish(guest_broke_protocol(protocol::out_of_place(frame)));
      break;
  }
  return !finished_;
}

void Session::on_hello(const protocol::Frame& frame) {
  const auto hello = protocol::decode_hello(frame);
  if (!hello || state_ != State::kBooting) {
    finish(guest_broke_protocol(hello ? protocol::out_of_place(frame) : hello.error()));
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
  start_command();
  if (options_.server != nullptr && state_ == State::kStarting) {
    options_.server->open();
  }
  if (state_ == State::kStarting) {
    options_.ports->open();
  }
}

void Session::on_failed(const protocol::Frame& frame) {
  const auto failure = protocol::decode_failure(frame);
  if (!failure) {
    finish(guest_broke_protocol(failure.error()));
  } else if (!outcome_) {
    outcome_ = {kExitLauncher, fmt::format("the guest could not {}: {}", ready_ ? "go on" : "start",
                                           failure->error.message)};
  }
}

void Session::on_bye(const protocol::Frame& frame) {
  const auto bye = protocol::decode_bye(frame);
  if (!bye) {
    finish(guest_broke_protocol(bye.error()));
    return;
  }
  announced_ = true;
  if ((bye->reason == MSB_BYE_RESTART || bye->reason == MSB_BYE_POWER_OFF)) {
    const bool restart = bye->reason == MSB_BYE_RESTART;
    // As container engines see it: the kernel ends a PID namespace by this signal when reboot(2) is
    // called in it.
    outcome_ = {kExitSignal + (restart ? SIGHUP : SIGINT),
                fmt::format("the sandbox has ended: a process in it called reboot(2) to {}",
                            restart ? "restart" : "power off")};
  }
  expect_end();
  if (!stopping_) {
    guest_->close();  // the guest waits for this, and then ends the machine
  }
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

// --- the command ---

void Session::start_command() {
  state_ = State::kStarting;
  if (auto started = command_.start(); !started) {
    shut_down({kExitLauncher, started.error().message});
  }
}

void Session::on_started() {
  timeline_.mark("command started");
  state_ = State::kRunning;
  if (options_.control != nullptr) {
    options_.control->running();
  }
}

void Session::on_ended(Outcome outcome) {
  timeline_.mark("command exited");
  if (stopping_) {
    settle_stop(std::move(outcome));
  } else if (state_ != State::kEnding) {
    shut_down(std::move(outcome));
  }
}

void Session::on_lost(const Error& error) {
  if (finished_) {
    return;
  }
  if (stopping_) {
    settle_stop(error.code == ECONNRESET ? killed() : Outcome{kExitLauncher, error.message});
    expect_end();
    return;
  }
  if (state_ == State::kEnding) {
    return;
  }
  // The guest may be ending for a reason that it tells on the control connection, or that the
  // machine tells.
  if (!outcome_) {
    outcome_ = {kExitLauncher, error.message};
  }
  expect_end();
}

// --- signals, and the end ---

void Session::on_signal(int signal) {
  if (finished_) {
    return;
  }
  if (signal == SIGWINCH || signal == SIGCONT) {
    command_.on_signal(signal);
    return;
  }
  switch (state_) {
    case State::kBooting:
    case State::kStarting:
      finish({kExitSignal + signal, "interrupted before the command had started"});
      break;
    case State::kRunning:
      if (signal == SIGTERM) {
        stop();
      } else {
        on_signal_for_command(signal);
      }
      break;
    case State::kStopping:
      if (signal == SIGTERM) {
        shut_down({kExitSignal + SIGKILL, "the command was killed at a second SIGTERM"});
      } else {
        on_signal_for_command(signal);
      }
      break;
    case State::kEnding:
      finish({kExitSignal + signal, ""});
      break;
  }
}

void Session::on_signal_for_command(int signal) {
  if (signal == SIGINT && ++interrupts_ == kImpatience) {
    finish({kExitSignal + signal, "the sandbox was ended after three interrupts"});
  } else {
    command_.on_signal(signal);
  }
}

// Asks everything that was started to end. The guest then ends by itself, with BYE: once all has
// ended, or when the grace is over.
void Session::stop() {
  state_ = State::kStopping;
  stopping_ = true;
  tell_stopping();
  guest_->send(*protocol::encode_shutdown(options_.stop_signal, options_.stop_grace_ms));
  loop_.timeout(options_.stop_grace_ms * kMillisecond + kShutdownTimeout, stop_timeout_);
}

// What the command came to, while other processes may still have their grace. BYE can come first:
// what the command wrote is read at the pace of whoever reads it from us.
void Session::settle_stop(Outcome outcome) {
  stopping_ = false;
  if (!outcome_) {
    outcome_ = std::move(outcome);
  }
  if (machine_is_gone_) {
    finish({});
  } else if (announced_) {
    guest_->close();
  }
}

Outcome Session::killed() const {
  constexpr int kKilled = kExitSignal + SIGKILL;
  if (options_.stop_grace_ms == 0) {
    return {kKilled, "the command was killed at once, as --stop-timeout 0 asks for"};
  }
  return {kKilled, fmt::format("the command did not end within {} s of being asked to and was "
                               "killed; give it longer with --stop-timeout",
                               options_.stop_grace_ms / 1000)};
}

void Session::shut_down(Outcome outcome) {
  stopping_ = false;
  if (!outcome_) {
    outcome_ = std::move(outcome);
  }
  // Nothing in the machine outlives its command.
  const auto shutdown = protocol::encode_shutdown(0, 0);
  guest_->send(*shutdown);
  expect_end();
}

}  // namespace msb::launcher
