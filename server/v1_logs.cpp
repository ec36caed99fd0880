// SPDX-License-Identifier: Apache-2.0
// What a sandbox's own command wrote, as it is kept and as it comes.
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "sandbox/log_file.hpp"
#include "server/client_spec.hpp"
#include "server/v1.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {

namespace {

using sandbox::LogLine;
using sandbox::LogReader;
using sandbox::LogStream;

// Of a log, at once.
constexpr std::uint64_t kLogPiece = std::uint64_t{256} << 10;
// How often one looks whether the sandbox has ended; and for more in its log, when the host has no
// watch left to tell of it.
constexpr std::chrono::milliseconds kLookForEnd{1000};
constexpr std::chrono::milliseconds kLookForLines{250};

// Tells of more in a log, and of a new one in its place.
class LogWatch {
 public:
  LogWatch(asio::io_context& io, const sandbox::StateDirectory& directory)
      : state_(std::make_shared<State>(io)), log_(directory.log()) {
    Fd events(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    boost::system::error_code error;
    if (events) {
      state_->events.assign(events.get(), error);
    }
    if (!events || error) {
      return;
    }
    ::inotify_add_watch(events.release(), directory.path().c_str(), IN_CREATE | IN_MOVED_TO);
    renew();
  }
  LogWatch(const LogWatch&) = delete;
  LogWatch& operator=(const LogWatch&) = delete;
  ~LogWatch() {
    boost::system::error_code ignored;
    state_->events.close(ignored);
  }

  // To be called before one looks: what happens from here on is told.
  void renew() {
    if (!state_->events.is_open()) {
      return;
    }
    std::array<char, 4096> events;
    while (::read(state_->events.native_handle(), events.data(), events.size()) > 0) {
    }
    // What has the name now; when nothing has, the directory tells when something does.
    ::inotify_add_watch(state_->events.native_handle(), log_.c_str(), IN_MODIFY | IN_DONT_FOLLOW);
    state_->told = false;
    if (!std::exchange(state_->waiting, true)) {
      state_->events.async_wait(asio::posix::stream_descriptor::wait_read,
                                [state = state_](const boost::system::error_code& /*error*/) {
                                  state->waiting = false;
                                  state->told = true;
                                  state->changed.notify();
                                });
    }
  }

  // Until it tells, or it is time to look anyway; or `stop` is notified.
  Async<> wait(Signal& stop) {
    const auto interval = state_->events.is_open() ? kLookForEnd : kLookForLines;
    if (!state_->told) {
      co_await Signal::wait_for_either(state_->changed, stop, Signal::Clock::now() + interval);
    }
  }

 private:
  struct State {
    explicit State(asio::io_context& io) : events(io) {}
    asio::posix::stream_descriptor events;
    bool waiting = false;
    bool told = false;
    Signal changed;
  };
  std::shared_ptr<State> state_;
  std::string log_;
};

// Some lines of a log; `all`: up to its end as it was when they were read.
struct LogPiece {
  std::vector<LogLine> lines;
  bool all = true;
};

// A log that need not be there yet. One piece at a time, by a worker.
class LogSource {
 public:
  LogSource(std::string path, std::optional<std::uint64_t> tail)
      : reader_(std::move(path)), tail_(tail) {}

  Outcome<LogPiece> read() {
    if (!open_) {
      const auto opened = reader_.open(tail_);
      if (!opened) {
        return refuse(Reason::kInternal, opened.error());
      }
      open_ = *opened;
    }
    LogPiece piece;
    if (open_) {
      const auto all = reader_.read_some(
          [&piece](const LogLine& line) -> Result<void> {
            piece.lines.push_back(line);
            return {};
          },
          kLogPiece);
      if (!all) {
        return refuse(Reason::kInternal, all.error());
      }
      piece.all = *all;
    }
    return piece;
  }

 private:
  LogReader reader_;
  std::optional<std::uint64_t> tail_;
  bool open_ = false;
};

Async<Outcome<LogPiece>> read_piece(Workers& workers, std::shared_ptr<LogSource> source) {
  const auto work = [source] { return source->read(); };
  co_return co_await workers.run(work);
}

Async<> send_lines(EventStream& stream, std::vector<LogLine> lines) {
  for (LogLine& line : lines) {
    Json event = {{"event", "log"},
                  {"time", format_time(line.time_ms)},
                  {"stream", line.stream == LogStream::kOutput ? "stdout" : "stderr"},
                  {"text", std::move(line.text)}};
    co_await stream.send(std::move(event));
  }
}

// Sends what is in the log, and, with a watch, what comes, until the sandbox has ended or the
// server is about to: the last event says so.
Async<> send_log(App& app, Served served, std::shared_ptr<LogSource> source, LogPiece piece,
                 LogWatch* watch, EventStream& stream) {
  bool over = watch == nullptr;
  while (true) {
    const bool nothing = piece.lines.empty() && piece.all;
    co_await send_lines(stream, std::move(piece.lines));
    if (over && piece.all) {
      Json last = {{"event", "end"}, {"state", stage_word(served->stage)}};
      co_return co_await stream.send(std::move(last));
    }
    if (nothing && app.draining) {
      co_return co_await stream.send_failure(about_to_end());
    }
    if (nothing) {
      co_await watch->wait(app.drain);
    }
    if (watch != nullptr) {
      // In this order: nothing is written any more once it has ended.
      watch->renew();
      over = served->stage == Stage::kStopped;
    }
    auto next = co_await read_piece(app.sandboxes.workers(), source);
    if (!next) {
      co_return co_await stream.send_failure(next.error());
    }
    piece = std::move(*next);
  }
}

}  // namespace

Async<Outcome<HttpAnswer>> get_logs(Call& call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  std::optional<std::uint64_t> tail;
  if (call.query.contains("tail")) {
    tail = call.query.value("tail", std::uint64_t{0});
  }
  std::optional<LogWatch> watch;
  if (call.query.value("follow", false)) {
    watch.emplace(call.app.io, (*served)->directory);
  }
  const auto source = std::make_shared<LogSource>((*served)->directory.log(), tail);
  // A log that cannot be read is an answer of its own.
  auto first = co_await read_piece(call.app.sandboxes.workers(), source);
  if (!first) {
    co_return std::unexpected(first.error());
  }
  const auto format = stream_format(call.exchange.header("Accept"));
  EventStream stream(call.exchange, format.value_or(StreamFormat::kLines));
  co_await stream.begin();
  LogWatch* const followed = watch ? &*watch : nullptr;
  co_await send_log(call.app, *served, source, std::move(*first), followed, stream);
  co_await stream.end();
  co_return HttpAnswer{};
}

}  // namespace msb::server::v1
