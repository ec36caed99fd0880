// SPDX-License-Identifier: Apache-2.0
// How a session ends: signals, orders, limits, and what they come to.
#include <poll.h>

#include <csignal>
#include <cstdint>
#include <utility>

#include "launcher/complain.hpp"
#include "launcher/session.hpp"
#include "protocol/host_frames.hpp"

namespace msb::launcher {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;  // nanoseconds
constexpr std::uint64_t kMillisecond = 1'000'000;
// How long a guest may take over its orderly end before the machine is ended for it, and how long
// with a disk that lasts: this host may have gigabytes to write until the guest is told that it is
// done.
constexpr std::uint64_t kShutdownTimeout = 5 * kSecond;
constexpr std::uint64_t kWritingTimeout = 30 * kSecond;
// For the last words of the command to reach those who are attached to it.
constexpr std::uint64_t kParting = 2 * kSecond;
constexpr int kKilled = kExitSignal + SIGKILL;

}  // namespace

// --- signals, orders and limits ---

void Session::on_signal(int signal) {
  if (finished_ || (signal == SIGHUP && background_)) {
    return;
  }
  if (signal == SIGWINCH || signal == SIGCONT) {
    command_.on_signal(signal);
    return;
  }
  switch (state_) {
    case State::kBooting:
    case State::kStarting:
      finish({kExitSignal + signal, "interrupted before the command had started", Cause::kStopped});
      break;
    case State::kRunning:
      if (means_stop(signal)) {
        stop(options_.stop_signal, options_.stop_grace_ms);
      } else {
        on_signal_for_command(signal);
      }
      break;
    case State::kStopping:
      if (means_stop(signal)) {
        shut_down({kKilled, "the command was killed at a second SIGTERM", Cause::kStopped});
      } else {
        on_signal_for_command(signal);
      }
      break;
    case State::kEnding:
      if (!options_.lasting) {
        finish({kExitSignal + signal, "", Cause::kStopped});
      }  // else its disk is being written, and `kill` at the control socket is for who cannot wait
      break;
  }
}

// Without a command there is nobody else whom the keys of a terminal could mean.
bool Session::means_stop(int signal) const {
  return signal == SIGTERM ||
         (!command_.exists() && (signal == SIGINT || signal == SIGHUP || signal == SIGQUIT));
}

void Session::on_signal_for_command(int signal) {
  if (signal == SIGINT && ++interrupts_ == kImpatience) {
    finish({kExitSignal + signal, "the sandbox was ended after three interrupts", Cause::kStopped});
  } else {
    command_.on_signal(signal);
  }
}

// Not as a second SIGTERM would, for two who do not know of each other may order it.
void Session::on_stop_order(const StopWords& words) {
  if (state_ == State::kRunning) {
    stop(words.signal.value_or(options_.stop_signal),
         words.grace_ms.value_or(options_.stop_grace_ms));
  } else if (state_ < State::kRunning) {
    on_signal(SIGTERM);
  }
}

void Session::on_kill_order() {
  const Outcome outcome{kKilled, "the sandbox was killed", Cause::kStopped};
  if (finished_) {
    return;
  }
  if (state_ == State::kRunning || state_ == State::kStopping) {
    shut_down(outcome);
  } else {
    finish(outcome);
  }
}

// Nobody is there any more for whom it runs, unless it is to be left running.
void Session::watch_starter() {
  if (const int pipe = options_.reports->starter(); pipe >= 0) {
    loop_.poll(pipe, POLLERR, starter_gone_);
  }
}

void Session::on_starter_gone() {
  if (!background_ && !finished_) {
    on_stop_order({});
  }
}

void Session::hold(std::size_t& connections, std::size_t count) {
  connections = count;
  limits_.hold(socket_connections_ + port_connections_);
}

void Session::on_limit(Outcome outcome) {
  if (state_ == State::kRunning) {
    limit_reached_ = std::move(outcome);
    command_.time_is_over();
    stop(options_.stop_signal, options_.stop_grace_ms);
  }
}

// --- stopping ---

// Asks everything that was started to end. The guest then ends by itself, with BYE: once all has
// ended, or when the grace is over.
void Session::stop(std::uint32_t signal, std::uint32_t grace_ms) {
  state_ = State::kStopping;
  stop_grace_ms_ = grace_ms;
  stopping_ = command_.exists();
  if (!stopping_ && !outcome_) {
    outcome_ = limit_reached_.value_or(Outcome{0, "", Cause::kStopped});
  }
  tell_stopping();
  guest_->send(*protocol::encode_shutdown(signal, grace_ms));
  loop_.timeout(grace_ms * kMillisecond + end_patience(), stop_timeout_);
}

// What the command came to, while other processes may still have their grace. BYE can come first:
// what the command wrote is read at the pace of whoever reads it from us.
void Session::settle_stop(Outcome outcome) {
  stopping_ = false;
  if (!outcome_ && outcome.cause != Cause::kFailed) {
    outcome.cause = Cause::kStopped;
    outcome_ = limit_reached_.value_or(std::move(outcome));
  } else if (!outcome_) {
    outcome_ = std::move(outcome);
  }
  if (machine_is_gone_) {
    finish({});
  } else if (announced_) {
    guest_->close();
  }
}

Outcome Session::killed() const {
  if (stop_grace_ms_ == 0) {
    return {kKilled, "the command was killed at once, as --stop-timeout 0 asks for",
            Cause::kStopped};
  }
  return {kKilled,
          fmt::format("the command did not end within {} s of being asked to and was "
                      "killed; give it longer with --stop-timeout",
                      stop_grace_ms_ / 1000),
          Cause::kStopped};
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

// The guest is about to end, or should be: waits for the machine's word, but not for ever.
void Session::expect_end() {
  state_ = State::kEnding;
  tell_stopping();
  if (options_.server != nullptr) {
    options_.server->close();
  }
  if (!end_timeout_.pending()) {
    loop_.timeout(end_patience(), end_timeout_);
  }
}

std::uint64_t Session::end_patience() const {
  return options_.lasting ? kWritingTimeout : kShutdownTimeout;
}

void Session::tell_stopping() {
  if (options_.control != nullptr) {
    options_.control->stopping();
  }
}

// Ends the loop. The outcome that was decided first stands.
void Session::finish(Outcome outcome) {
  finished_ = true;
  take_notice_back();
  if (!outcome_) {
    outcome_ = std::move(outcome);
  }
  loop_.stop();
}

void Session::on_end_timeout() {
  if (options_.lasting && !machine_is_gone_) {
    outcome_.reset();  // a success of which something is missing is none
    finish(
        {kExitLauncher,
         fmt::format("the guest did not end within {} s and was ended: what it wrote last may be "
                     "missing on its disk",
                     kWritingTimeout / kSecond)});
    return;
  }
  finish(
      {kExitLauncher, machine_is_gone_
                          ? "the sandbox has stopped, but what the command wrote last was not read "
                            "in time, so that its exit status is not known"
                          : "the guest did not end in time and was ended"});
}

// Those who are attached to the command get its end, if they read.
void Session::part() {
  if (command_.clients().waiting()) {
    command_.clients().when_sent([this] { loop_.stop(); });
    loop_.timeout(kParting, parting_);
    if (auto ran = loop_.run(); !ran) {
      complain(ran.error().message);
    }
  }
  command_.clients().close();
}

}  // namespace msb::launcher
