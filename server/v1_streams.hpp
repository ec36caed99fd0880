// SPDX-License-Identifier: Apache-2.0
// Streams of /v1. Answers come piece by piece as events, each a JSON object: as lines of
// application/x-ndjson or as text/event-stream (HTML, section 9.2), whichever the client accepts.
// And the streams of a process, which several requests have at the same time.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "protocol/msb_exec.h"
#include "protocol/process.hpp"
#include "server/app.hpp"
#include "server/async.hpp"
#include "server/exchange.hpp"
#include "server/guest.hpp"
#include "server/problem.hpp"
#include "server/utf8.hpp"

namespace msb::server::v1 {

enum class StreamFormat : std::uint8_t { kLines, kServerSent };

// The one of both that an Accept field (RFC 9110, section 12.5.1) names first; nothing when it
// names neither, which is to ask for one document.
std::optional<StreamFormat> stream_format(std::string_view accept);

// An event has its name as its member "event".
std::string encode_event(const Json& event, StreamFormat format);

class EventStream {
 public:
  // `exchange` must outlive it.
  EventStream(Exchange& exchange, StreamFormat format) : exchange_(exchange), format_(format) {}

  Async<> begin();
  Async<> send(Json event);
  Async<> send_all(std::vector<Json> events);
  // What ended it before its time is its last event.
  Async<> send_failure(Problem problem);
  Async<> end();

 private:
  Exchange& exchange_;
  StreamFormat format_;
};

// The next piece of the request's body, as Exchange::read() gives it; nothing when `over` holds
// before there is one, which is looked at now and when `changed` is notified. What takes a body
// learns by that of its own end while the client sends nothing.
using BodyPiece = Outcome<std::span<const std::byte>>;
Async<std::optional<BodyPiece>> read_unless(Exchange& exchange, Signal& changed,
                                            std::function<bool()> over);

// {"event": "output", "stream", "offset", "next", "text" or "base64"}: "base64" for what is not
// UTF-8. "next" is the offset to go on from. Pure.
class OutputEvents {
 public:
  // `end`: the offset behind `bytes`. None when all of it waits for the end of a character.
  std::optional<Json> add(msb_stream stream, std::span<const std::byte> bytes, std::uint64_t end);
  // What waited in vain, when nothing more comes, or not the next byte.
  std::vector<Json> rest();

 private:
  struct Stream {
    WholeCharacters text;
    std::uint64_t next = 0;
  };
  static Json event(std::size_t stream, std::string text, std::uint64_t next);

  std::array<Stream, 2> streams_;
};

// A process that requests of this server are attached to. The exec protocol gives it one
// connection, which serves all of them: one follows its output, any write its input. When the
// connection has to be replaced, for a follower who wants another part of the output, the agent
// says how much of the input it has taken by then, and gets the rest again (docs/exec-protocol.md,
// "Reattaching").
class AttachedProcess : public std::enable_shared_from_this<AttachedProcess> {
 public:
  using Offsets = std::array<std::uint64_t, MSB_STREAMS>;
  static constexpr Offsets kFromNowOn = {MSB_OFFSET_END, MSB_OFFSET_END, MSB_OFFSET_END};

  struct Output {
    msb_stream stream;
    std::vector<std::byte> bytes;
    std::uint64_t end = 0;  // the offset behind them
  };
  // What comes next is not what was asked for: the bytes between are not kept any more.
  struct Lost {
    msb_stream stream;
    std::uint64_t offset = 0;
    std::uint64_t next = 0;
  };
  struct Detached {};  // somebody else follows it now
  // Nothing comes behind the last three.
  using Event = std::variant<Output, Lost, Detached, protocol::Exited, Problem>;

  // The one of this server, which is there as long as somebody has it.
  static std::shared_ptr<AttachedProcess> of(asio::io_context& io,
                                             std::shared_ptr<const Guest> guest, std::uint32_t id);
  AttachedProcess(asio::io_context& io, std::shared_ptr<const Guest> guest, std::uint32_t id)
      : io_(io), guest_(std::move(guest)), id_(id) {}

  class Follower;
  class Writer;

