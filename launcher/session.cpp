// SPDX-License-Identifier: Apache-2.0
#include "launcher/session.hpp"

#include <poll.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launcher/background.hpp"
#include "launcher/complain.hpp"
#include "launcher/last_words.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/host_frames.hpp"
#include "protocol/msb_exec.h"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;  // nanoseconds
// Of the machine, before others have their turn.
constexpr int kMessagesAtATime = 64;
// A guest that takes longer than this to become ready may be on a KVM that cannot run it. Some of
// those go wrong only after half a minute of emulating the guest, so it is worth asking; where KVM
// works, boots end long before.
constexpr std::uint64_t kSlowBoot = 2 * kSecond;
// After which whoever waits for the start wants to know that something happens.
constexpr std::uint64_t kNoticeable = kSecond / 2;

Outcome guest_broke_protocol(const Error& error) {
  return {kExitLauncher, error.message};
}

}  // namespace

Session::Session(Loop& loop, MachineProcess& machine, MachineRequests& requests,
                 SessionOptions options, Timeline& timeline)
    : loop_(loop),
      machine_(machine),
      requests_(requests),
      options_(std::move(options)),
      timeline_(timeline),
      background_(options_.background),
      opener_([this] { return machine_.connect(MSB_PORT_AGENT); }),
      network_(loop, {machine, requests, *options_.network, options_.control}, opener_),
      limits_(loop, options_.limits, [this](Outcome outcome) { on_limit(std::move(outcome)); }),
      command_(loop, opener_, std::move(options_.command),
               {.started = [this](std::uint32_t process) { on_started(process); },
                .first_output = [this] { timeline_.mark("first output"); },
                .active = [this] { limits_.touch(); },
                .detached = [this] { on_detached(); },
                .ended = [this](Outcome outcome) { on_ended(std::move(outcome)); },
                .lost = [this](const Error& error) { on_lost(error); },
                .undelivered = [](const Error& error) { complain(error.message); }}),
      connections_(
          loop,
          {.supervisor = [this](Fd socket) { command_.attach(std::move(socket)); },
           .guest = [this](
                        Fd socket,
                        std::uint32_t port) { return machine_.connect(std::move(socket), port); }},
          options_.limits.idle_timeout_s == 0
              ? SocketConnections::Changed()
              : [this](std::size_t count) { hold(socket_connections_, count); }),
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
      }),
      notice_due_([this](std::int32_t result) {
        if (result == -ETIME) {
          show_notice();
        }
      }),
      starter_gone_([this](std::int32_t result) {
        if (result >= 0) {
          on_starter_gone();
        }
      }),
      parting_([this](std::int32_t result) {
        if (result == -ETIME) {
          loop_.stop();
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
  if (!options_.notice.empty()) {
    loop_.timeout(kNoticeable, notice_due_);
  }
  if (options_.control != nullptr) {
    options_.control->obey({.stop = [this](const StopWords& words) { on_stop_order(words); },
                            .kill = [this] { on_kill_order(); }});
    options_.control->open();
  }
  network_.watch();
  if (options_.limits.idle_timeout_s != 0) {
    options_.ports->watch(
        {.connections = [this](std::size_t count) { hold(port_connections_, count); },
         .datagram = [this] { limits_.touch(); }});
  }
  watch_starter();
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
  connections_.close();
  limits_.close();
  network_.close();
  options_.ports->close();
  options_.forwards->close();
  options_.network->close();
  requests_.close();
  part();
  options_.reports->ended(*outcome_, outcome_->cause == Cause::kFailed
                                         ? last_lines(kernel_log_)
                                         : std::vector<std::string>());
  if (options_.control != nullptr) {
    options_.control->stopped(outcome_->status, outcome_->message);
    options_.control->close();
  }
  loop_.drain();
  return std::move(*outcome_);
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

void Session::show_notice() {
  if (state_ < State::kRunning && !finished_) {
    notice_shown_ = true;
    fmt::print(stderr, "{}", options_.notice);
  }
}

// Before anything else comes to stand on that line.
void Session::take_notice_back() {
  if (std::exchange(notice_shown_, false)) {
    fmt::print(stderr, "\r\x1b[K");
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
      if (auto denied = network_.on_denied(message); !denied) {
        finish({kExitLauncher, denied.error().message});
      }
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
    if (!command_.exists()) {
      begin(std::nullopt);
    }
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
                            restart ? "restart" : "power off"),
                Cause::kExited};
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
  if (!command_.exists()) {
    return;
  }
  if (auto started = command_.start(); !started) {
    shut_down({kExitLauncher, started.error().message});
  }
}

void Session::on_started(std::uint32_t process) {
  timeline_.mark("command started");
  begin(process);
}

void Session::begin(std::optional<std::uint32_t> process) {
  state_ = State::kRunning;
  take_notice_back();
  limits_.start();
  if (options_.control != nullptr) {
    options_.control->running(process);
  }
  options_.reports->running(process);
}

void Session::on_detached() {
  background_ = true;
  if (auto gone = go_into_background(); !gone) {
    complain(gone.error().message);
  }
  if (options_.control != nullptr) {
    options_.control->in_background();
  }
  options_.reports->detached();
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
  const bool killed_there = error.code == ECONNRESET;
  if (killed_there && (stopping_ || state_ == State::kEnding)) {
    command_.killed();
  }
  if (stopping_) {
    settle_stop(killed_there ? killed() : Outcome{kExitLauncher, error.message});
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

}  // namespace msb::launcher
