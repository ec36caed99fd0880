// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 (RFC 9112) over TCP: connections, their bounds, who may ask, and which interface a
// request is for. What a client may send and how long it may take is bounded here, once for all.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "server/app.hpp"
#include "server/keys.hpp"
#include "server/request_log.hpp"

namespace msb::server {

struct HttpLimits {
  std::size_t connections = 4096;
  std::size_t requests = 1024;                        // under way at a time
  std::uint32_t header_bytes = 32 * 1024;             // of the request line and all fields
  std::chrono::seconds header_patience{15};           // from the first byte to the last of them
  std::chrono::seconds idle_patience{75};             // between requests
  std::chrono::seconds body_patience{30};             // for the next piece of a body
  std::chrono::seconds whole_body_patience{120};      // for all of one that is taken whole
  std::size_t whole_bodies = std::size_t{256} << 20;  // bytes, of all of these together
  std::size_t small_body = 64 * 1024;  // of each so many are not counted: there is room for these
  std::chrono::seconds write_patience{60};  // for a client to take what it is sent
};

// Who may ask, and by which names.
struct HttpAccess {
  Keys* keys = nullptr;              // null: no key is asked for
  std::vector<std::string> hosts;    // names of this server, beside localhost and addresses
  std::vector<std::string> origins;  // of browser clients
};

class HttpServer {
 public:
  // Answers a request whose caller is known.
  using Handler = std::function<Async<>(Exchange&)>;

  HttpServer(App& app, HttpAccess access, HttpLimits limits, RequestLog& log);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Requests to `segment` (the path's first) and what is below go to `handler`.
  void serve(std::string segment, Handler handler);
  Result<boost::asio::ip::tcp::endpoint> listen(const std::string& address, std::uint16_t port);
  // Accepts until stop().
  Async<> run();
  // Takes no more connections, and closes those that are idle.
  void stop();
  // Waits until those that are left have ended, or `deadline`; whether it was the former.
  Async<bool> drained(Signal::Clock::time_point deadline);

 private:
  friend class Connection;

  // A request whose handler runs.
  struct Running {
    const Exchange& exchange;
    boost::asio::ip::tcp::socket& socket;
    std::optional<Problem> refusal;  // its key is not valid any more
  };

  void look_at_keys();
  Async<> watch_keys();

  App& app_;
  HttpAccess access_;
  HttpLimits limits_;
  RequestLog& log_;
  std::map<std::string, Handler, std::less<>> handlers_;
  boost::asio::ip::tcp::acceptor acceptor_;
  bool stopping_ = false;
  std::size_t connections_ = 0;
  std::list<Running> running_;
  bool watching_ = false;         // watch_keys() runs
  std::size_t whole_bodies_ = 0;  // bytes of them that there are
  std::uint64_t requests_so_far_ = 0;
  std::set<boost::asio::ip::tcp::socket*> idle_;
  Signal changed_;
};

}  // namespace msb::server
