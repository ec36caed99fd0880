// SPDX-License-Identifier: Apache-2.0
// A guest's DNS, through this host's resolvers.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "launcher/network/connector.hpp"
#include "launcher/network/datagram_stream.hpp"
#include "launcher/network/dns_query.hpp"
#include "launcher/network/relay.hpp"
#include "launcher/network/resolver.hpp"

namespace msb::launcher {

// Takes connections from the guest, each of which is one TCP connection to its resolver's address,
// or one sender of datagrams there. What is no query is dropped, and ends a TCP connection, as a
// transfer of a zone does. Used on the loop's thread, which must be drained after close().
class DnsForward {
 public:
  struct Limits {
    std::size_t connections = 64;         // of TCP, beyond which more are closed
    std::size_t senders = 256;            // beyond which the one that was idle longest gives way
    std::size_t queries = 512;            // by UDP, beyond which the answer is SERVFAIL
    std::size_t queries_of_sender = 128;  // of these
    // Its first query may be on its way: until then a sender that got no answer is not idle.
    std::chrono::milliseconds unasked_for{1'000};
    std::uint64_t connect_timeout_ns = 2'000'000'000;  // of each resolver, by TCP
    DnsQuery::Times times;
    std::uint16_t port = 53;  // of the resolvers
  };

  // `resolv_conf`: the path of a resolv.conf(5), which is looked at for every query.
  DnsForward(AsyncIo& io, std::string resolv_conf, Limits limits);
  DnsForward(const DnsForward&) = delete;
  DnsForward& operator=(const DnsForward&) = delete;
  ~DnsForward();

  // The search domains of this host.
  std::vector<std::string> search() { return resolvers_.now().search; }
  // Take stream sockets in blocking mode.
  void accept_tcp(Fd connection);
  void accept_udp(Fd connection);
  void close();

 private:
  struct Connecting;
  struct Query;
  struct Sender;

  std::vector<SocketAddress> servers();
  void on_datagram(std::list<Sender>::iterator sender, std::span<const std::byte> datagram);
  bool make_room();

  AsyncIo& io_;
  const Limits limits_;
  bool closed_ = false;
  Resolvers resolvers_;
  std::list<Connecting> connecting_;
  Relays relays_;
  std::list<Sender> senders_;  // the one that was used last first
  std::size_t queries_ = 0;    // of all senders
};

}  // namespace msb::launcher
