// SPDX-License-Identifier: Apache-2.0
#include "server/v1_streams.hpp"

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <exception>
#include <map>
#include <utility>

#include "oci/base64.hpp"

namespace msb::server::v1 {

using protocol::Exited;

namespace {

constexpr std::string_view kLinesType = "application/x-ndjson";
constexpr std::string_view kServerSentType = "text/event-stream";

constexpr std::array<std::string_view, 2> kStreamNames = {"stdout", "stderr"};

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) {
    text.remove_prefix(1);
  }
  while (text.ends_with(' ') || text.ends_with('\t')) {
    text.remove_suffix(1);
  }
  return text;
}

// Exchange::read(), whose exception would leave what waits beside it waiting.
struct Reading {
  std::optional<BodyPiece> piece;
  std::exception_ptr error;
};

Async<> read_into(Exchange& exchange, Reading& reading) {
  try {
    auto piece = co_await exchange.read();
    reading.piece.emplace(std::move(piece));
  } catch (...) {
    reading.error = std::current_exception();
  }
}

Async<> await_end(Signal& changed, const std::function<bool()>& over) {
  while (!over()) {
    co_await changed.wait();
  }
}

}  // namespace

std::optional<StreamFormat> stream_format(std::string_view accept) {
  while (!accept.empty()) {
    const std::string_view range = accept.substr(0, accept.find(','));
    const std::string_view type = trimmed(range.substr(0, range.find(';')));
    if (type == kLinesType) {
      return StreamFormat::kLines;
    }
    if (type == kServerSentType) {
      return StreamFormat::kServerSent;
    }
    accept.remove_prefix(std::min(accept.size(), range.size() + 1));
  }
  return std::nullopt;
}

std::string encode_event(const Json& event, StreamFormat format) {
  // Neither has a line break in it.
  const std::string text = to_text(event);
  return format == StreamFormat::kLines
             ? text + "\n"
             : fmt::format("event: {}\ndata: {}\n\n", event.value("event", ""), text);
}

Async<> EventStream::begin() {
  HttpAnswer head;
  head.type = format_ == StreamFormat::kLines ? kLinesType : kServerSentType;
  co_await exchange_.begin(std::move(head));
}

Async<> EventStream::send(Json event) {
  const std::string text = encode_event(event, format_);
  co_await exchange_.write(text);
}

Async<> EventStream::send_all(std::vector<Json> events) {
  for (Json& event : events) {
    co_await send(std::move(event));
  }
}

Async<> EventStream::send_failure(Problem problem) {
  Json event = {{"event", "failed"}};
  event.update(error_document(problem, exchange_.id()));
  co_await send(std::move(event));
}

Async<> EventStream::end() {
  co_await exchange_.end();
}

Async<std::optional<BodyPiece>> read_unless(Exchange& exchange, Signal& changed,
                                            std::function<bool()> over) {
  using namespace asio::experimental::awaitable_operators;
  if (over()) {
    co_return std::nullopt;
  }
  Reading reading;
  Async<> read = read_into(exchange, reading);
  Async<> end = await_end(changed, over);
  const auto first = co_await (std::move(read) || std::move(end));
  if (first.index() != 0) {
    co_return std::nullopt;
  }
  if (reading.error) {
    std::rethrow_exception(reading.error);
  }
  co_return std::move(reading.piece);
}

std::optional<Json> OutputEvents::add(msb_stream stream, std::span<const std::byte> bytes,
                                      std::uint64_t end) {
  Stream& its = streams_.at(stream);
  std::string text = its.text.add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  its.next = end - its.text.waiting();
  if (text.empty()) {
    return std::nullopt;
  }
  return event(stream, std::move(text), its.next);
}

std::vector<Json> OutputEvents::rest() {
  std::vector<Json> events;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (std::string text = streams_[i].text.rest(); !text.empty()) {
      streams_[i].next += text.size();
      events.push_back(event(i, std::move(text), streams_[i].next));
    }
  }
  return events;
}

Json OutputEvents::event(std::size_t stream, std::string text, std::uint64_t next) {
  Json event = {{"event", "output"},
                {"stream", kStreamNames.at(stream)},
                {"offset", next - text.size()},
                {"next", next}};
  if (is_utf8(text)) {
    event["text"] = std::move(text);
  } else {
    event["base64"] = oci::encode_base64(text);
  }
  return event;
}

