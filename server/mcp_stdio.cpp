// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_stdio.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/signal_set.hpp>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <memory>
#include <utility>

#include "base/fd.hpp"
#include "server/mcp.hpp"
#include "server/mcp_era.hpp"

namespace msb::server {

namespace {

// For requests to end by themselves, once no more come.
constexpr std::chrono::seconds kEndPatience{10};
constexpr std::size_t kPiece = std::size_t{64} << 10;

// Whether epoll(7) takes it: regular files and /dev/null are none that one waits for.
bool can_be_awaited(int fd) {
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  return epoll && ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

// Standard input and output. They are shared with whoever started us, so they stay in the mode that
// they have, which mostly is the blocking one.
class Stdio {
 public:
  // `broke`: notified when nobody reads any more.
  Stdio(App& app, Signal& broke)
      : app_(app),
        broke_(broke),
        input_awaited_(can_be_awaited(STDIN_FILENO)),
        output_awaited_(can_be_awaited(STDOUT_FILENO)) {}

  // The next bytes; none at the end, which an error is, too.
  Async<std::string> read() {
    std::string bytes(kPiece, '\0');
    ssize_t length = 0;
    if (input_awaited_) {
      do {
        co_await app_.sandboxes.guests().await_events(STDIN_FILENO, POLLIN);
        length = ::read(STDIN_FILENO, bytes.data(), bytes.size());
      } while (length < 0 && (errno == EINTR || errno == EAGAIN));
    } else {
      const auto shared = std::make_shared<std::string>(std::move(bytes));
      const auto work = [shared] { return ::read(STDIN_FILENO, shared->data(), shared->size()); };
      length = co_await app_.sandboxes.workers().run(work);
      bytes = std::move(*shared);
    }
    bytes.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
    co_return bytes;
  }

  // One message, as a line of its own.
  Async<> write(Json message) {
    const auto pass = co_await writing_.enter();
    const std::string line = to_text(message) + "\n";
    std::string_view rest = line;
    while (!rest.empty() && !broken_) {
      if (output_awaited_) {
        co_await app_.sandboxes.guests().await_events(STDOUT_FILENO, POLLOUT);
      }
      // A pipe that can be written to has room for so much (pipe(7)).
      const std::size_t size =
          output_awaited_ ? std::min<std::size_t>(rest.size(), PIPE_BUF) : rest.size();
      const ssize_t written = ::write(STDOUT_FILENO, rest.data(), size);
      rest.remove_prefix(written > 0 ? static_cast<std::size_t>(written) : 0);
      if (written < 0 && errno != EINTR && errno != EAGAIN) {
        broken_ = true;
        broke_.notify();
      }
    }
  }

  [[nodiscard]] bool broken() const { return broken_; }

 private:
  App& app_;
  Signal& broke_;
  const bool input_awaited_;
  const bool output_awaited_;
  bool broken_ = false;
  Gate writing_;
};

// What the parts of a conversation share.
struct Conversation {
  Conversation(App& app, Key its)
      : key(std::move(its)), stdio(app, changed), session(app, new_session_id()) {}

  const Key key;
  Signal changed;
  Stdio stdio;
  McpSession session;
  std::size_t answering = 0;
  bool ended = false;              // no more is read
  bool stopped = false;            // by a signal
  asio::cancellation_signal stop;  // of what reads

  // Whether there is no time for requests that are under way.
  [[nodiscard]] bool hurries() const { return stopped || stdio.broken(); }
};
using Shared = std::shared_ptr<Conversation>;

// While the client is being answered, however that ends.
struct Answering {
  explicit Answering(Shared of) : conversation(std::move(of)) { ++conversation->answering; }
  Answering(const Answering&) = delete;
  Answering& operator=(const Answering&) = delete;
  ~Answering() {
    --conversation->answering;
    conversation->changed.notify();
  }
  Shared conversation;
};

Async<> answer(Shared conversation, McpCall call) {
  const Answering answering(conversation);
  while (!call.over()) {
    const bool come = co_await call.wait();
    if (!come) {
      break;
    }
    if (auto message = call.take()) {
      co_await conversation->stdio.write(std::move(*message));
    }
  }
}

std::expected<McpMessage, BadMessage> read_line(const MessageLines::Line& line) {
  if (!line.too_long) {
    return read_message(line.text);
  }
  BadMessage bad;
  bad.error = {
      McpCode::kInvalidRequest,
      {Reason::kTooLarge, fmt::format("a message has at most {} MiB", MessageLines::kLongest >> 20),
       std::nullopt}};
  return std::unexpected(std::move(bad));
}

std::expected<McpCall, McpError> begin_call(Conversation& conversation, McpMessage request) {
  auto era = judge_era(request, nullptr);
  if (!era) {
    return std::unexpected(std::move(era.error()));
  }
  return conversation.session.begin(conversation.key, std::move(request), *era);
}

Async<> take_line(Shared conversation, MessageLines::Line line) {
  auto message = read_line(line);
  if (!message) {
    Json response =
        response_message(message.error().id, std::unexpected(std::move(message.error().error)));
    co_await conversation->stdio.write(std::move(response));
    co_return;
  }
  if (message->kind != McpMessage::Kind::kRequest) {
    conversation->session.notify(*message);
    co_return;
  }
  const Json id = message->id;
  auto call = begin_call(*conversation, std::move(*message));
  if (!call) {
    Json response = response_message(id, std::unexpected(std::move(call.error())));
    co_await conversation->stdio.write(std::move(response));
    co_return;
  }
  const auto executor = co_await asio::this_coro::executor;
  asio::co_spawn(executor, answer(conversation, std::move(*call)), Unattended());
}

Async<> read_all(Shared conversation) {
  MessageLines lines;
  std::string bytes;
  do {
    bytes = co_await conversation->stdio.read();
    lines.add(bytes);
    auto line = bytes.empty() ? lines.finish() : lines.next();
    while (line) {
      if (line->too_long || !line->text.empty()) {
        co_await take_line(conversation, std::move(*line));
      }
      line = lines.next();
    }
  } while (!bytes.empty());
}

}  // namespace

Async<> serve_stdio(App& app, Key key) {
  const auto conversation = std::make_shared<Conversation>(app, std::move(key));
  asio::co_spawn(
      app.io, read_all(conversation),
      asio::bind_cancellation_slot(conversation->stop.slot(), [conversation](std::exception_ptr) {
        conversation->ended = true;
        conversation->changed.notify();
      }));
  asio::signal_set signals(app.io, SIGTERM, SIGINT);
  signals.async_wait([conversation](const boost::system::error_code& error, int) {
    if (!error) {
      conversation->stopped = true;
      conversation->changed.notify();
    }
  });
  while (!conversation->ended && !conversation->hurries()) {
    co_await conversation->changed.wait();
  }
  const auto deadline = Signal::Clock::now() + kEndPatience;
  while (conversation->answering > 0 && !conversation->hurries()) {
    const bool come = co_await conversation->changed.wait(deadline);
    if (!come) {
      break;
    }
  }
  conversation->stop.emit(asio::cancellation_type::terminal);
  co_await conversation->session.end();
}

void MessageLines::add(std::string_view bytes) {
  bytes_.erase(0, begin_);
  looked_ -= begin_;
  begin_ = 0;
  bytes_ += bytes;
}

std::optional<MessageLines::Line> MessageLines::next() {
  std::size_t end = bytes_.find('\n', looked_);
  if (passing_ && end != std::string::npos) {
    passing_ = false;
    begin_ = looked_ = end + 1;
    end = bytes_.find('\n', looked_);
  }
  if (end != std::string::npos) {
    return take(end - begin_);
  }
  looked_ = bytes_.size();
  if (!passing_ && looked_ - begin_ <= longest_) {
    return std::nullopt;
  }
  begin_ = looked_;
  return std::exchange(passing_, true) ? std::nullopt : std::optional(Line{"", true});
}

std::optional<MessageLines::Line> MessageLines::finish() {
  auto line = next();
  if (line || passing_ || begin_ == bytes_.size()) {
    return line;
  }
  bytes_.push_back('\n');
  return next();
}

MessageLines::Line MessageLines::take(std::size_t size) {
  const std::string_view text = std::string_view(bytes_).substr(begin_, size);
  begin_ = looked_ = begin_ + size + 1;
  if (size > longest_) {
    return {"", true};
  }
  return {std::string(text.substr(0, size - (text.ends_with('\r') ? 1 : 0))), false};
}

}  // namespace msb::server
