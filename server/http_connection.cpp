// SPDX-License-Identifier: Apache-2.0
#include "server/http_connection.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <exception>
#include <memory>
#include <utility>

#include "oci/printable.hpp"
#include "server/rpc.hpp"

namespace msb::server {

namespace {

using boost::system::error_code;
using boost::system::system_error;

// Of a body that nobody read, so much is passed over to keep the connection.
constexpr std::uint64_t kMaxUnread = 64 * 1024;
constexpr std::size_t kPiece = 64 * 1024;
// How long a client has to read an answer behind which the connection is closed.
constexpr std::chrono::seconds kLinger{2};

asio::redirect_error_t<asio::use_awaitable_t<>> into(error_code& error) {
  return asio::redirect_error(asio::use_awaitable, error);
}

std::string_view view(boost::string_view text) {
  return {text.data(), text.size()};
}

// What makes two readers of one request disagree about where it ends (RFC 9112 section 11.2) is
// refused, also where one reading would be right.
Outcome<void> check_framing(const RequestParser& parser) {
  const auto& request = parser.get();
  const auto version = request.version();
  if (version != 10 && version != 11) {
    return refuse(Reason::kInvalid, "this server speaks HTTP/1.1");
  }
  if (request.count(http::field::host) > 1 ||
      (version == 11 && request.count(http::field::host) != 1)) {
    return refuse(Reason::kInvalid, "a request has one Host field");
  }
  const auto lengths = request.count(http::field::content_length);
  const auto encodings = request.count(http::field::transfer_encoding);
  if (lengths + encodings > 1 ||
      (encodings == 1 &&
       (version != 11 || !beast::iequals(request[http::field::transfer_encoding], "chunked")))) {
    return refuse(Reason::kInvalid,
                  "a request's length is said once: by Content-Length, or by Transfer-Encoding: "
                  "chunked");
  }
  return {};
}

template <typename Body>
void set_fields(http::response<Body>& response, const HttpAnswer& answer, const std::string& id) {
  response.set("X-Request-Id", id);
  response.set("X-Content-Type-Options", "nosniff");
  response.set(http::field::cache_control, "no-store");
  if (!answer.type.empty()) {
    response.set(http::field::content_type, answer.type);
  }
  for (const auto& [name, value] : answer.headers) {
    response.set(name, value);
  }
}

class HttpExchange final : public Exchange {
 public:
  HttpExchange(beast::tcp_stream& stream, beast::flat_buffer& buffer, RequestParser& parser,
               const HttpLimits& limits, RequestLine line, std::string id)
      : stream_(stream),
        buffer_(buffer),
        parser_(parser),
        limits_(limits),
        line_(std::move(line)),
        id_(std::move(id)),
        keep_alive_(parser.get().keep_alive()),
        head_only_(parser.get().method() == http::verb::head) {}

  [[nodiscard]] const RequestLine& line() const override { return line_; }
  [[nodiscard]] std::string_view header(std::string_view name) const override {
    const auto found = parser_.get().find(boost::string_view(name.data(), name.size()));
    return found == parser_.get().end() ? std::string_view() : view(found->value());
  }
  [[nodiscard]] const std::string& id() const override { return id_; }

