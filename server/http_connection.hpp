// SPDX-License-Identifier: Apache-2.0
// One connection of a client: its requests, one after the other.
#pragma once

#include <boost/asio/ip/tcp.hpp>

#include "server/http_exchange.hpp"

namespace msb::server {

class Connection {
 public:
  Connection(HttpServer& server, asio::ip::tcp::socket socket);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  // Until the client leaves, or has to.
  Async<> run();

 private:
  // Whether another request may follow.
  Async<bool> run_one();
  Async<bool> await_request();
  Async<bool> read_head(RequestParser& parser);
  Async<> refuse_head(BadHead bad);
  // Whom it is from, and what that may not do; nothing when it may.
  Outcome<Key> judge(const RequestParser& parser, const RequestLine& line) const;
  // Whether there is an answer; else the connection is of no use any more.
  Async<bool> handle(HttpExchange& exchange, const HttpServer::Handler& handler);
  // Sends what is left of the answer, and logs it. Whether another request may follow; else the
  // connection is closed.
  Async<bool> finish(HttpExchange& exchange, const std::string& path,
                     Signal::Clock::time_point begun);
  void log(const HttpExchange& exchange, const std::string& path, Signal::Clock::time_point begun);
  Async<> close_gently();

  HttpServer& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::string remote_;
};

// A request to an app in a sandbox, whose head is in `parser`: from here on the connection is the
// app's alone. (http_app.cpp)
Async<> serve_app(App& app, beast::tcp_stream& stream, beast::flat_buffer& buffer,
                  RequestParser& parser, AppHost target);

// The head as it was understood, so that the app does not understand another one, and so that the
// connection has this request alone: what shares connections between hosts, as proxies do, would
// send others' requests to the app.
std::string head_for_app(const RequestParser& parser);

}  // namespace msb::server
