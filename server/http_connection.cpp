// SPDX-License-Identifier: Apache-2.0
#include "server/http_connection.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <exception>
#include <memory>
#include <utility>

#include "oci/printable.hpp"
#include "server/http_exchange.hpp"
#include "server/rpc.hpp"

namespace msb::server {

namespace {

using boost::system::error_code;
using boost::system::system_error;

// How long a client has to read an answer behind which the connection is closed.
constexpr std::chrono::seconds kLinger{2};
// And so much of what it sends meanwhile is passed over.
constexpr std::size_t kMaxPassed = std::size_t{1} << 20;

std::string request_id(std::uint64_t number) {
  static const std::uint32_t start = static_cast<std::uint32_t>(
      std::chrono::system_clock::now().time_since_epoch() / std::chrono::milliseconds(1));
  return fmt::format("{:08x}{:08x}", start, number);
}

BadHead slow_head(const HttpLimits& limits) {
  return {408,
          {Reason::kSlow,
           fmt::format("the request's head did not come within {} s of its first byte",
                       limits.header_patience.count()),
           std::nullopt}};
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

// The answer of a handler that threw is a mistake of ours, unless its client has gone. Whether
// there is an answer; else the connection is of no use any more.
Async<bool> carry_out(Exchange& exchange, const HttpServer::Handler& handler, RequestLog& log) {
  std::string mistake;
  try {
    co_await handler(exchange);
    if (!exchange.begun()) {
      mistake = "the handler gave no answer";
    }
  } catch (const system_error&) {
    co_return false;
  } catch (const std::exception& error) {
    mistake = error.what();
  }
  if (mistake.empty()) {
    co_return true;
  }
  log.write("error", mistake, exchange.id());
  if (exchange.begun()) {
    co_return false;  // half an answer must not look like one
  }
  exchange.answer(answer_for(
      {Reason::kInternal, "the server made a mistake, which its log tells of", std::nullopt},
      exchange));
  co_return true;
}

}  // namespace

Connection::Connection(HttpServer& server, asio::ip::tcp::socket socket)
    : server_(server), stream_(std::move(socket)) {
  ++server_.connections_;
  error_code error;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), error);
  stream_.socket().non_blocking(true, error);
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
    bool goes_on = true;
    while (goes_on) {
      goes_on = co_await run_one();
    }
  } catch (const system_error&) {
    // The client has gone, or did not read: there is nobody to tell.
  } catch (const std::exception& error) {
    // Nobody waits for a connection: what it throws would be lost.
    server_.log_.write("error", fmt::format("a connection ended by a mistake: {}", error.what()));
  }
}

