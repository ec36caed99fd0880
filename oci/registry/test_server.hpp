// SPDX-License-Identifier: Apache-2.0
// An HTTP server of the tests, on 127.0.0.1 and a port of its own, that answers as a test wants:
// also wrongly, in parts, or not at all. It does not speak TLS.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/fd.hpp"

namespace msb::oci::testing {

struct ServerRequest {
  std::string method;
  std::string path;                            // without the query
  std::string query;                           // after '?'
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;

  [[nodiscard]] std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

// The connection that a request came from. What is sent when the client has gone is lost.
class ServerConnection {
 public:
  explicit ServerConnection(int fd) : fd_(fd) {}

  void send(std::string_view bytes) const;
  // A whole answer, with Content-Length.
  void reply(int status, std::string_view body,
             const std::vector<std::pair<std::string, std::string>>& headers = {}) const;
  // Returns when the client closes the connection.
  void wait_for_close() const;
  // No further request is read from this connection.
  void close() { closed_ = true; }
  [[nodiscard]] bool closed() const { return closed_; }

 private:
  int fd_;
  bool closed_ = false;
};

class TestServer {
 public:
  // Called for each request, from a thread of its connection.
  using Handler = std::function<void(const ServerRequest&, ServerConnection&)>;

  // What a client that speaks TLS reads before the connection is closed: by default, as from most
  // servers, that it should not.
  explicit TestServer(Handler handler, std::string tls_answer = "HTTP/1.1 400 Bad Request\r\n\r\n");
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;
  ~TestServer();

  // "127.0.0.1:PORT"
  [[nodiscard]] std::string authority() const;
  [[nodiscard]] std::string url(std::string_view path) const;

  // All requests so far, in the order in which they were read.
  std::vector<ServerRequest> requests();
  // How many connections brought at least one request.
  int connections();

 private:
  void accept_all();
  void serve(int fd);

  Handler handler_;
  std::string tls_answer_;
  Fd listener_;
  std::uint16_t port_ = 0;
  std::mutex mutex_;  // of what follows
  bool stopping_ = false;
  int connections_ = 0;
  std::vector<ServerRequest> requests_;
  std::list<Fd> open_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace msb::oci::testing
