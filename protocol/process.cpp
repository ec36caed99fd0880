// SPDX-License-Identifier: Apache-2.0
#include "protocol/process.hpp"

#include <array>
#include <cerrno>
#include <limits>
#include <optional>
#include <utility>

#include "protocol/frame_stream.hpp"
#include "protocol/frames.hpp"

namespace msb::protocol {

namespace {

using Offsets = std::array<std::uint64_t, MSB_STREAMS>;

// What a connection may do, as it was asked for.
struct Request {
  std::optional<AttachSpec> attach;  // else it is a START
  bool terminal = false;             // of ATTACH known once it is answered
  bool channel = false;
  bool input = false;
};

}  // namespace

class Process::State : public std::enable_shared_from_this<State> {
 public:
  State(AsyncIo& io, Fd socket, const Request& request, Events events)
      : request_(request),
        input_open_(request.input),
        channel_open_(request.channel && !request.attach),
        events_(std::move(events)),
        stream_(io, std::move(socket), Connection::kProcess, FrameStream::Greeting::kExpected,
                {.frame = [this](const Frame& frame) { return on_frame(frame); },
                 .closed = [this](std::optional<Error> error) { on_closed(std::move(error)); },
                 .sent = [this] { on_sent(); }}) {}

  void begin(FrameBytes frame) {
    stream_.send(std::move(frame));
    stream_.start();
  }
  void send(std::uint32_t type, bool open, std::span<const std::byte> bytes);
  void end(std::uint32_t type, bool& open);

  [[nodiscard]] bool& input_open() { return input_open_; }
  [[nodiscard]] bool& channel_open() { return channel_open_; }
  [[nodiscard]] FrameStream& stream() { return stream_; }

 private:
  enum class Phase { kOpening, kRunning };

  bool on_frame(const Frame& frame);
  void on_started(const Frame& frame);
  void on_attached(const Frame& frame);
  void on_refused(const Frame& frame);
  void on_exited(const Frame& frame);
  bool on_output(msb_stream stream, const Frame& frame);
  void on_closed(std::optional<Error> error);
  void on_sent();
  void break_off(Error error);

