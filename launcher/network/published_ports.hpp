// SPDX-License-Identifier: Apache-2.0
// Ports of this host that lead into a guest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/async_io.hpp"
#include "base/publish.hpp"
#include "base/result.hpp"
#include "launcher/network/tcp_listener.hpp"
#include "launcher/network/tunnel_relays.hpp"
#include "launcher/network/udp_flows.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

// One of them, as it is bound.
struct PublishedPort {
  Transport transport = Transport::kTcp;
  std::string address;  // of this host, without brackets
  std::uint16_t host_port = 0;
  std::uint16_t guest_port = 0;
};

// Each TCP connection, and each sender of datagrams, gets a tunnel of its own. Who connects to a
// port where nobody listens in the guest is reset. Used on the loop's thread, which must be drained
// after close().
class PublishedPorts {
 public:
  struct Limits {
    // Of TCP; those beyond wait in the sockets' queues. A place is kept for each port that has
    // none.
    std::size_t connections = 768;
    TunnelTimes times;
    UdpFlows::Limits flows;
  };

  // Binds all or none. Who connects waits until open(). Fails with a sentence that names the port:
  // in use, not permitted, not an address of this host. `opener`: to the agent.
  static Result<std::unique_ptr<PublishedPorts>> create(AsyncIo& io,
                                                        std::span<const PublishWords> words,
                                                        protocol::Opener opener, Limits limits);
  PublishedPorts(const PublishedPorts&) = delete;
  PublishedPorts& operator=(const PublishedPorts&) = delete;
  ~PublishedPorts();

  // In the order of the words.
  [[nodiscard]] const std::vector<PublishedPort>& list() const { return list_; }
  // Who wants to know what happens: how many TCP connections there are when that has changed, and
  // each datagram that passes, in either direction. To be called before open().
  struct Watcher {
    std::function<void(std::size_t)> connections;
    std::function<void()> datagram;
  };
  void watch(Watcher watcher);
  // Starts to serve.
  void open();
  // Gives the ports back and ends every connection.
  void close();

 private:
  PublishedPorts(AsyncIo& io, protocol::Opener opener, Limits limits);
  struct TcpPort;

  Result<void> add(const PublishWords& words);
  [[nodiscard]] bool has_room(const TcpPort& port) const;
  void accept_more();
  void tell() const;

  AsyncIo& io_;
  const protocol::Opener opener_;
  std::vector<PublishedPort> list_;
  const Limits limits_;
  std::list<TcpPort> tcp_ports_;
  UdpFlows flows_;
  std::function<void(std::size_t)> connections_;  // of the watcher
};

}  // namespace msb::launcher
