// SPDX-License-Identifier: Apache-2.0
// One client of the control socket: lines in, lines out, and bounds on both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/async_io.hpp"
#include "base/fd.hpp"

namespace msb::launcher {

// Gives one line at a time to its owner, and the next one when that is finished. Keeps itself for
// as long as the loop has operations of it; the loop must be drained after leave().
class LineClient : public std::enable_shared_from_this<LineClient> {
 public:
  struct Owner {
    // A line without its newline. finish() has to follow, inside the call or later.
    std::function<void(LineClient& client, std::string line)> line;
    // A line is longer than kMaxLine. The client is closed when what waits for it has been sent.
    std::function<void(LineClient& client)> too_long;
    // The connection has ended. Runs once, also inside send() and leave().
    std::function<void(LineClient& client)> left;
  };

  static constexpr std::size_t kMaxLine = 64 * 1024;  // bytes, without the newline
  // What may wait for a client that does not read. Beyond the first its lines wait, beyond the
  // second it is closed.
  static constexpr std::size_t kPatience = 64 * 1024;
  static constexpr std::size_t kMaxWaiting = 1024 * 1024;

  // `socket`: a connected stream socket. To be owned by a shared pointer. `max_waiting`: instead of
  // kMaxWaiting, for tests.
  LineClient(AsyncIo& io, Fd socket, Owner owner, std::size_t max_waiting = kMaxWaiting);
  LineClient(const LineClient&) = delete;
  LineClient& operator=(const LineClient&) = delete;
  ~LineClient() = default;

  void start();
  // Sends text at once as far as the socket takes it, and the rest when the client reads.
  void send(std::string_view text);
  // The line that the owner has is done with.
  void finish();
  // Closes the connection. What waits for the client is lost.
  void leave();

 private:
  void complete(std::int32_t result, void (LineClient::*step)());
  void on_readable();
  void on_writable();
  void work();
  void take_lines();
  void flush();
  void wait_for_more();
  [[nodiscard]] bool may_take() const;

  AsyncIo& io_;
  Fd socket_;
  const Owner owner_;
  const std::size_t max_waiting_;
  std::string input_;       // what was read and not taken
  std::string output_;      // what the socket did not take yet
  bool has_line_ = false;   // input_ may have one
  bool under_way_ = false;  // the owner has a line
  bool working_ = false;
  bool ended_ = false;    // the client writes no more
  bool closing_ = false;  // its lines are not taken any more
  bool left_ = false;
  Operation readable_;
  Operation writable_;
  Operation again_;
  std::shared_ptr<LineClient> self_;  // after leave(), while an operation is pending
};

}  // namespace msb::launcher