  Request request_;
  Phase phase_ = Phase::kOpening;
  std::uint32_t process_ = 0;
  Offsets offsets_{};  // of the next byte of each stream
  bool input_open_;
  bool channel_open_;
  Events events_;
  FrameStream stream_;
};

bool Process::State::on_frame(const Frame& frame) {
  const auto kept = shared_from_this();
  switch (frame.type) {
    case MSB_STARTED:
      on_started(frame);
      return true;
    case MSB_ATTACHED:
      on_attached(frame);
      return true;
    case MSB_REFUSED:
      on_refused(frame);
      return true;
    case MSB_STDOUT:
      return on_output(MSB_STREAM_STDOUT, frame);
    case MSB_STDERR:
      return on_output(MSB_STREAM_STDERR, frame);
    case MSB_CHANNEL:
      return on_output(MSB_STREAM_CHANNEL, frame);
    case MSB_EXITED:
      on_exited(frame);
      return true;
    case MSB_DETACHED:
      if (phase_ != Phase::kRunning) {
        break_off(out_of_place(frame));
        return true;
      }
      stream_.close();
      if (events_.detached) {
        events_.detached();
      }
      return true;
    default:
      break_off(out_of_place(frame));
      return true;
  }
}

void Process::State::on_started(const Frame& frame) {
  const auto started = decode_started(frame);
  if (!started || phase_ != Phase::kOpening || request_.attach) {
    break_off(started ? out_of_place(frame) : started.error());
    return;
  }
  phase_ = Phase::kRunning;
  process_ = started->process;
  if (events_.started) {
    events_.started(*started);
  }
}

void Process::State::on_attached(const Frame& frame) {
  const auto attached = decode_attached(frame);
  if (!attached || phase_ != Phase::kOpening || !request_.attach) {
    break_off(attached ? out_of_place(frame) : attached.error());
    return;
  }
  if (request_.attach->process != 0 && attached->process != request_.attach->process) {
    break_off({fmt::format("the guest attached to process {} instead of {}", attached->process,
                           request_.attach->process),
               EPROTO});
    return;
  }
  for (std::size_t i = 0; i < MSB_STREAMS; ++i) {
    const std::uint64_t wanted = request_.attach->offsets[i];
    if (wanted != MSB_OFFSET_END && attached->offsets[i] < wanted) {
      break_off({"the guest goes on with output that was not asked for", EPROTO});
      return;
    }
    offsets_[i] = attached->offsets[i];
  }
  phase_ = Phase::kRunning;
  process_ = attached->process;
  request_.terminal = (attached->flags & MSB_ATTACHED_TERMINAL) != 0;
  input_open_ =
      (attached->flags & (MSB_ATTACHED_INPUT | MSB_ATTACHED_INPUT_ENDED)) == MSB_ATTACHED_INPUT;
  channel_open_ = (attached->flags & MSB_ATTACHED_CHANNEL_ENDED) == 0;
  if (events_.attached) {
    events_.attached(*attached);
  }
}

void Process::State::on_refused(const Frame& frame) {
  const auto failure = decode_failure(frame);
  if (!failure || phase_ != Phase::kOpening) {
    break_off(failure ? out_of_place(frame) : failure.error());
    return;
  }
  stream_.close();
  events_.failed(*failure);
}

bool Process::State::on_output(msb_stream stream, const Frame& frame) {
  // Whether a process that was attached to has a channel is not known here.
  const bool exists = (stream != MSB_STREAM_STDERR || !request_.terminal) &&
                      (stream != MSB_STREAM_CHANNEL || request_.attach || request_.channel);
  std::uint64_t& offset = offsets_[stream];
  if (phase_ != Phase::kRunning || !exists ||
      frame.payload.size() > std::numeric_limits<std::uint64_t>::max() - offset) {
    break_off(out_of_place(frame));
    return true;
  }
  offset += frame.payload.size();
  return !events_.output || events_.output(stream, frame.payload);
}

void Process::State::on_exited(const Frame& frame) {
  const auto exited = decode_exited(frame);
  if (!exited || phase_ != Phase::kRunning) {
    break_off(exited ? out_of_place(frame) : exited.error());
    return;
  }
  if (exited->fields.process != process_) {
    break_off({fmt::format("the guest told the end of process {} instead of {}",
                           exited->fields.process, process_),
               EPROTO});
    return;
  }
  for (std::size_t i = 0; i < MSB_STREAMS; ++i) {
    if (exited->fields.offsets[i] != offsets_[i]) {
      break_off({fmt::format("the guest says that {} bytes were written where {} came",
                             exited->fields.offsets[i], offsets_[i]),
                 EPROTO});
      return;
    }
  }
  stream_.close();
  events_.exited(*exited);
}

void Process::State::on_closed(std::optional<Error> error) {
  const auto kept = shared_from_this();
  if (!error) {
    error = Error{"the sandbox closed the connection before the process had ended", ECONNRESET};
  }
  events_.failed({0, std::move(*error)});
}

void Process::State::on_sent() {
  const auto kept = shared_from_this();
  if (events_.sent) {
    events_.sent();
  }
}

void Process::State::break_off(Error error) {
  stream_.close();
  events_.failed({0, std::move(error)});
}

void Process::State::send(std::uint32_t type, bool open, std::span<const std::byte> bytes) {
  if (open) {
    FrameBytes frames;
    append_data(frames, type, bytes);
    stream_.send(std::move(frames));
  }
}

void Process::State::end(std::uint32_t type, bool& open) {
  if (std::exchange(open, false)) {
    stream_.send(encode_frame(type, {}));
  }
}

Result<Process> Process::start(AsyncIo& io, Fd socket, const ProcessSpec& spec, Events events) {
  auto frame = encode_start(spec);
  if (!frame) {
    return std::unexpected(frame.error());
  }
  const Request request{.attach = {},
                        .terminal = spec.terminal.has_value(),
                        .channel = spec.channel,
                        .input = spec.input};
  Process process(std::make_shared<State>(io, std::move(socket), request, std::move(events)));
  process.state_->begin(std::move(*frame));
  return process;
}

Process Process::attach(AsyncIo& io, Fd socket, const AttachSpec& spec, Events events) {
  const Request request{.attach = spec};
  Process process(std::make_shared<State>(io, std::move(socket), request, std::move(events)));
  process.state_->begin(encode_attach(spec));
  return process;
}

Process::Process(std::shared_ptr<State> state) : state_(std::move(state)) {}
Process::Process(Process&&) noexcept = default;

Process& Process::operator=(Process&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Process::~Process() {
  if (state_) {
    state_->stream().close();
  }
}

void Process::send_input(std::span<const std::byte> bytes) {
  state_->send(MSB_STDIN, state_->input_open(), bytes);
}

void Process::end_input() {
  state_->end(MSB_STDIN, state_->input_open());
}

bool Process::input_open() const {
  return state_->input_open();
}

void Process::send_channel(std::span<const std::byte> bytes) {
  state_->send(MSB_CHANNEL_INPUT, state_->channel_open(), bytes);
}

void Process::end_channel() {
  state_->end(MSB_CHANNEL_INPUT, state_->channel_open());
}

bool Process::channel_open() const {
  return state_->channel_open();
}

std::size_t Process::unsent() const {
  return state_->stream().unsent();
}

void Process::close() {
  state_->stream().close();
}

void Process::resume() {
  state_->stream().resume();
}

}  // namespace msb::protocol
