// SPDX-License-Identifier: Apache-2.0
// A request and its answer over a connection of HTTP/1.1, by Boost.Beast.
#pragma once

#include <array>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/exchange.hpp"
#include "server/http_server.hpp"

namespace msb::server {

namespace beast = boost::beast;
namespace http = boost::beast::http;

using RequestParser = http::request_parser<http::buffer_body>;

// A completion that leaves its error in `error` instead of throwing it.
inline asio::redirect_error_t<asio::use_awaitable_t<>> into(boost::system::error_code& error) {
  return asio::redirect_error(asio::use_awaitable, error);
}

inline std::string_view view(boost::string_view text) {
  return {text.data(), text.size()};
}

// Of a body that nobody read, so much is passed over to keep the connection.
inline constexpr std::uint64_t kMaxUnread = std::uint64_t{64} * 1024;

class HttpExchange final : public Exchange {
 public:
  // All but `line` and `id` must outlive it. The head has been read into `parser`.
  HttpExchange(beast::tcp_stream& stream, beast::flat_buffer& buffer, RequestParser& parser,
               const HttpLimits& limits, RequestLine line, std::string id);

  [[nodiscard]] const RequestLine& line() const override { return line_; }
  [[nodiscard]] std::string_view header(std::string_view name) const override;
  [[nodiscard]] const std::string& id() const override { return id_; }
  Async<Outcome<std::string>> body(std::size_t limit) override;
  Async<Outcome<std::span<const std::byte>>> read() override;
  void answer(HttpAnswer answer) override;
  Async<> begin(HttpAnswer head) override;
  Async<> write(std::string_view piece) override;
  Async<> end() override;
  [[nodiscard]] bool begun() const override { return begun_; }

  // What is left to do after the handler. Whether the connection goes on.
  Async<bool> finish();
  // Lets pages of that origin read the answer (Fetch, section 3.2.3).
  void allow_origin(std::string origin) { origin_ = std::move(origin); }
  void close_afterwards() { keep_alive_ = false; }

  // For the log: the answer's status, 0 without one, and the bytes of both bodies.
  [[nodiscard]] unsigned status() const { return status_; }
  [[nodiscard]] std::uint64_t received() const { return received_; }
  [[nodiscard]] std::uint64_t sent() const { return sent_; }

 private:
  static constexpr std::size_t kPiece = std::size_t{64} * 1024;

  Async<> invite();
  Async<> pass_over();

  beast::tcp_stream& stream_;
  beast::flat_buffer& buffer_;
  RequestParser& parser_;
  const HttpLimits& limits_;
  const RequestLine line_;
  const std::string id_;
  std::string origin_;  // that may read the answer; or empty
  std::unique_ptr<std::array<std::byte, kPiece>> piece_;
  std::optional<HttpAnswer> answer_;
  bool keep_alive_;
  const bool head_only_;
  bool invited_ = false;
  bool begun_ = false;
  bool chunked_ = false;
  bool ended_ = false;
  unsigned status_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t sent_ = 0;
};

}  // namespace msb::server
