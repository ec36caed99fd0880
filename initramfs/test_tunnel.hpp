// SPDX-License-Identifier: Apache-2.0
// Tunnels between socket pairs, whose other ends are the host's, and listeners on this machine.
#pragma once

extern "C" {
#include "initramfs/forwards.h"
#include "initramfs/tunnel.h"
}

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "protocol/msb_exec.h"

namespace msb::test {

/// A non-blocking end of a conversation.
class Socket {
 public:
  explicit Socket(int descriptor = -1);
  ~Socket();
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;

  int get() const { return descriptor_; }
  void close();
  /// Closes so that TCP sends a reset.
  void reset();
  /// Ends what this side sends.
  void end() const;
  /// Returns how much of it was taken.
  size_t send(std::string_view bytes) const;
  /// Adds what is there to `bytes`. False at the end of the stream, or when it was reset.
  bool receive(std::string& bytes) const;

 private:
  int descriptor_;
};

/// The agent's loop, with nothing but tunnels.
class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// As run_round() in agent.c. Returns how many events there were.
  int round(int timeout_ms);
  /// Runs until something is so. False when that takes too long.
  bool until(const std::function<bool()>& condition);
  /// Rounds that found events while nothing outside happened.
  int rounds_while_nothing_happens();
  /// Sends until nothing more is taken however long the loop runs. Returns how many bytes that was.
  size_t send_until_stuck(const Socket& from);
  /// Receives until the end of the stream. False when that does not come.
  bool reads_end(const Socket& socket, std::string& bytes);
  bool is_empty() const { return tunnels_.first == nullptr && tunnels_.flows.first == nullptr; }
  tunnels& all() { return tunnels_; }
  /// Serves forwards too; they have to stay as long as this does.
  void serve(forwards& all);
  /// The host's end of a new tunnel.
  Socket open(const std::string& payload, const std::string& rest = {});

 private:
  tunnels tunnels_{};
  forwards* forwards_ = nullptr;
};

std::string connect_payload(uint32_t kind, uint32_t port, const std::string& path = {});

enum class Kind { kIpv4, kIpv6, kUnix };
inline constexpr Kind kKinds[] = {Kind::kIpv4, Kind::kIpv6, Kind::kUnix};

/// A server in the guest, at a port or path of its own.
class Listener {
 public:
  explicit Listener(Kind kind, int backlog = 300);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  /// Of a CONNECT to it.
  std::string payload() const;
  const std::string& path() const { return path_; }
  uint16_t port() const { return port_; }
  /// The next connection; none (-1) when there is none yet.
  Socket accept() const;

 private:
  void listen_at(sockaddr* address, socklen_t length, int backlog);

  Kind kind_;
  Socket socket_;
  uint16_t port_ = 0;
  std::string path_;
  char directory_[32] = "/tmp/tunnel-test-XXXXXX";
};

/// The frame.
std::string done();

struct Ends {
  Socket host;
  Socket guest;
};

/// A tunnel that stands, with DONE read.
Ends open_ends(Loop& loop, const Listener& listener, const std::string& rest = {});

struct Refusal {
  msb_failure failure{};
  std::string text;
};

/// What the host reads of a tunnel that is refused, until it is closed.
Refusal refusal(Loop& loop, const Socket& host);

std::string random_bytes(size_t size, unsigned seed);

/// The exit status of `act` in a process with a network of its own, in which only loopback is. Only
/// root can do that.
int in_own_network(const std::function<int()>& act);

}  // namespace msb::test
