// SPDX-License-Identifier: Apache-2.0
// A request of HTTP/1.1 (RFC 9112) as its bytes come: its head, its body, and the host that it
// names. Nothing here waits or reads: who has bytes gives them, in pieces of any size, and what
// comes of them does not depend on the pieces.
#pragma once

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "server/problem.hpp"

namespace msb::server {

namespace beast = boost::beast;
namespace http = boost::beast::http;

inline std::string_view view(beast::string_view text) {
  return {text.data(), text.size()};
}

// Of heads alone: Beast wants of a body in chunks that it comes in pieces of some size.
using RequestParser = http::request_parser<http::empty_body>;

// A head that is refused, with the status of HTTP that says why.
struct BadHead {
  unsigned status = 400;
  Problem problem;
};

class HeadReader {
 public:
  // `limit`: bytes that a head may have, from the request line to the empty one. `parser` is a new
  // one, and has the head when that is whole.
  HeadReader(RequestParser& parser, std::size_t limit);

  // `bytes`: each time all that have come, from the head's first on. How many of them are the head;
  // 0 while it is not whole.
  std::expected<std::size_t, BadHead> read(std::string_view bytes);

 private:
  RequestParser& parser_;
  const std::size_t limit_;
  std::size_t line_ = 0;      // where the first line begins that is not whole
  std::size_t searched_ = 0;  // up to here there is no end of it
};

// A body whose length the head says, or one in chunks (RFC 9112 sections 6.2 and 7.1). Extensions
// of chunks and fields behind the last one are passed over: none that comes so late may become one
// by which the request was judged (RFC 9110 section 6.5.1).
class BodyReader {
 public:
  // Of the request whose head `parser` has; without a head there is no body. `limit`: bytes that a
  // body in chunks may have in extensions and in fields, all together.
  BodyReader(const RequestParser& parser, std::size_t limit);

  struct Taken {
    std::size_t bytes = 0;   // of those that were given: those behind are to be given again
    std::size_t length = 0;  // of the body's next piece
  };
  // Puts some of the body into `into`, which is not empty. When there was none in `bytes`, more
  // have to come, unless it is done.
  Outcome<Taken> take(std::string_view bytes, std::span<std::byte> into);
  [[nodiscard]] bool done() const { return state_ == State::kDone; }
  // Bytes of it that have not been taken; nothing while that is not known, as in chunks.
  [[nodiscard]] std::optional<std::uint64_t> left() const;

 private:
  enum class State : std::uint8_t { kSize, kData, kDataEnd, kFields, kDone };

  std::size_t take_data(std::string_view bytes, std::span<std::byte> into);
  // A line of what is beside the data, of `bytes` the first; 0 while it is not whole.
  Outcome<std::size_t> take_line(std::string_view bytes);
  Outcome<void> read_line(std::string_view line);

  const std::size_t limit_;
  const bool chunked_;
  State state_ = State::kDone;
  std::uint64_t left_ = 0;  // of this chunk, or of the body
  std::size_t beside_ = 0;  // bytes so far that `limit_` counts
};

// What a request's Host field says, without its port; nothing when it is none (RFC 9110 section
// 7.2).
struct HostField {
  std::string name;  // in lower case, an IPv6 address without its brackets
  bool address = false;
};
std::optional<HostField> parse_host(std::string_view field);

// The app that a Host names: "8000-web.localhost", or "8000-web.shop.localhost" of the namespace
// shop.
struct AppHost {
  std::uint16_t port = 0;
  std::string sandbox;
  std::string space;
};
std::optional<AppHost> parse_app_host(const HostField& host);

}  // namespace msb::server
