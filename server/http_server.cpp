// SPDX-License-Identifier: Apache-2.0
#include "server/http_server.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/ip/address.hpp>
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

Async<> serve_connection(std::unique_ptr<Connection> connection) {
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
  static constexpr std::string_view kAnswer =
      "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
      "Content-Type: application/json\r\nContent-Length: 87\r\n\r\n"
      R"({"error":{"code":"full","number":3002,"message":"the server has too many connections"}})";
  error_code error;
  socket.non_blocking(true, error);
  socket.write_some(asio::buffer(kAnswer), error);
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
    acceptor_.set_option(asio::socket_base::reuse_address(true), error);
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
                   asio::detached);
  }
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
