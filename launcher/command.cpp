// SPDX-License-Identifier: Apache-2.0
#include "launcher/command.hpp"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string_view>
#include <utility>

#include "protocol/msb_exec.h"

namespace msb::launcher {

namespace {

// Of input that has not left, beyond which no more is asked for.
constexpr std::size_t kEnoughUnsent = std::size_t{256} << 10;

}  // namespace

int status_of_refusal(const protocol::Failure& failure) {
  switch (failure.stage) {
    case MSB_STAGE_EXECUTE:
      return failure.error.code == ENOENT || failure.error.code == ENOTDIR ? kExitNotFound
                                                                           : kExitNotExecutable;
    case MSB_STAGE_DIRECTORY:
    case MSB_STAGE_USER:
      return kExitNotExecutable;
    default:
      return kExitLauncher;
  }
}

Command::Command(AsyncIo& io, const protocol::Opener& opener, CommandOptions options, Events events)
    : io_(io),
      opener_(opener),
      options_(std::move(options)),
      events_(std::move(events)),
      terminal_(STDIN_FILENO),
      input_(io, STDIN_FILENO, [this](std::span<const std::byte> bytes) { on_input(bytes); }),
      stdout_(io, STDOUT_FILENO, [this](int error) { on_output_written(stdout_open_, error); }),
      stderr_(io, STDERR_FILENO, [this](int error) { on_output_written(stderr_open_, error); }) {}

Result<void> Command::start() {
  auto socket = options_.supervisor ? options_.supervisor() : opener_();
  if (!socket) {
    return std::unexpected(socket.error());
  }
  protocol::Process::Events events{
      .started = [this](const msb_started& started) { on_started(started); },
      .attached = [this](const msb_attached& attached) { on_attached(attached); },
      .output = [this](msb_stream stream,
                       std::span<const std::byte> bytes) { return on_output(stream, bytes); },
      .sent = [this] { on_sent(); },
      .exited = [this](const protocol::Exited& exited) { on_exited(exited); },
      .detached = [this] { end({kExitLauncher, "another connection attached to the process"}); },
      .failed = [this](const protocol::Failure& failure) { on_failed(failure); }};
  if (options_.attach) {
    process_ =
        protocol::Process::attach(io_, std::move(*socket), *options_.attach, std::move(events));
    return {};
  }
  auto process =
      protocol::Process::start(io_, std::move(*socket), options_.process, std::move(events));
  if (!process) {
    return std::unexpected(process.error());
  }
  process_ = std::move(*process);
  return {};
}

void Command::on_started(const msb_started& started) {
  process_id_ = started.process;
  if (options_.standard_streams && options_.terminal && options_.input &&
      terminal_size(STDIN_FILENO)) {
    if (auto raw = terminal_.make_raw(); !raw) {
      events_.undelivered(raw.error());
    }
  }
  events_.started(started);
  read_input();
}

void Command::on_attached(const msb_attached& attached) {
  options_.input = (attached.flags & MSB_ATTACHED_INPUT) != 0;
  options_.terminal = (attached.flags & MSB_ATTACHED_TERMINAL) != 0;
  on_started({attached.process, attached.pid});
  if (running() && options_.terminal) {
    resize();  // the terminal had the size of whoever was there before
  }
}

// --- streams ---

bool Command::on_output(msb_stream stream, std::span<const std::byte> bytes) {
  const bool standard_error = stream == MSB_STREAM_STDERR;
  if (stream == MSB_STREAM_CHANNEL) {
    return true;
  }
  if (std::exchange(first_output_, false) && events_.first_output) {
    events_.first_output();
  }
  if (events_.output) {
    events_.output(stream, bytes);
  }
  if (!options_.standard_streams || !(standard_error ? stderr_open_ : stdout_open_)) {
    return true;
  }
  (standard_error ? stderr_ : stdout_).write(bytes);
  return false;  // until it is written: a slow reader of ours slows the command down, and nothing
                 // else
}

void Command::on_output_written(bool& open, int error) {
  if (error != 0) {
    // Nobody reads on. The command learns it as it would on this host; what it still writes is
    // dropped.
    open = false;
    if (options_.supervisor) {
      end({kExitSignal + SIGPIPE, ""});  // others may be attached: only this client ends
      return;
    }
    signal(SIGPIPE);
  }
  if (!closed_) {
    process_->resume();
  }
}

// The next piece is read when the last one has left.
void Command::read_input() {
  if (running() && options_.standard_streams && options_.input && process_->input_open() &&
      process_->unsent() == 0 && !std::exchange(reading_, true)) {
    input_.read();
  }
}

void Command::on_input(std::span<const std::byte> bytes) {
  reading_ = false;
  if (!running()) {
    return;
  }
  if (bytes.empty()) {
    end_input();
    return;
  }
  if (!options_.terminal || !(options_.kept || options_.may_detach)) {
    process_->send_input(bytes);
    return;
  }
  process_->send_input(keys_.pass(bytes));
  on_keys();
}

void Command::on_keys() {
  if (!keys_.detached()) {
    read_input();  // when the keys were held back, nothing is under way
  } else if (options_.may_detach) {
    detach();
  } else {
    end({0, options_.supervisor ? "detached; the sandbox goes on"
                                : fmt::format("detached from process {}", *process_id_)});
  }
}

// A terminal's keys come when nothing of it is being read; what is still being written to it is
// lost.
void Command::detach() {
  options_.standard_streams = false;
  stdout_.abandon();
  stderr_.abandon();
  terminal_.restore();
  if (events_.detached) {
    events_.detached();
  }
  process_->resume();
}

void Command::on_sent() {
  read_input();
  if (events_.input_taken) {
    events_.input_taken();
  }
}

void Command::send_input(std::span<const std::byte> bytes) {
  if (running()) {
    process_->send_input(bytes);
  }
}

void Command::end_input() {
  if (running() && process_->input_open()) {
    process_->end_input();
    if (events_.input_ended) {
      events_.input_ended();
    }
  }
}

bool Command::takes_input() const {
  return !running() || process_->unsent() < kEnoughUnsent;
}

// --- the end ---

void Command::on_exited(const protocol::Exited& exited) {
  if (events_.exited) {
    events_.exited(exited);
  }
  const msb_exited& fields = exited.fields;
  const int value = static_cast<int>(fields.value);
  Outcome outcome{fields.kind == MSB_EXIT_SIGNAL ? kExitSignal + value : value, "", Cause::kExited};
  if ((fields.flags & MSB_EXITED_TIMED_OUT) != 0) {
    outcome = {kExitTimeout, "the command was ended because its time was over", Cause::kExited};
  } else if ((fields.flags & MSB_EXITED_OUT_OF_MEMORY) != 0) {
    outcome.message = fmt::format("the command was ended because the sandbox ran out of memory{}",
                                  options_.memory_hint);
  }
  end(std::move(outcome));
}

void Command::on_failed(const protocol::Failure& failure) {
  if (failure.stage == MSB_STAGE_PROCESS && options_.attach && !options_.supervisor) {
    end({kExitLauncher,
         fmt::format("there is no process {} that was started to be kept (--detach or --keep)",
                     options_.attach->process)});
    return;
  }
  if (failure.stage != 0) {
    const int status = status_of_refusal(failure);
    end({status, failure.error.message, status == kExitLauncher ? Cause::kFailed : Cause::kExited});
    return;
  }
  close();
  events_.lost(failure.error);
}

void Command::end(Outcome outcome) {
  close();
  events_.ended(std::move(outcome));
}

void Command::close() {
  closed_ = true;
  process_id_.reset();
  terminal_.restore();
  requests_.reset();
  if (process_) {
    process_->close();
  }
}

// --- signals ---

void Command::on_signal(int number) {
  if (!running()) {
    return;
  }
  switch (number) {
    case SIGCONT:
      if (options_.terminal && options_.input && terminal_.size()) {
        if (auto raw = terminal_.make_raw(); !raw) {
          events_.undelivered(raw.error());
        }
      }
      [[fallthrough]];
    case SIGWINCH:
      resize();
      break;
    default:
      signal(number);
      break;
  }
}

void Command::signal(int number) {
  if (running()) {
    if (protocol::Requests* to = requests()) {
      to->signal(*process_id_, static_cast<std::uint32_t>(number), false, delivered());
    }
  }
}

void Command::resize() {
  const auto size = terminal_.size();
  if (options_.terminal && size) {
    if (protocol::Requests* to = requests()) {
      to->resize(*process_id_, *size, delivered());
    }
  }
}

protocol::Requests* Command::requests() {
  if (!requests_ || !requests_->open()) {
    auto socket = opener_();
    if (!socket) {
      events_.undelivered(socket.error());
      return nullptr;
    }
    requests_.emplace(io_, std::move(*socket));
  }
  return &*requests_;
}

protocol::Requests::Done<void> Command::delivered() {
  return [this](const protocol::Answer<void>& answer) {
    // When the connection broke, the command's own is about to say why; a process that is gone
    // needs no signal.
    if (!answer && answer.error().stage != 0 && answer.error().stage != MSB_STAGE_PROCESS) {
      events_.undelivered(answer.error().error);
    }
  };
}

}  // namespace msb::launcher
