// SPDX-License-Identifier: Apache-2.0
#include "server/http_exchange.hpp"

#include <boost/asio/write.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <utility>

namespace msb::server {

namespace {

using boost::system::error_code;
using boost::system::system_error;

template <typename Body>
void set_fields(http::response<Body>& response, const HttpAnswer& answer, const std::string& id,
                const std::string& origin) {
  response.set("X-Request-Id", id);
  response.set("X-Content-Type-Options", "nosniff");
  response.set(http::field::cache_control, "no-store");
  if (!answer.type.empty()) {
    response.set(http::field::content_type, answer.type);
  }
  if (!origin.empty()) {
    response.set(http::field::access_control_allow_origin, origin);
    response.set(http::field::access_control_expose_headers,
                 "Location, Mcp-Session-Id, Retry-After, X-Request-Id");
    response.set(http::field::vary, "Origin");
  }
  for (const auto& [name, value] : answer.headers) {
    response.set(name, value);
  }
}

std::unexpected<Problem> too_large(std::size_t limit) {
  return refuse(Reason::kTooLarge, "the body has more than {} bytes", limit);
}
void check(const error_code& error) {
  if (error) {
    throw system_error(error);
  }
}

}  // namespace

HttpExchange::HttpExchange(beast::tcp_stream& stream, beast::flat_buffer& buffer,
                           RequestParser& parser, const HttpLimits& limits, RequestLine line,
                           std::string id)
    : stream_(stream),
      buffer_(buffer),
      parser_(parser),
      limits_(limits),
      line_(std::move(line)),
      id_(std::move(id)),
      keep_alive_(parser.get().keep_alive()),
      head_only_(parser.get().method() == http::verb::head) {}

std::string_view HttpExchange::header(std::string_view name) const {
  const auto found = parser_.get().find(boost::string_view(name.data(), name.size()));
  return found == parser_.get().end() ? std::string_view() : view(found->value());
}

Async<Outcome<std::string>> HttpExchange::body(std::size_t limit) {
  std::string whole;
  const auto length = parser_.content_length();
  if (length && *length > limit) {
    co_return too_large(limit);
  }
  while (true) {
    const auto piece = co_await read();
    if (!piece) {
      co_return std::unexpected(piece.error());
    }
    if (piece->empty()) {
      co_return whole;
    }
    if (whole.size() + piece->size() > limit) {
      co_return too_large(limit);
    }
    whole.append(reinterpret_cast<const char*>(piece->data()), piece->size());
  }
}

Async<Outcome<std::span<const std::byte>>> HttpExchange::read() {
  co_await invite();
  std::size_t length = 0;
  while (length == 0 && !parser_.is_done()) {
    if (!piece_) {
      piece_ = std::make_unique<std::array<std::byte, kPiece>>();
    }
    auto& body = parser_.get().body();
    body.data = piece_->data();
    body.size = piece_->size();
    stream_.expires_after(limits_.body_patience);
    error_code error;
    co_await http::async_read_some(stream_, buffer_, parser_, into(error));
    length = piece_->size() - body.size;
    if (error && error != http::error::need_buffer) {
      keep_alive_ = false;
      co_return refuse(error == beast::error::timeout ? Reason::kSlow : Reason::kInvalid,
                       "the body did not come as it was announced: {}", error.message());
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
  status_ = head.status;
  http::response<http::empty_body> response{static_cast<http::status>(head.status),
                                            parser_.get().version()};
  set_fields(response, head, id_, origin_);
  chunked_ = parser_.get().version() >= 11;
  keep_alive_ = keep_alive_ && chunked_ && parser_.is_done();
  response.keep_alive(keep_alive_);
  if (chunked_) {
    response.chunked(true);
  }
  http::response_serializer<http::empty_body> serializer(response);
  error_code error;
  stream_.expires_after(limits_.write_patience);
  co_await http::async_write_header(stream_, serializer, into(error));
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
  // What is no HTTP has no body that one could pass over.
  if (parser_.is_header_done() && !parser_.is_done()) {
    co_await pass_over();
  }
  http::response<http::string_body> response{static_cast<http::status>(answer_->status),
                                             parser_.get().version()};
  set_fields(response, *answer_, id_, origin_);
  response.keep_alive(keep_alive_);
  status_ = answer_->status;
  constexpr unsigned kNoContent = 204;
  if (status_ == kNoContent) {
    response.erase(http::field::content_type);
  } else {
    response.content_length(answer_->body.size());
  }
  if (!head_only_) {
    sent_ = answer_->body.size();
    response.body() = std::move(answer_->body);
  }
  error_code error;
  http::response_serializer<http::string_body> serializer(response);
  if (head_only_) {
    stream_.expires_after(limits_.write_patience);
    co_await http::async_write_header(stream_, serializer, into(error));
    check(error);
    co_return keep_alive_;
  }
  // Mostly the socket takes all of it at once.
  while (!error && !serializer.is_done()) {
    http::write_some(stream_.socket(), serializer, error);
  }
  if (error == asio::error::would_block) {
    error = {};
    stream_.expires_after(limits_.write_patience);
    co_await http::async_write(stream_, serializer, into(error));
  }
  check(error);
  co_return keep_alive_;
}

// RFC 9110 section 10.1.1.
Async<> HttpExchange::invite() {
  if (std::exchange(invited_, true) ||
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

// The rest of a body that the answer did not wait for.
Async<> HttpExchange::pass_over() {
  const auto left = parser_.content_length_remaining();
  if (!left || *left > kMaxUnread || !keep_alive_ || !invited_) {
    // A client that waits for an invitation will not send it.
    keep_alive_ =
        keep_alive_ && left && *left <= kMaxUnread && parser_.get()[http::field::expect].empty();
    if (!keep_alive_) {
      co_return;
    }
  }
  invited_ = true;
  while (!parser_.is_done()) {
    if (const auto piece = co_await read(); !piece) {
      co_return;
    }
  }
}

}  // namespace msb::server