std::shared_ptr<AttachedProcess> AttachedProcess::of(asio::io_context& io,
                                                     std::shared_ptr<const Guest> guest,
                                                     std::uint32_t id) {
  using Place = std::pair<const Guest*, std::uint32_t>;
  static std::map<Place, std::weak_ptr<AttachedProcess>> all;
  std::erase_if(all, [](const auto& one) { return one.second.expired(); });
  auto& place = all[Place(guest.get(), id)];
  auto process = place.lock();
  if (!process) {
    process = std::make_shared<AttachedProcess>(io, std::move(guest), id);
    place = process;
  }
  return process;
}

Async<Outcome<void>> AttachedProcess::attach(Offsets wanted, std::uint64_t follower,
                                             bool take_over) {
  const auto pass = co_await joins_.enter();
  if (!take_over && follower_ != 0) {
    co_return refuse(Reason::kConflict,
                     "somebody follows process {}, from whom a read-only key does not take it; "
                     "come again when nobody does",
                     id_);
  }
  auto socket = guest_->opener()();
  if (!socket) {
    co_return std::unexpected(unreachable(socket.error()));
  }
  protocol::AttachSpec spec;
  spec.process = id_;
  spec.offsets = wanted;
  refusal_.reset();
  joining_ = std::make_unique<protocol::Process>(
      protocol::Process::attach(guest_->io(), std::move(*socket), spec, events(wanted, follower)));
  struct Leave {
    AttachedProcess& all;
    ~Leave() {
      all.joining_.reset();
      all.changed_.notify();
    }
  };
  const Leave leave{*this};
  const auto deadline = Signal::Clock::now() + kPatience;
  while (joining_ && !refusal_) {
    const bool come = co_await changed_.wait(deadline);
    if (!come) {
      co_return refuse(Reason::kTimeout, "the sandbox's agent does not answer");
    }
  }
  co_return refusal_ ? Outcome<void>(std::unexpected(*refusal_)) : Outcome<void>();
}

protocol::Process::Events AttachedProcess::events(Offsets wanted, std::uint64_t follower) {
  const std::uint64_t number = ++connections_;
  return {.started = {},
          .attached =
              [this, wanted, follower, number](const msb_attached& attached) {
                connection_ = number;
                follower_ = follower;
                on_attached(attached, wanted);
              },
          .output = [this](msb_stream stream,
                           std::span<const std::byte> bytes) { return on_output(stream, bytes); },
          .sent = [this] { changed_.notify(); },
          .exited = [this, number](const Exited& exited) { on_end(number, exited); },
          .detached = [this, number] { on_end(number, Detached{}); },
          .failed = [this, number](
                        const protocol::Failure& failure) { on_end(number, problem_of(failure)); }};
}

void AttachedProcess::on_attached(const msb_attached& attached, const Offsets& wanted) {
  process_ = std::move(joining_);
  end_.reset();
  queue_.clear();
  held_ = 0;
  paused_ = false;
  for (const msb_stream stream : {MSB_STREAM_STDOUT, MSB_STREAM_STDERR}) {
    ends_[stream] = attached.offsets[stream];
    if (wanted[stream] != MSB_OFFSET_END && wanted[stream] < ends_[stream]) {
      queue_.emplace_back(Lost{stream, wanted[stream], ends_[stream]});
    }
  }
  go_on_with_input(attached);
  changed_.notify();
}

void AttachedProcess::go_on_with_input(const msb_attached& attached) {
  if (!counted_ || attached.input > given_) {
    // Others have written.
    counted_ = true;
    given_ = attached.input;
    tail_.clear();
  }
  settled_ = attached.input;
  end_settled_ = (attached.flags & MSB_ATTACHED_INPUT_ENDED) != 0;
  const std::uint64_t missing = given_ - settled_;
  if (missing > tail_.size()) {
    on_end(connection_, Problem{Reason::kFailed, fmt::format("input of process {} was lost", id_),
                                std::nullopt});
    return;
  }
  const std::string_view again = std::string_view(tail_).substr(tail_.size() - missing);
  process_->send_input(std::as_bytes(std::span(again)));
  if (input_ended_) {
    process_->end_input();
  }
}

bool AttachedProcess::on_output(msb_stream stream, std::span<const std::byte> bytes) {
  if (stream == MSB_STREAM_CHANNEL) {
    return true;  // it was started without one
  }
  ends_[stream] += bytes.size();
  if (follower_ == 0) {
    return true;  // the agent keeps it
  }
  held_ += bytes.size();
  queue_.emplace_back(Output{stream, {bytes.begin(), bytes.end()}, ends_[stream]});
  paused_ = held_ >= kHeld;
  changed_.notify();
  return !paused_;
}