 private:
  static constexpr std::size_t kHeld = std::size_t{256} << 10;  // of output, for a slow follower
  // Of input that was sent and may not have been taken: more than there is room for on the way.
  static constexpr std::size_t kTail = std::size_t{2} << 20;
  static constexpr std::chrono::seconds kPatience{20};
  static constexpr std::chrono::milliseconds kFirstLook{250};
  static constexpr std::chrono::milliseconds kLastLook{10'000};

  // Follower 0 is nobody, and what is written goes to nobody.
  Async<Outcome<void>> attach(Offsets wanted, std::uint64_t follower, bool take_over = true);
  protocol::Process::Events events(Offsets wanted, std::uint64_t follower);
  void on_attached(const msb_attached& attached, const Offsets& wanted);
  void go_on_with_input(const msb_attached& attached);
  bool on_output(msb_stream stream, std::span<const std::byte> bytes);
  void on_end(std::uint64_t connection, Event end);
  Event take();
  void stop_following(std::uint64_t follower);

  Async<Outcome<void>> open_input();
  // Why nothing can be sent to the sandbox by this connection; null while it can. Its end by
  // another one is none: what was given is given again, or the process has ended.
  [[nodiscard]] const Problem* broken() const;
  Async<Outcome<void>> write(std::span<const std::byte> bytes);
  Async<Outcome<void>> end_input();

  void enter() { ++users_; }
  void leave();
  [[nodiscard]] bool is_attached() const;
  [[nodiscard]] bool has_settled() const;
  static Async<> settle(std::shared_ptr<AttachedProcess> self);

  asio::io_context& io_;
  const std::shared_ptr<const Guest> guest_;
  const std::uint32_t id_;
  std::size_t users_ = 0;
  Signal changed_;  // any of what follows

  Gate joins_;
  std::uint64_t connections_ = 0;               // that there were
  std::unique_ptr<protocol::Process> joining_;  // has not been answered yet
  std::optional<Problem> refusal_;              // of the one before
  std::unique_ptr<protocol::Process> process_;
  std::uint64_t connection_ = 0;  // its number
  std::optional<Event> end_;      // of it

  std::uint64_t followers_ = 0;  // that there were
  std::uint64_t follower_ = 0;
  std::deque<Event> queue_;
  std::size_t held_ = 0;  // bytes of output in it
  bool paused_ = false;
  Offsets ends_{};  // of what has come

  Gate writers_;
  bool counted_ = false;       // the next two are known
  std::uint64_t given_ = 0;    // bytes of its input, ever
  std::uint64_t settled_ = 0;  // of these, taken for certain
  std::string tail_;           // of what was given
  bool input_ended_ = false;
  bool end_settled_ = false;
};

// Whoever reads its output. The one before is let go once this one is attached.
class AttachedProcess::Follower {
 public:
  explicit Follower(std::shared_ptr<AttachedProcess> process)
      : process_(std::move(process)), number_(++process_->followers_) {
    process_->enter();
  }
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;
  ~Follower() {
    process_->stop_following(number_);
    process_->leave();
  }

  // `take_over`: also from another request that follows it; else it fails then.
  Async<Outcome<void>> attach(Offsets wanted, bool take_over) {
    return process_->attach(wanted, number_, take_over);
  }
  // Nothing when the server is about to end.
  Async<std::optional<Event>> next(App& app);

 private:
  std::shared_ptr<AttachedProcess> process_;
  std::uint64_t number_;
};

// Whoever writes its input; others wait.
class AttachedProcess::Writer {
 public:
  explicit Writer(std::shared_ptr<AttachedProcess> process) : process_(std::move(process)) {
    process_->enter();
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    pass_.reset();
    process_->leave();
  }

  Async<> enter() { pass_.emplace(co_await process_->writers_.enter()); }
  // Fails when the process takes no input any more.
  Async<Outcome<void>> open() { return process_->open_input(); }
  // What of the request's body comes next. Fails also when the sandbox ends before that.
  Async<Outcome<std::span<const std::byte>>> read(Exchange& exchange);
  // Waits until they are on their way. They are there until then.
  Async<Outcome<void>> write(std::span<const std::byte> bytes) { return process_->write(bytes); }
  Async<Outcome<void>> end() { return process_->end_input(); }

 private:
  std::shared_ptr<AttachedProcess> process_;
  std::optional<Gate::Pass> pass_;
};

}  // namespace msb::server::v1
