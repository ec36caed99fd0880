// SPDX-License-Identifier: Apache-2.0
// Apps in sandboxes under hosts of their own: a browser takes each for an origin of its own, and
// never for the API's. What comes over such a connection is the app's from its first request on, so
// nothing that it or its client says can be taken for a request to the API.
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "server/http_connection.hpp"

namespace msb::server {

namespace {

using boost::system::error_code;

constexpr std::size_t kPiece = 64 * 1024;
// The status of an answer behind which there is no HTTP.
constexpr unsigned kSwitching = 101;
// Without a byte either way.
constexpr std::chrono::minutes kIdle{10};
// Of an answer: cookies make it long.
constexpr std::uint32_t kMaxHead = 64 * 1024;

// Host names have no case: names of sandboxes do.
bool same_name(std::string_view one, std::string_view other) {
  return beast::iequals(boost::string_view(one.data(), one.size()),
                        boost::string_view(other.data(), other.size()));
}

// The sandbox, if it publishes that port over TCP: what it does not publish is its own.
Served find_app(App& app, const AppHost& target) {
  static const Key everybody;
  Served alike;
  for (const Served& served : app.sandboxes.list(everybody, "")) {
    if (same_name(served->name, target.sandbox) && same_name(served->space, target.space) &&
        served->guest) {
      for (const PublishedPort& port : served->published) {
        if (port.guest_port != target.port || port.protocol != "tcp") {
          continue;
        }
        if (served->name == target.sandbox && served->space == target.space) {
          return served;
        }
        alike = served;
      }
    }
  }
  return alike;
}

Async<> refuse_app(beast::tcp_stream& stream, unsigned status, std::string text) {
  http::response<http::string_body> response{static_cast<http::status>(status), 11};
  response.set(http::field::date, http_date());
  response.set(http::field::content_type, "text/plain; charset=utf-8");
  response.keep_alive(false);
  response.body() = std::move(text);
  response.prepare_payload();
  error_code error;
  stream.expires_after(std::chrono::seconds(10));
  co_await http::async_write(stream, response, asio::redirect_error(asio::use_awaitable, error));
  stream.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
}

template <typename Fields>
std::string head_of(const Fields& fields) {
  std::ostringstream text;
  text << fields;
  return text.str();
}

bool upgrades(const RequestParser& parser) {
  return parser.get().find(http::field::upgrade) != parser.get().end();
}

// Takes away what is of one connection only (RFC 9110 section 7.6.1), and says that the next one
// has nothing but this. What a Connection field must not name, as it says what the message is,
// stays.
template <typename Head>
void keep_to_itself(Head& head) {
  std::string names;
  const auto fields = head.equal_range(http::field::connection);
  for (auto field = fields.first; field != fields.second; ++field) {
    names += view(field->value());
    names += ',';
  }
  for (const auto name : http::token_list(names)) {
    if (!beast::iequals(name, "Host") && !beast::iequals(name, "Content-Length") &&
        !beast::iequals(name, "Transfer-Encoding")) {
      head.erase(name);
    }
  }
  head.erase(http::field::keep_alive);
  head.set(http::field::connection, "close");
}

// Answers of the app up to its last head: there may be some in front of it (RFC 9110 section 15.2).
// False when it has none that is one.
template <typename Client, typename Server>
Async<bool> relay_head(Client& client, Server& server, beast::flat_buffer& buffer,
                       std::shared_ptr<unsigned> last_status) {
  error_code error;
  unsigned status = 100;
  while (status / 100 == 1 && status != kSwitching) {
    http::response_parser<http::buffer_body> parser;
    parser.header_limit(kMaxHead);
    parser.body_limit(boost::none);
    co_await http::async_read_header(server, buffer, parser,
                                     asio::redirect_error(asio::use_awaitable, error));
    if (error) {
      co_return false;
    }
    status = parser.get().result_int();
    http::response<http::empty_body> head(parser.get().base());
    if (status / 100 != 1) {
      keep_to_itself(head);
    }
    const std::string text = head_of(head.base());
    co_await asio::async_write(client, asio::buffer(text),
                               asio::redirect_error(asio::use_awaitable, error));
    if (error) {
      co_return false;
    }
  }
  *last_status = status;
  co_return true;
}

using LastByte = std::shared_ptr<Signal::Clock::time_point>;

// What is in `buffer`, and all that comes behind it.
template <typename From, typename To>
Async<> relay(From& from, To& to, beast::flat_buffer& buffer, LastByte last) {
  std::vector<char> piece(kPiece);
  error_code error;
  co_await asio::async_write(to, buffer.data(), asio::redirect_error(asio::use_awaitable, error));
  buffer.clear();
  while (!error) {
    const std::size_t length = co_await from.async_read_some(
        asio::buffer(piece), asio::redirect_error(asio::use_awaitable, error));
    if (error) {
      break;
    }
    *last = Signal::Clock::now();
    co_await asio::async_write(to, asio::buffer(piece.data(), length),
                               asio::redirect_error(asio::use_awaitable, error));
  }
  to.shutdown(asio::socket_base::shutdown_send, error);
}

Async<> until_idle(LastByte last) {
  Signal never;
  while (*last + kIdle > Signal::Clock::now()) {
    co_await never.wait(*last + kIdle);
  }
}

// What has no end of its own, such as a WebSocket, ends with the server.
Async<> until_drained(App& app, std::shared_ptr<unsigned> status) {
  while (!app.draining) {
    co_await app.drain.wait();
  }
  if (*status != kSwitching) {
    Signal never;
    co_await never.wait();
  }
}

}  // namespace

std::string head_for_app(const RequestParser& parser) {
  http::request<http::empty_body> head(parser.get().base());
  head.erase(http::field::proxy_authorization);
  head.erase(http::field::proxy_connection);
  if (!upgrades(parser)) {
    keep_to_itself(head);
  }
  head.insert(http::field::via, "1.1 microsandbox");  // RFC 9110 section 7.6.3
  return head_of(head.base());
}

Async<> serve_app(App& app, beast::tcp_stream& stream, beast::flat_buffer& buffer,
                  RequestParser& parser, AppHost target) {
  Served served = find_app(app, target);
  if (!served) {
    co_await app.sandboxes.refresh(Key(), target.space, target.sandbox);
    served = find_app(app, target);
  }
  if (!served) {
    co_await refuse_app(stream, 404,
                        "No app runs here: no sandbox of this name runs and publishes the port.\n");
    co_return;
  }
  const auto guest = served->guest;
  auto connected = co_await guest->connect(target.port);
  if (!connected) {
    co_await refuse_app(stream, 502,
                        fmt::format("Nothing answers at port {} of the sandbox: {}\n", target.port,
                                    connected.error().message));
    co_return;
  }
  asio::local::stream_protocol::socket inside(app.io);
  inside.assign(asio::local::stream_protocol(), connected->release());
  stream.expires_never();
  using namespace asio::experimental::awaitable_operators;
  using Inside = asio::local::stream_protocol::socket;
  using Outside = asio::ip::tcp::socket;
  const auto last = std::make_shared<Signal::Clock::time_point>(Signal::Clock::now());
  const auto forth = [](Outside& client, Inside& server, beast::flat_buffer& rest, std::string head,
                        LastByte when) -> Async<> {
    error_code error;
    co_await asio::async_write(server, asio::buffer(head),
                               asio::redirect_error(asio::use_awaitable, error));
    if (!error) {
      co_await relay(client, server, rest, when);
    }
    Signal never;  // the answer is what ends it
    co_await never.wait();
  };
  // None of these throws: what does would not end the others.
  const auto status = std::make_shared<unsigned>(0);  // of the answer; 0 without one
  const auto back = [](Outside& client, Inside& server, LastByte when,
                       std::shared_ptr<unsigned> answered) -> Async<> {
    beast::flat_buffer rest;
    const bool good = co_await relay_head(client, server, rest, answered);
    if (good) {
      co_await relay(server, client, rest, when);
    }
  };
  Async<> in = forth(stream.socket(), inside, buffer, head_for_app(parser), last);
  Async<> out = back(stream.socket(), inside, last, status);
  Async<> idle = until_idle(last);
  Async<> drained = until_drained(app, status);
  co_await (std::move(in) || std::move(out) || std::move(idle) || std::move(drained));
  if (*status == 0) {
    std::string text = "The app gave no answer.\n";
    co_await refuse_app(stream, 502, std::move(text));
  }
}

}  // namespace msb::server
