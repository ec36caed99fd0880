// SPDX-License-Identifier: Apache-2.0
#include "launcher/attach_server.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <string_view>
#include <utility>

#include "protocol/agent_frames.hpp"

namespace msb::launcher {

namespace {

// What a connection begins with; the number means nothing here.
constexpr std::string_view kGreeting = "OK 0\n";

constexpr std::uint32_t frame_type(std::size_t stream) {
  return stream == MSB_STREAM_STDOUT ? MSB_STDOUT : MSB_STDERR;
}

}  // namespace

AttachServer::AttachServer(AsyncIo& io, Command command, Limits limits)
    : io_(io),
      command_(std::move(command)),
      limits_(limits),
      history_{OutputHistory(limits.history), OutputHistory(limits.history)} {}

AttachServer::~AttachServer() {
  close();
}

// --- clients ---

void AttachServer::add(Fd socket) {
  if (closed_ || clients_.size() >= limits_.clients) {
    return;
  }
  const Position client = clients_.emplace(clients_.end());
  client->stream.emplace(
      io_, std::move(socket), protocol::Connection::kAttached,
      protocol::FrameStream::Greeting::kNone,
      protocol::FrameStream::Owner{
          .frame = [this, client](const protocol::Frame& frame) { return on_frame(client, frame); },
          .closed = [this, client](const std::optional<Error>&) { leave(client); },
          .sent = [this, client] { on_sent(client); }});
  const auto greeting = std::as_bytes(std::span(kGreeting));
  client->stream->send({greeting.begin(), greeting.end()});
  client->stream->start();
}

bool AttachServer::on_frame(Position client, const protocol::Frame& frame) {
  if (client->closing) {
    return true;
  }
  if (frame.type == MSB_ATTACH) {
    on_attach(client, frame);
    return true;
  }
  if (!client->attached) {
    // It cannot know whether there is input, unless it is in a hurry.
    leave(client);
    return true;
  }
  return on_input(client, frame.payload);
}

void AttachServer::on_attach(Position client, const protocol::Frame& frame) {
  const auto wanted = protocol::decode_attach(frame);
  if (client->attached || client->wanted) {
    leave(client);
  } else if (!wanted) {
    finish(client, protocol::encode_refused(MSB_STAGE_REQUEST, EINVAL, wanted.error().message));
  } else {
    client->wanted = *wanted;
    answer(client);
  }
}

void AttachServer::answer(Position client) {
  if (!client->wanted) {
    return;
  }
  if (refusal_) {
    finish(client, protocol::encode_refused(MSB_STAGE_PROCESS, ESRCH, *refusal_));
  } else if (process_) {
    attach(client, *std::exchange(client->wanted, {}));
  }
}

std::uint64_t AttachServer::goes_on_at(std::size_t stream, std::uint64_t wanted) const {
  const OutputHistory& history = history_[stream];
  return wanted == MSB_OFFSET_END ? history.end() : std::max(wanted, history.oldest());
}

void AttachServer::attach(Position client, const protocol::AttachSpec& wanted) {
  if (wanted.process != 0 && wanted.process != process_->process) {
    finish(client, protocol::encode_refused(MSB_STAGE_PROCESS, ESRCH,
                                            "this is not the sandbox's own command"));
    return;
  }
  msb_attached attached{};
  attached.process = process_->process;
  attached.pid = process_->pid;
  attached.input = input_;
  attached.flags = MSB_ATTACHED_INPUT | MSB_ATTACHED_CHANNEL_ENDED |
                   (process_->terminal ? MSB_ATTACHED_TERMINAL : 0U) |
                   (input_open_ ? 0U : MSB_ATTACHED_INPUT_ENDED);
  bool ahead = wanted.offsets[MSB_STREAM_CHANNEL] != MSB_OFFSET_END &&
               wanted.offsets[MSB_STREAM_CHANNEL] != 0;
  for (std::size_t i = 0; i < history_.size(); ++i) {
    attached.offsets[i] = goes_on_at(i, wanted.offsets[i]);
    ahead = ahead || attached.offsets[i] > history_[i].end();
  }
  if (ahead) {
    finish(client, protocol::encode_refused(MSB_STAGE_REQUEST, EINVAL,
                                            "the offset is beyond what was written"));
    return;
  }
  client->attached = true;
  protocol::FrameBytes frames = protocol::encode_attached(attached);
  for (std::size_t i = 0; i < history_.size(); ++i) {
    protocol::append_data(frames, frame_type(i), history_[i].from(attached.offsets[i]));
  }
  if (exited_) {
    const protocol::FrameBytes last = protocol::encode_exited(*exited_);
    frames.insert(frames.end(), last.begin(), last.end());
    finish(client, std::move(frames));
  } else {
    send(client, std::move(frames));
  }
}

bool AttachServer::on_input(Position client, std::span<const std::byte> bytes) {
  if (!input_open_) {
    return true;  // on its way when the input was ended
  }
  if (bytes.empty()) {
    command_.end_input();
    return true;
  }
  input_ += bytes.size();
  command_.input(bytes);
  client->paused = !command_.takes_input();
  return !client->paused;
}

void AttachServer::resume_input() {
  for (auto next = clients_.begin(); next != clients_.end();) {
    const Position client = next++;  // this one may leave
    if (command_.takes_input() && std::exchange(client->paused, false)) {
      client->stream->resume();
    }
  }
}

bool AttachServer::send(Position client, protocol::FrameBytes frames) {
  if (client->stream->unsent() + frames.size() > limits_.waiting_bytes) {
    leave(client);
    return false;
  }
  client->stream->send(std::move(frames));
  return true;
}

void AttachServer::finish(Position client, protocol::FrameBytes last) {
  client->closing = true;
  client->wanted.reset();
  if (send(client, std::move(last)) && std::exchange(client->paused, false)) {
    client->stream->resume();  // its input has no place to go, but its end is to be seen
  }
}

void AttachServer::on_sent(Position client) {
  if (client->closing) {
    leave(client);
  }
}

void AttachServer::leave(Position client) {
  clients_.erase(client);
  if (sent_ && !waiting()) {
    sent_();
  }
}

bool AttachServer::waiting() const {
  return std::ranges::any_of(clients_, &Client::closing);
}

void AttachServer::close() {
  closed_ = true;
  sent_ = nullptr;
  clients_.clear();
}

// --- the command ---

void AttachServer::started(const Process& process) {
  process_ = process;
  for (auto next = clients_.begin(); next != clients_.end();) {
    answer(next++);
  }
}

void AttachServer::refuse(std::string why) {
  refusal_ = std::move(why);
  for (auto next = clients_.begin(); next != clients_.end();) {
    answer(next++);
  }
}

void AttachServer::output(msb_stream stream, std::span<const std::byte> bytes) {
  if (stream >= history_.size()) {
    return;
  }
  history_[stream].append(bytes);
  for (auto next = clients_.begin(); next != clients_.end();) {
    const Position client = next++;
    if (client->attached && !client->closing) {
      protocol::FrameBytes frames;
      protocol::append_data(frames, frame_type(stream), bytes);
      send(client, std::move(frames));
    }
  }
}

void AttachServer::input_ended() {
  input_open_ = false;
}

void AttachServer::exited(const protocol::Exited& exited) {
  if (exited_ || !process_) {
    return;
  }
  exited_ = exited;
  for (auto next = clients_.begin(); next != clients_.end();) {
    const Position client = next++;
    if (client->attached && !client->closing) {
      finish(client, protocol::encode_exited(exited));
    }
  }
}

void AttachServer::killed(std::uint32_t flags) {
  protocol::Exited exited;
  exited.fields.flags = flags;
  exited.fields.kind = MSB_EXIT_SIGNAL;
  exited.fields.value = SIGKILL;
  exited.fields.process = process_ ? process_->process : 0;
  for (std::size_t i = 0; i < history_.size(); ++i) {
    exited.fields.offsets[i] = history_[i].end();
  }
  this->exited(exited);
}

}  // namespace msb::launcher