// Until there is something of a request in the buffer.
Async<bool> Connection::await_request() {
  error_code error;
  while (true) {
    // An empty line in front of a request is passed over (RFC 9112 section 2.2).
    while (text_of(buffer_).starts_with("\r\n")) {
      buffer_.consume(2);
    }
    if (buffer_.size() > 0 && text_of(buffer_) != "\r") {
      co_return true;
    }
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
}

Async<bool> Connection::read_head(RequestParser& parser) {
  const bool come = co_await await_request();
  if (!come) {
    co_return false;
  }
  const HttpLimits& limits = server_.limits_;
  HeadReader reader(parser, limits.header_bytes);
  const auto begun = Signal::Clock::now();
  // Mostly all of it has come with the first bytes, and waiting costs more than reading.
  auto head = reader.read(text_of(buffer_));
  while (head && *head == 0) {
    const error_code error =
        co_await receive(stream_.socket(), buffer_, limits.header_bytes - buffer_.size(),
                         begun + limits.header_patience);
    if (!error) {
      head = reader.read(text_of(buffer_));
    } else if (error == asio::error::timed_out) {
      head = std::unexpected(slow_head(limits));
    } else {
      co_return false;
    }
  }
  if (head) {
    buffer_.consume(*head);
    co_return true;
  }
  co_await refuse_head(std::move(head.error()));
  co_return false;
}

// What follows such a head cannot be told apart.
Async<> Connection::refuse_head(BadHead bad) {
  const auto begun = Signal::Clock::now();
  RequestParser none;
  HttpExchange exchange(stream_, buffer_, none, server_.limits_, server_.whole_bodies_, {},
                        request_id(++server_.requests_so_far_));
  exchange.close_afterwards();
  HttpAnswer answer = error_answer(bad.problem, exchange.id());
  answer.status = bad.status;
  exchange.answer(std::move(answer));
  const std::string no_path;
  co_await finish(exchange, no_path, begun);
}

Outcome<Key> Connection::judge(const RequestParser& parser, const RequestLine& line) const {
  const auto& request = parser.get();
  const HttpAccess& access = server_.access_;
  const auto field = view(request[http::field::host]);
  const auto host = parse_host(field);
  if (!host && !field.empty()) {
    return refuse(Reason::kInvalid, "the Host field '{}' is no host", oci::printable(field));
  }
  // A name that an attacker's DNS leads here is none of ours; addresses cannot be rebound.
  if (!host || (!host->address && host->name != "localhost" &&
                std::ranges::find(access.hosts, host->name) == access.hosts.end())) {
    return refuse(Reason::kForbidden,
                  "this server is not called '{}'; \"hosts\" in server.json names what it is",
                  oci::printable(field));
  }
  if (const auto origin = request.find(http::field::origin); origin != request.end()) {
    const std::string_view from = view(origin->value());
    // Its own is this server, which has no pages: what is published has origins of its own.
    if (from != fmt::format("http://{}", field) &&
        std::ranges::find(access.origins, from) == access.origins.end()) {
      return refuse(Reason::kForbidden,
                    "the origin '{}' is not among the \"origins\" of server.json",
                    oci::printable(from));
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
  return access.keys->check(shown, key_time());
}

Async<bool> Connection::run_one() {
  RequestParser parser;
  const bool come = co_await read_head(parser);
  if (!come) {
    co_return false;
  }
  const auto begun = Signal::Clock::now();
  const auto& request = parser.get();
  const auto host = parse_host(view(request[http::field::host]));
  if (const auto app = host ? parse_app_host(*host) : std::nullopt) {
    co_await serve_app(server_.app_, stream_, buffer_, parser, *app);
    co_await close_gently();
    co_return false;
  }
  const std::string id = request_id(++server_.requests_so_far_);
  auto line = parse_target(view(request.method_string()), view(request.target()));
  // Without the query, where somebody may have put a key.
  const std::string_view target = view(request.target());
  const std::string path(target.substr(0, target.find('?')));
  HttpExchange exchange(stream_, buffer_, parser, server_.limits_, server_.whole_bodies_,
                        line ? std::move(*line) : RequestLine{}, id);
  const auto& origins = server_.access_.origins;
  if (const auto origin = exchange.header("Origin");
      std::ranges::find(origins, origin) != origins.end()) {
    exchange.allow_origin(std::string(origin));
  }
  auto caller = line ? judge(parser, exchange.line()) : Outcome<Key>(std::unexpected(line.error()));
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
    } else if (server_.running_.size() >= server_.limits_.requests) {
      const Problem problem{Reason::kFull,
                            fmt::format("{} requests are under way", server_.running_.size()), 1};
      exchange.answer(answer_for(problem, exchange));
    } else {
      const bool answered = co_await handle(exchange, handler->second);
      if (!answered) {
        log(exchange, path, begun);
        co_return false;
      }
    }
  }
  const bool goes_on = co_await finish(exchange, path, begun);
  co_return goes_on && !server_.stopping_;
}

Async<bool> Connection::finish(HttpExchange& exchange, const std::string& path,
                               Signal::Clock::time_point begun) {
  bool goes_on = false;
  std::exception_ptr left;
  try {
    goes_on = co_await exchange.finish();
  } catch (const system_error&) {
    left = std::current_exception();
  }
  log(exchange, path, begun);
  if (left) {
    std::rethrow_exception(left);
  }
  if (!goes_on) {
    co_await close_gently();
  }
  co_return goes_on;
}

void Connection::log(const HttpExchange& exchange, const std::string& path,
                     Signal::Clock::time_point begun) {
  server_.log_.write({exchange.id(), remote_, exchange.key.id, exchange.line().method, path,
                      exchange.status(), exchange.received(), exchange.sent(),
                      Signal::Clock::now() - begun});
}

// Runs it until it is done, or its client has gone, which cancels it. One that has only said that
// it sends no more (shutdown(2)) looks the same, and counts as gone too; so does one whose key was
// revoked (HttpServer::look_at_keys()), which is told so unless its answer has begun.
Async<bool> Connection::handle(HttpExchange& exchange, const HttpServer::Handler& handler) {
  using namespace asio::experimental::awaitable_operators;
  auto& all = server_.running_;
  const auto place =
      all.insert(all.end(), HttpServer::Running{exchange, stream_.socket(), std::nullopt});
  struct Leave {
    std::list<HttpServer::Running>& all;
    std::list<HttpServer::Running>::iterator place;
    ~Leave() { all.erase(place); }
  };
  const Leave leave{all, place};
  if (server_.access_.keys != nullptr && !std::exchange(server_.watching_, true)) {
    asio::co_spawn(server_.app_.io, server_.watch_keys(), Unattended());
  }
  // What throws would not end the other.
  Async<bool> work = carry_out(exchange, handler, server_.log_);
  // Its side of the connection, for it may have sent more than this request.
  Async<> gone =
      server_.app_.sandboxes.guests().await_events(stream_.socket().native_handle(), POLLRDHUP);
  const auto first = co_await (std::move(work) || std::move(gone));
  if (place->refusal && exchange.status() == 0) {
    exchange.close_afterwards();
    exchange.answer(answer_for(*place->refusal, exchange));
    co_return true;
  }
  const bool* const answered = std::get_if<0>(&first);
  co_return answered != nullptr && *answered;
}

// Closes so that the client gets to read what it was sent: what it sends still is passed over for a
// moment, since closing on it would be a reset.
Async<> Connection::close_gently() {
  error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  stream_.expires_after(kLinger);
  std::array<char, 4096> piece;
  std::size_t left = kMaxPassed;
  while (!error && left > 0) {
    const std::size_t length = co_await stream_.async_read_some(asio::buffer(piece), into(error));
    left -= std::min(left, length);
  }
}

}  // namespace msb::server