void AttachedProcess::on_end(std::uint64_t connection, Event end) {
  if (connection == connection_) {
    end_ = std::move(end);
  } else if (auto* problem = std::get_if<Problem>(&end)) {
    refusal_ = std::move(*problem);
  }
  changed_.notify();
}

AttachedProcess::Event AttachedProcess::take() {
  Event event = std::move(queue_.front());
  queue_.pop_front();
  if (const auto* output = std::get_if<Output>(&event)) {
    held_ -= output->bytes.size();
    if (held_ < kHeld && std::exchange(paused_, false)) {
      process_->resume();
    }
  }
  return event;
}

void AttachedProcess::stop_following(std::uint64_t follower) {
  if (follower != follower_) {
    return;
  }
  follower_ = 0;
  queue_.clear();
  held_ = 0;
  if (std::exchange(paused_, false)) {
    process_->resume();
  }
}

Async<std::optional<AttachedProcess::Event>> AttachedProcess::Follower::next(App& app) {
  while (true) {
    if (process_->follower_ != number_) {
      co_return Event(Detached{});
    }
    if (!process_->queue_.empty()) {
      co_return process_->take();
    }
    // Its end by our own next connection is not the end.
    if (process_->end_ && !process_->joining_) {
      co_return *process_->end_;
    }
    if (app.draining) {
      co_return std::nullopt;
    }
    co_await Signal::wait_for_either(process_->changed_, app.drain);
  }
}

// Also to one that has ended.
bool AttachedProcess::is_attached() const {
  return process_ && (!end_ || std::holds_alternative<Exited>(*end_));
}

Async<Outcome<void>> AttachedProcess::open_input() {
  if (!is_attached()) {
    // A follower may be about to attach.
    const auto pass = co_await joins_.enter();
  }
  if (!is_attached()) {
    if (auto attached = co_await attach(kFromNowOn, 0); !attached) {
      co_return attached;
    }
  }
  if (end_ && std::holds_alternative<Exited>(*end_)) {
    co_return refuse(Reason::kConflict, "process {} has ended", id_);
  }
  if (!process_->input_open()) {
    co_return refuse(Reason::kConflict, "the standard input of process {} is closed", id_);
  }
  co_return Outcome<void>();
}

Async<Outcome<void>> AttachedProcess::write(std::span<const std::byte> bytes) {
  if (auto opened = co_await open_input(); !opened) {
    co_return opened;
  }
  given_ += bytes.size();
  tail_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (tail_.size() > 2 * kTail) {
    tail_.erase(0, tail_.size() - kTail);
  }
  process_->send_input(bytes);
  while (!end_ && process_->unsent() > 0) {
    co_await changed_.wait();
  }
  const Problem* const problem = broken();
  co_return problem != nullptr ? Outcome<void>(std::unexpected(*problem)) : Outcome<void>();
}

const Problem* AttachedProcess::broken() const {
  return end_ ? std::get_if<Problem>(&*end_) : nullptr;
}

Async<Outcome<std::span<const std::byte>>> AttachedProcess::Writer::read(Exchange& exchange) {
  // As it was: another request may attach again meanwhile.
  std::optional<Problem> end;
  std::function<bool()> over = [&end, process = process_.get()] {
    if (const Problem* const problem = process->broken()) {
      end = *problem;
    }
    return end.has_value();
  };
  const auto piece = co_await read_unless(exchange, process_->changed_, std::move(over));
  co_return piece ? *piece : BodyPiece(std::unexpected(*end));
}

Async<Outcome<void>> AttachedProcess::end_input() {
  if (auto opened = co_await open_input(); !opened) {
    co_return opened;
  }
  input_ended_ = true;
  process_->end_input();
  co_return Outcome<void>();
}

// To close a connection is to drop the input that the agent has not taken, and only the answer to
// another ATTACH says what it has.
bool AttachedProcess::has_settled() const {
  return !process_ || end_ || (settled_ == given_ && (end_settled_ || !input_ended_));
}

void AttachedProcess::leave() {
  if (--users_ == 0 && !has_settled()) {
    asio::co_spawn(io_, settle(shared_from_this()), Unattended());
  }
}

// Until all is taken, or somebody else sees to it.
Async<> AttachedProcess::settle(std::shared_ptr<AttachedProcess> self) {
  Signal never;
  auto pause = kFirstLook;
  while (self->users_ == 0 && !self->has_settled()) {
    co_await never.wait(Signal::Clock::now() + pause);
    pause = std::min(2 * pause, kLastLook);
    if (self->users_ == 0 && !self->has_settled()) {
      co_await self->attach(kFromNowOn, 0);
    }
  }
}

}  // namespace msb::server::v1
