// SPDX-License-Identifier: Apache-2.0
#include "server/http_exchange.hpp"

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/status.hpp>
#include <ctime>
#include <initializer_list>
#include <iterator>
#include <utility>

namespace msb::server {

namespace {

using boost::system::error_code;
using boost::system::system_error;

// So long the rest of a body that nobody reads is waited for before the answer.
constexpr std::chrono::seconds kPassPatience{2};

std::unexpected<Problem> too_large(std::size_t limit) {
  return refuse(Reason::kTooLarge, "the body has more than {} bytes", limit);
}

std::unexpected<Problem> too_many(std::size_t most) {
  return std::unexpected(
      Problem{Reason::kFull,
              fmt::format("the server holds {} MiB of requests already; send this one again later",
                          most >> 20),
              1});
}

std::unexpected<Problem> broken(std::string_view why) {
  return refuse(Reason::kInvalid, "the body did not come as it was announced: {}", why);
}

std::unexpected<Problem> too_slow(std::chrono::seconds patience, bool whole) {
  return refuse(Reason::kSlow, "the body did not come as it was announced: {} {} s",
                whole ? "it was not whole after" : "no more of it came for", patience.count());
}

void check(const error_code& error) {
  if (error) {
    throw system_error(error);
  }
}

// What one call of receive() waits for. Apart from it, for the socket calls back also when it has
// left.
struct Readable {
  bool come = false;
  Signal changed;
  asio::cancellation_signal stop;
};

// Whether there is something to read before `deadline`.
Async<bool> await_readable(asio::ip::tcp::socket& socket, Signal::Clock::time_point deadline) {
  const auto readable = std::make_shared<Readable>();
  const auto note = [readable](const error_code& /*error*/) {
    readable->come = true;  // reading says what the error is
    readable->changed.notify();
  };
  socket.async_wait(asio::ip::tcp::socket::wait_read,
                    asio::bind_cancellation_slot(readable->stop.slot(), note));
  struct Leave {
    Readable& what;
    ~Leave() {
      if (!what.come) {
        what.stop.emit(asio::cancellation_type::terminal);
      }
    }
  };
  const Leave leave{*readable};
  bool notified = true;
  while (!readable->come && notified) {
    notified = co_await readable->changed.wait(deadline);
  }
  co_return readable->come;
}

}  // namespace

Async<error_code> receive(asio::ip::tcp::socket& socket, beast::flat_buffer& buffer,
                          std::size_t most, Signal::Clock::time_point deadline) {
  error_code error;
  std::size_t length = socket.read_some(buffer.prepare(most), error);
  while (error == asio::error::would_block) {
    const bool come = co_await await_readable(socket, deadline);
    if (!come) {
      co_return asio::error::timed_out;
    }
    length = socket.read_some(buffer.prepare(most), error);
  }
  buffer.commit(length);
  // Others have their turn, also where a client sends faster than this reads.
  co_await asio::post(asio::use_awaitable);
  co_return error;
}

std::string_view http_date() {
  static std::time_t when = 0;
  static std::array<char, sizeof("Sun, 06 Nov 1994 08:49:37 GMT")> text;
  if (const std::time_t now = std::time(nullptr); now != when) {
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    when = now;
  }
  return {text.data(), text.size() - 1};
}

HttpExchange::HttpExchange(beast::tcp_stream& stream, beast::flat_buffer& buffer,
                           RequestParser& parser, const HttpLimits& limits,
                           std::size_t& whole_bodies, RequestLine line, std::string id)
    : stream_(stream),
      buffer_(buffer),
      parser_(parser),
      reader_(parser, limits.header_bytes),
      limits_(limits),
      whole_bodies_(whole_bodies),
      line_(std::move(line)),
      id_(std::move(id)),
      keep_alive_(parser.get().keep_alive()),
      head_only_(parser.get().method() == http::verb::head) {}

std::string_view HttpExchange::header(std::string_view name) const {
  const auto found = parser_.get().find(boost::string_view(name.data(), name.size()));
  return found == parser_.get().end() ? std::string_view() : view(found->value());
}

bool HttpExchange::has_repeated(std::string_view name) const {
  return parser_.get().count(boost::string_view(name.data(), name.size())) > 1;
}

Async<Outcome<std::string>> HttpExchange::body(std::size_t limit) {
  const auto end = Signal::Clock::now() + limits_.whole_body_patience;
  std::string whole;
  const auto length = reader_.left();
  if (length && *length > limit) {
    co_return too_large(limit);
  }
  while (true) {
    const auto piece = co_await read_before(end);
    if (!piece) {
      co_return std::unexpected(piece.error());
    }
    if (piece->empty()) {
      co_return whole;
    }
    if (whole.size() + piece->size() > limit) {
      co_return too_large(limit);
    }
    if (!hold(whole.size() + piece->size())) {
      co_return too_many(limits_.whole_bodies);
    }
    whole.append(reinterpret_cast<const char*>(piece->data()), piece->size());
  }
}

// Counts `size` bytes of the body as held, as far as they are many. False when there is no room.
bool HttpExchange::hold(std::size_t size) {
  const std::size_t more = size - std::min(size, limits_.small_body + held_);
  if (more > limits_.whole_bodies - whole_bodies_) {
    return false;
  }
  whole_bodies_ += more;
  held_ += more;
  return true;
}

Async<Outcome<std::span<const std::byte>>> HttpExchange::read() {
  return read_before(Signal::Clock::time_point::max());
}

Async<Outcome<std::span<const std::byte>>> HttpExchange::read_before(
    Signal::Clock::time_point end) {
  co_await invite();
  const auto begun = Signal::Clock::now();
  const auto deadline = std::min(begun + limits_.body_patience, end);
  const bool whole = deadline == end;
  std::size_t length = 0;
  while (length == 0 && !reader_.done()) {
    if (!piece_) {
      piece_ = std::make_unique<std::array<std::byte, kPiece>>();
    }
    const auto taken = reader_.take(text_of(buffer_), *piece_);
    if (!taken) {
      keep_alive_ = false;
      co_return std::unexpected(taken.error());
    }
    buffer_.consume(taken->bytes);
    length = taken->length;
    if (length > 0 || reader_.done()) {
      break;
    }
    error_code error = asio::error::timed_out;
    if (begun < end) {
      error = co_await receive(stream_.socket(), buffer_, limits_.header_bytes, deadline);
    }
    if (error) {
      keep_alive_ = false;
    }
    if (error == asio::error::timed_out) {
      co_return too_slow(whole ? limits_.whole_body_patience : limits_.body_patience, whole);
    }
    if (error) {
      co_return broken(error.message());
    }
  }
  received_ += length;
  co_return std::span<const std::byte>(length > 0 ? piece_->data() : nullptr, length);
}

void HttpExchange::answer(HttpAnswer answer) {
  answer_ = std::move(answer);
  begun_ = true;
}

Async<> HttpExchange::begin(HttpAnswer head) {
  begun_ = true;
  invited_ = true;  // an answer is under way: it is too late for another one
  status_ = head.status;
  chunked_ = parser_.get().version() >= 11;
  keep_alive_ = keep_alive_ && chunked_ && reader_.done();
  const std::string text = head_of(head, chunked_ ? "Transfer-Encoding: chunked\r\n" : "");
  error_code error;
  stream_.expires_after(limits_.write_patience);
  co_await asio::async_write(stream_, asio::buffer(text), into(error));
  check(error);
}

Async<> HttpExchange::write(std::string_view piece) {
  if (piece.empty() || head_only_) {
    co_return;  // an empty chunk would be the last one
  }
  sent_ += piece.size();
  error_code error;
  stream_.expires_after(limits_.write_patience);
  const asio::const_buffer bytes(piece.data(), piece.size());
  if (chunked_) {
    co_await asio::async_write(stream_, http::make_chunk(bytes), into(error));
  } else {
    co_await asio::async_write(stream_, bytes, into(error));
  }
  check(error);
}

Async<> HttpExchange::end() {
  if (chunked_ && !head_only_) {
    error_code error;
    stream_.expires_after(limits_.write_patience);
    co_await asio::async_write(stream_, http::make_chunk_last(), into(error));
    check(error);
  }
  ended_ = true;
}

Async<bool> HttpExchange::finish() {
  if (!answer_) {
    co_return ended_&& keep_alive_;
  }
  if (!reader_.done()) {
    co_await pass_over();
  }
  status_ = answer_->status;
  constexpr unsigned kNoContent = 204;
  std::string length;
  if (status_ == kNoContent) {
    answer_->type.clear();
  } else {
    length = fmt::format("Content-Length: {}\r\n", answer_->body.size());
  }
  const std::string head = head_of(*answer_, length);
  if (head_only_) {
    answer_->body.clear();
  }
  sent_ = answer_->body.size();
  std::array<asio::const_buffer, 2> left = {asio::buffer(head), asio::buffer(answer_->body)};
  // Mostly the socket takes all of it at once.
  error_code error;
  const std::size_t taken = stream_.socket().write_some(left, error);
  if (error == asio::error::would_block) {
    error = {};
  }
  if (!error && taken < head.size() + sent_) {
    left[0] += taken;
    left[1] += taken - std::min(taken, head.size());
    stream_.expires_after(limits_.write_patience);
    co_await asio::async_write(stream_, left, into(error));
  }
  check(error);
  co_return keep_alive_;
}

std::string HttpExchange::head_of(const HttpAnswer& answer, std::string_view framing) const {
  constexpr std::size_t kUsual = 512;
  std::string text;
  text.reserve(kUsual);
  const auto add = [&text](std::initializer_list<std::string_view> pieces) {
    for (const std::string_view piece : pieces) {
      text += piece;
    }
  };
  const auto reason = view(http::obsolete_reason(static_cast<http::status>(answer.status)));
  fmt::format_to(std::back_inserter(text), "HTTP/1.1 {} {}\r\n", answer.status, reason);
  add({"Date: ", http_date(), "\r\nX-Request-Id: ", id_,
       "\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"});
  if (!answer.type.empty()) {
    add({"Content-Type: ", answer.type, "\r\n"});
  }
  if (!origin_.empty()) {
    add({"Access-Control-Allow-Origin: ", origin_,
         "\r\nAccess-Control-Expose-Headers: Location, Mcp-Session-Id, Retry-After, X-Request-Id"
         "\r\nVary: Origin\r\n"});
  }
  for (const auto& [name, value] : answer.headers) {
    add({name, ": ", value, "\r\n"});
  }
  // Of HTTP/1.0 it has to be said when the connection stays, of HTTP/1.1 when it does not.
  if (!keep_alive_) {
    add({"Connection: close\r\n"});
  } else if (parser_.get().version() < 11) {
    add({"Connection: keep-alive\r\n"});
  }
  add({framing, "\r\n"});
  return text;
}

// RFC 9110 section 10.1.1: neither HTTP/1.0 nor a request without a body knows of it.
Async<> HttpExchange::invite() {
  if (std::exchange(invited_, true) || reader_.done() || parser_.get().version() < 11 ||
      !beast::iequals(parser_.get()[http::field::expect], "100-continue")) {
    co_return;
  }
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  error_code error;
  stream_.expires_after(limits_.write_patience);
  co_await asio::async_write(stream_, asio::const_buffer(kContinue.data(), kContinue.size()),
                             into(error));
  check(error);
}

// The rest of a body that the answer did not wait for, if it is on its way.
Async<> HttpExchange::pass_over() {
  const auto left = reader_.left();
  if (!left || *left > kMaxUnread || !keep_alive_ || !invited_) {
    // A client that waits for an invitation will not send it.
    keep_alive_ =
        keep_alive_ && left && *left <= kMaxUnread && parser_.get()[http::field::expect].empty();
    if (!keep_alive_) {
      co_return;
    }
  }
  invited_ = true;
  const auto end = Signal::Clock::now() + kPassPatience;
  while (!reader_.done()) {
    if (const auto piece = co_await read_before(end); !piece) {
      co_return;
    }
  }
}

}  // namespace msb::server