  Async<Outcome<std::string>> body(std::size_t limit) override {
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

  Async<Outcome<std::span<const std::byte>>> read() override {
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

  void answer(HttpAnswer answer) override {
    answer_ = std::move(answer);
    begun_ = true;
  }

  Async<> begin(HttpAnswer head) override {
    begun_ = true;
    status_ = head.status;
    http::response<http::empty_body> response{static_cast<http::status>(head.status),
                                              parser_.get().version()};
    set_fields(response, head, id_);
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

  Async<> write(std::string_view piece) override {
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

  Async<> end() override {
    if (chunked_ && !head_only_) {
      error_code error;
      stream_.expires_after(limits_.write_patience);
      co_await asio::async_write(stream_, http::make_chunk_last(), into(error));
      check(error);
    }
    ended_ = true;
  }

  [[nodiscard]] bool begun() const override { return begun_; }

  // What is left to do after the handler. Whether the connection goes on.
  Async<bool> finish() {
    if (!answer_) {
      co_return ended_&& keep_alive_;
    }
    if (!parser_.is_done()) {
      co_await pass_over();
    }
    http::response<http::string_body> response{static_cast<http::status>(answer_->status),
                                               parser_.get().version()};
    set_fields(response, *answer_, id_);
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
    stream_.expires_after(limits_.write_patience);
    http::response_serializer<http::string_body> serializer(response);
    if (head_only_) {
      co_await http::async_write_header(stream_, serializer, into(error));
    } else {
      co_await http::async_write(stream_, serializer, into(error));
    }
    check(error);
    co_return keep_alive_;
  }

  void add_header(std::string name, std::string value) {
    if (answer_) {
      answer_->headers.emplace_back(std::move(name), std::move(value));
    }
  }
  void close_afterwards() { keep_alive_ = false; }

  [[nodiscard]] unsigned status() const { return status_; }
  [[nodiscard]] std::uint64_t received() const { return received_; }
  [[nodiscard]] std::uint64_t sent() const { return sent_; }

 private:
  static std::unexpected<Problem> too_large(std::size_t limit) {
    return refuse(Reason::kTooLarge, "the body has more than {} bytes", limit);
  }
  static void check(const error_code& error) {
    if (error) {
      throw system_error(error);
    }
  }

  // RFC 9110 section 10.1.1.
  Async<> invite() {
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
  Async<> pass_over() {
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

  beast::tcp_stream& stream_;
  beast::flat_buffer& buffer_;
  RequestParser& parser_;
  const HttpLimits& limits_;
  const RequestLine line_;
  const std::string id_;
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

std::string request_id(std::uint64_t number) {
  static const std::uint32_t start = static_cast<std::uint32_t>(
      std::chrono::system_clock::now().time_since_epoch() / std::chrono::milliseconds(1));
  return fmt::format("{:08x}{:08x}", start, number);
}

bool is_health(const RequestLine& line) {
  return (line.method == "GET" || line.method == "HEAD") &&
         (line.path_text == "/api/v1/health" || line.path_text == "/v1/health");
}

// What tells nothing of anybody.
bool is_public(const RequestLine& line) {
  return is_health(line) || line.path_text == "/v1/openapi.json";
}

// An error in the shape that the interface has.
HttpAnswer answer_for(const Problem& problem, const Exchange& exchange) {
  const auto& path = exchange.line().path;
  const bool rpc = !path.empty() && (path.front() == "api" || path.front() == "mcp");
  return rpc ? rpc_error_answer(problem, nullptr) : error_answer(problem, exchange.id());
}

// To a browser that asks whether it may (Fetch, section 3.2.2): its origin was judged before.
HttpAnswer preflight(const Exchange& exchange) {
  constexpr unsigned kNoContent = 204;
  HttpAnswer answer{kNoContent, "", "", {}};
  answer.headers = {{"Access-Control-Allow-Methods", "GET, POST, PUT, DELETE"},
                    {"Access-Control-Max-Age", "600"}};
  const std::string asked(exchange.header("Access-Control-Request-Headers"));
  if (!asked.empty()) {
    answer.headers.emplace_back("Access-Control-Allow-Headers", asked);
  }
  return answer;
}

// The answer of a handler that threw is a mistake of ours, unless its client has gone.
Async<> carry_out(Exchange& exchange, const HttpServer::Handler& handler, RequestLog& log) {
  std::string mistake;
  try {
    co_await handler(exchange);
    if (!exchange.begun()) {
      mistake = "the handler gave no answer";
    }
  } catch (const system_error&) {
    throw;
  } catch (const std::exception& error) {
    mistake = error.what();
  }
  if (mistake.empty()) {
    co_return;
  }
  log.write("error", mistake, exchange.id());
  if (exchange.begun()) {
    // Half an answer must not look like one.
    throw system_error(asio::error::connection_aborted);
  }
  exchange.answer(answer_for(
      {Reason::kInternal, "the server made a mistake, which its log tells of", std::nullopt},
      exchange));
}

}  // namespace

Connection::Connection(HttpServer& server, asio::ip::tcp::socket socket)
    : server_(server), stream_(std::move(socket)) {
  ++server_.connections_;
  error_code error;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), error);
  const auto remote = stream_.socket().remote_endpoint(error);
  if (!error) {
    remote_ = remote.address().to_string();
  }
}

Connection::~Connection() {
  --server_.connections_;
  server_.changed_.notify();
}

Async<> Connection::run() {
  try {
    while (co_await run_one()) {
    }
  } catch (const system_error&) {
    // The client has gone, or did not read: there is nobody to tell.
  }
}

Async<bool> Connection::read_head(RequestParser& parser) {
  error_code error;
  if (buffer_.size() == 0) {
    if (server_.stopping_) {
      co_return false;
    }
    server_.idle_.insert(&stream_.socket());
    struct Busy {
      HttpServer& server;
      asio::ip::tcp::socket* socket;
      ~Busy() { server.idle_.erase(socket); }
    };
    const Busy busy{server_, &stream_.socket()};
    stream_.expires_after(server_.limits_.idle_patience);
    const std::size_t length = co_await stream_.async_read_some(
        buffer_.prepare(server_.limits_.header_bytes), into(error));
    if (error) {
      co_return false;
    }
    buffer_.commit(length);
  }
  parser.header_limit(server_.limits_.header_bytes);
  parser.body_limit(boost::none);
  stream_.expires_after(server_.limits_.header_patience);
  co_await http::async_read_header(stream_, buffer_, parser, into(error));
  if (!error) {
    co_return true;
  }
  if (error == http::error::end_of_stream || error == beast::error::timeout ||
      error == asio::error::operation_aborted || error == asio::error::connection_reset ||
      error == http::error::partial_message) {
    co_return false;
  }
  // It is no HTTP, or too long: what follows cannot be told apart.
  const Problem problem{error == http::error::header_limit ? Reason::kTooLarge : Reason::kInvalid,
                        "the request cannot be read: " + error.message(), std::nullopt};
  RequestParser none;
  HttpExchange exchange(stream_, buffer_, none, server_.limits_, {},
                        request_id(++server_.requests_so_far_));
  exchange.close_afterwards();
  exchange.answer(error_answer(problem, exchange.id()));
  co_await exchange.finish();
  co_await close_gently();
  co_return false;
}

Outcome<Key> Connection::judge(const RequestParser& parser, const RequestLine& line) const {
  const auto& request = parser.get();
  const HttpAccess& access = server_.access_;
  const auto host = parse_host(view(request[http::field::host]));
  // A name that an attacker's DNS leads here is none of ours; addresses cannot be rebound.
  if (!host || (!host->address && host->name != "localhost" &&
                std::ranges::find(access.hosts, host->name) == access.hosts.end())) {
    return refuse(Reason::kForbidden,
                  "this server is not called '{}'; \"hosts\" in server.json names what it is",
                  oci::printable(view(request[http::field::host])));
  }
  if (const auto origin = request.find(http::field::origin); origin != request.end()) {
    if (std::ranges::find(access.origins, view(origin->value())) == access.origins.end()) {
      return refuse(Reason::kForbidden,
                    "the origin '{}' is not among the \"origins\" of server.json",
                    oci::printable(view(origin->value())));
    }
  }
  if (access.keys == nullptr || is_public(line) || line.method == "OPTIONS") {
    return Key{};
  }
  auto shown = view(request[http::field::proxy_authorization]);
  if (shown.empty()) {
    shown = view(request[http::field::authorization]);
  }
  if (shown.empty()) {
    return refuse(Reason::kNoKey,
                  "a key is needed: `Authorization: Bearer KEY`, which `msb server keygen` makes");
  }
  return access.keys->check(shown, std::chrono::duration_cast<std::chrono::milliseconds>(
                                       std::chrono::system_clock::now().time_since_epoch())
                                       .count());
}

Async<bool> Connection::run_one() {
  RequestParser parser;
  if (!co_await read_head(parser)) {
    co_return false;
  }
  const auto begun = std::chrono::steady_clock::now();
  const auto& request = parser.get();
  const std::string id = request_id(++server_.requests_so_far_);
  Outcome<void> good = check_framing(parser);
  if (good) {
    const auto host = parse_host(view(request[http::field::host]));
    if (const auto app = host ? parse_app_host(*host) : std::nullopt) {
      co_await serve_app(server_.app_, stream_, buffer_, parser, *app);
      co_await close_gently();
      co_return false;
    }
  }
  auto line = parse_target(view(request.method_string()), view(request.target()));
  const std::string path = line ? line->path_text : std::string(view(request.target()));
  HttpExchange exchange(stream_, buffer_, parser, server_.limits_,
                        line ? std::move(*line) : RequestLine{}, id);
  auto caller = !good   ? Outcome<Key>(std::unexpected(good.error()))
                : !line ? Outcome<Key>(std::unexpected(line.error()))
                        : judge(parser, exchange.line());
  if (!good) {
    exchange.close_afterwards();
  }
  if (server_.stopping_) {
    exchange.close_afterwards();
  }
  if (!caller) {
    exchange.answer(answer_for(caller.error(), exchange));
  } else if (exchange.line().method == "OPTIONS") {
    exchange.answer(preflight(exchange));
  } else if (is_health(exchange.line())) {
    exchange.answer({200, R"({"message":"Service is healthy"})", "application/json", {}});
  } else {
    exchange.key = std::move(*caller);
    const auto handler = exchange.line().path.empty()
                             ? server_.handlers_.end()
                             : server_.handlers_.find(exchange.line().path.front());
    if (handler == server_.handlers_.end()) {
      const Problem problem{
          Reason::kNotFound,
          "there is nothing at this path: the server has /api/v1/rpc, /mcp and /v1", std::nullopt};
      exchange.answer(error_answer(problem, id));
    } else if (server_.requests_ >= server_.limits_.requests) {
      const Problem problem{Reason::kFull,
                            fmt::format("{} requests are under way", server_.requests_), 1};
      exchange.answer(answer_for(problem, exchange));
    } else {
      co_await handle(exchange, handler->second);
    }
  }
  if (const auto origin = exchange.header("Origin"); !origin.empty() && caller) {
    exchange.add_header("Access-Control-Allow-Origin", std::string(origin));
    exchange.add_header("Access-Control-Expose-Headers",
                        "Location, Mcp-Session-Id, Retry-After, X-Request-Id");
    exchange.add_header("Vary", "Origin");
  }
  bool goes_on = false;
  std::exception_ptr left;
  try {
    goes_on = co_await exchange.finish();
  } catch (const system_error&) {
    left = std::current_exception();
  }
  server_.log_.write({id, remote_, exchange.key.id, exchange.line().method, path, exchange.status(),
                      exchange.received(), exchange.sent(),
                      std::chrono::steady_clock::now() - begun});
  if (left) {
    std::rethrow_exception(left);
  }
  if (!goes_on) {
    co_await close_gently();
  }
  co_return goes_on && !server_.stopping_;
}

// Runs it until it is done, or its client has gone, which cancels it.
Async<> Connection::handle(Exchange& exchange, const HttpServer::Handler& handler) {
  using namespace asio::experimental::awaitable_operators;
  ++server_.requests_;
  struct Leave {
    HttpServer& server;
    ~Leave() {
      --server.requests_;
      server.changed_.notify();
    }
  };
  const Leave leave{server_};
  Async<> work = carry_out(exchange, handler, server_.log_);
  // Its side of the connection, for it may have sent more than this request.
  Async<> gone =
      server_.app_.sandboxes.guests().await_events(stream_.socket().native_handle(), POLLRDHUP);
  const auto first = co_await (std::move(work) || std::move(gone));
  if (first.index() == 1) {
    throw system_error(asio::error::connection_reset);
  }
}

// Closes so that the client gets to read what it was sent: what it sends still is passed over for a
// moment, since closing on it would be a reset.
Async<> Connection::close_gently() {
  error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  stream_.expires_after(kLinger);
  std::array<char, 4096> piece;
  std::size_t left = kMaxUnread * 16;
  while (!error && left > 0) {
    const std::size_t length = co_await stream_.async_read_some(asio::buffer(piece), into(error));
    left -= std::min(left, length);
  }
}

}  // namespace msb::server
