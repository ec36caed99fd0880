// SPDX-License-Identifier: Apache-2.0
#include "server/http_server.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <memory>
#include <utility>

#include "server/http_connection.hpp"

namespace msb::server {

namespace {

using asio::ip::tcp;
using boost::system::error_code;

// How long accepting rests when this process has no descriptors left.
constexpr std::chrono::milliseconds kRest{100};
// So often the keys of requests under way are looked at again.
constexpr std::chrono::seconds kKeyPause{2};

Async<> serve_connection(std::unique_ptr<Connection> connection) {
  // After what came before it by other connections: a client that gives up a start closes that one,
  // and asks for a stop by the next.
  co_await asio::post(asio::use_awaitable);
  co_await connection->run();
}

// Asio's own accept leaves the socket to be inherited by whatever is started meanwhile, which would
// keep the connection open.
tcp::socket take_connection(tcp::acceptor& acceptor, error_code& error) {
  tcp::socket socket(acceptor.get_executor());
  const int taken =
      ::accept4(acceptor.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (taken < 0) {
    error.assign(errno, boost::system::system_category());
    return socket;
  }
  socket.assign(acceptor.local_endpoint().protocol(), taken, error);
  return socket;
}

// To one for which there is no room: it fits into any socket's buffer.
void turn_away(tcp::socket& socket) {
  static const std::string answer = [] {
    const Problem problem{Reason::kFull, "the server has too many connections", std::nullopt};
    const std::string body = error_answer(problem, "").body;
    return fmt::format(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
        body.size(), body);
  }();
  error_code error;
  socket.non_blocking(true, error);
  socket.write_some(asio::buffer(answer), error);
  socket.shutdown(tcp::socket::shutdown_send, error);
}

}  // namespace

HttpServer::HttpServer(App& app, HttpAccess access, HttpLimits limits, RequestLog& log)
    : app_(app), access_(std::move(access)), limits_(limits), log_(log), acceptor_(app.io) {}

void HttpServer::serve(std::string segment, Handler handler) {
  handlers_[std::move(segment)] = std::move(handler);
}

Result<tcp::endpoint> HttpServer::listen(const std::string& address, std::uint16_t port) {
  error_code error;
  const auto parsed = asio::ip::make_address(address == "localhost" ? "127.0.0.1" : address, error);
  if (error) {
    return fail("'{}' is no address to listen on", address);
  }
  const tcp::endpoint endpoint(parsed, port);
  acceptor_.open(endpoint.protocol(), error);
  if (!error) {
    ::fcntl(acceptor_.native_handle(), F_SETFD, FD_CLOEXEC);
    acceptor_.non_blocking(true, error);
  }
  if (!error) {
    acceptor_.set_option(asio::socket_base::reuse_address(true), error);
  }
  if (!error) {
    acceptor_.bind(endpoint, error);
  }
  if (!error) {
    acceptor_.listen(asio::socket_base::max_listen_connections, error);
  }
  if (error) {
    return fail("cannot listen on port {} of {}: {}", port, address, error.message());
  }
  return acceptor_.local_endpoint();
}

Async<> HttpServer::run() {
  while (!stopping_) {
    error_code error;
    co_await acceptor_.async_wait(tcp::acceptor::wait_read,
                                  asio::redirect_error(asio::use_awaitable, error));
    tcp::socket socket = error ? tcp::socket(app_.io) : take_connection(acceptor_, error);
    if (error == asio::error::would_block || error == asio::error::connection_aborted) {
      continue;  // it has left again
    }
    if (error) {
      if (!stopping_) {
        log_.write("warning", "cannot accept a connection: " + error.message());
        Signal never;
        co_await never.wait(Signal::Clock::now() + kRest);
      }
      continue;
    }
    if (connections_ >= limits_.connections) {
      turn_away(socket);
      continue;
    }
    asio::co_spawn(app_.io,
                   serve_connection(std::make_unique<Connection>(*this, std::move(socket))),
                   Unattended());
  }
}

void HttpServer::look_at_keys() {
  for (Running& running : running_) {
    const Exchange& exchange = running.exchange;
    if (exchange.key.id.empty() || running.refusal) {
      continue;
    }
    auto valid = access_.keys->check_again(exchange.key, key_time());
    // Keys that cannot be read now say nothing: the next look does.
    if (valid || valid.error().reason == Reason::kInternal) {
      continue;
    }
    log_.write(
        "info",
        fmt::format("the request ends, since its key {} is not valid any more", exchange.key.id),
        exchange.id());
    running.refusal = std::move(valid.error());
    // For Connection::handle() that is what it would be if the client had gone.
    error_code error;
    running.socket.shutdown(tcp::socket::shutdown_receive, error);
  }
}

// While there are requests. One for all of them, so that those that are done at once pay nothing.
Async<> HttpServer::watch_keys() {
  Signal never;
  while (!running_.empty()) {
    co_await never.wait(Signal::Clock::now() + kKeyPause);
    look_at_keys();
  }
  watching_ = false;
}

void HttpServer::stop() {
  stopping_ = true;
  error_code error;
  acceptor_.close(error);
  for (tcp::socket* socket : idle_) {
    socket->cancel(error);
  }
}

Async<bool> HttpServer::drained(Signal::Clock::time_point deadline) {
  while (connections_ > 0) {
    const bool come = co_await changed_.wait(deadline);
    if (!come) {
      co_return false;
    }
  }
  co_return true;
}

}  // namespace msb::server
