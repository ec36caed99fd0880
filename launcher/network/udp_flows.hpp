// SPDX-License-Identifier: Apache-2.0
// Published UDP ports: a tunnel into the guest for each sender of datagrams.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <utility>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/socket_address.hpp"
#include "launcher/network/datagram_stream.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/opener.hpp"
#include "protocol/tunnel.hpp"

namespace msb::launcher {

// A flow is what one sender sends to one published address, and the answers. A guest that is slow
// loses datagrams. Used on the loop's thread, which must be drained after close().
class UdpFlows {
 public:
  struct Limits {
    std::size_t flows = 256;                       // the one that was idle longest gives way
    std::chrono::milliseconds idle{60'000};        // after which one is ended
    std::chrono::milliseconds refused_for{1'000};  // a sender whom the guest refused waits
  };

  // `opener`: to the agent.
  UdpFlows(AsyncIo& io, protocol::Opener opener, Limits limits);
  UdpFlows(const UdpFlows&) = delete;
  UdpFlows& operator=(const UdpFlows&) = delete;
  ~UdpFlows();

  // Takes a bound socket in non-blocking mode. Fails when it cannot be set up.
  Result<void> add(Fd socket, std::uint16_t guest_port);
  // `used` runs with each datagram that passes, in either direction.
  void watch(std::function<void()> used) { used_ = std::move(used); }
  // Starts to serve.
  void open();
  void close();

 private:
  using Clock = std::chrono::steady_clock;

  struct Port {
    Port(UdpFlows& flows, Fd bound, std::uint16_t port_in_guest);
    Fd socket;
    const std::uint16_t guest_port;
    Operation readable;
    Operation retry;
  };

  // An address of this host, which answers are to come from: in_addr or in6_addr.
  using LocalAddress = std::array<std::byte, 16>;
  struct Key {
    Port* port;
    SocketAddress client;
    LocalAddress local;
    bool operator<(const Key& other) const {
      return std::tie(port, client, local) < std::tie(other.port, other.client, other.local);
    }
  };

  struct Flow {
    explicit Flow(const Key& its_key) : key(its_key) {}
    const Key key;
    Clock::time_point used;
    bool refused = false;
    WaitingDatagrams waiting;  // for the tunnel
    std::optional<protocol::Tunnel> tunnel;
    std::optional<DatagramStream> stream;
  };
  using Position = std::list<Flow>::iterator;

  void receive_more(Port& port);
  void on_readable(Port& port, std::int32_t result);
  std::int32_t receive(Port& port);
  void on_datagram(const Key& key, std::span<const std::byte> datagram);
  Position find_or_start(const Key& key);
  bool start(Flow& flow);
  void on_tunnel(Flow& flow, protocol::Answer<Fd> answer);
  static void answer(const Flow& flow, std::span<const std::byte> datagram);
  static void refuse(Flow& flow);
  void touch(Position flow);
  void end(Position flow);
  void on_timer(std::int32_t result);
  void expire();
  void wait_for_idle();

  AsyncIo& io_;
  const protocol::Opener opener_;
  const Limits limits_;
  std::function<void()> used_;
  bool open_ = false;
  std::list<Port> ports_;
  std::list<Flow> flows_;  // the one that was used last first
  std::map<Key, Position> by_key_;
  Operation timer_;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace msb::launcher
