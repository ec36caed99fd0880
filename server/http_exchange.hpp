// SPDX-License-Identifier: Apache-2.0
// A request and its answer over a connection of HTTP/1.1, by Boost.Beast.
#pragma once

#include <array>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/exchange.hpp"
#include "server/http_request.hpp"
#include "server/http_server.hpp"

namespace msb::server {

// A completion that leaves its error in `error` instead of throwing it.
inline asio::redirect_error_t<asio::use_awaitable_t<>> into(boost::system::error_code& error) {
  return asio::redirect_error(asio::use_awaitable, error);
}

inline std::string_view text_of(const beast::flat_buffer& buffer) {
  return {static_cast<const char*>(buffer.data().data()), buffer.size()};
}

// Appends at most `most` bytes that the client sends, the next ones. Fails with timed_out after
// `deadline`, and the socket can be written to then as before.
Async<boost::system::error_code> receive(asio::ip::tcp::socket& socket, beast::flat_buffer& buffer,
                                         std::size_t most, Signal::Clock::time_point deadline);

// This second, as a Date field has it (RFC 9110 section 5.6.7).
std::string_view http_date();

// Of a body that nobody read, so much is passed over to keep the connection.
inline constexpr std::uint64_t kMaxUnread = std::uint64_t{64} * 1024;

class HttpExchange final : public Exchange {
 public:
  // All but `line` and `id` must outlive it. The head has been read into `parser`. `whole_bodies`:
  // bytes of all that there are, of which the body's are as long as this is there.
  HttpExchange(beast::tcp_stream& stream, beast::flat_buffer& buffer, RequestParser& parser,
               const HttpLimits& limits, std::size_t& whole_bodies, RequestLine line,
               std::string id);
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;
  ~HttpExchange() override { whole_bodies_ -= held_; }

  [[nodiscard]] const RequestLine& line() const override { return line_; }
  [[nodiscard]] std::string_view header(std::string_view name) const override;
  [[nodiscard]] bool has_repeated(std::string_view name) const override;
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

  // The head of an answer, with the fields of `framing`, which say where its body ends.
  [[nodiscard]] std::string head_of(const HttpAnswer& answer, std::string_view framing) const;
  Async<> invite();
  Async<> pass_over();
  // The same as read(), which fails after `end` also while more comes.
  Async<Outcome<std::span<const std::byte>>> read_before(Signal::Clock::time_point end);
  bool hold(std::size_t size);

  beast::tcp_stream& stream_;
  beast::flat_buffer& buffer_;
  RequestParser& parser_;
  BodyReader reader_;
  const HttpLimits& limits_;
  std::size_t& whole_bodies_;
  std::size_t held_ = 0;  // bytes that are counted there
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
