// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/dns_forward.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "launcher/network/dns_message.hpp"

namespace msb::launcher {

// A TCP connection whose resolver has not accepted yet.
struct DnsForward::Connecting {
  Fd guest;
  std::optional<Connector> connector;
};

struct DnsForward::Query {
  std::optional<DnsQuery> query;
};

struct DnsForward::Sender {
  explicit Sender(std::size_t& all_queries) : all(all_queries) {}
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;
  ~Sender() { all -= queries.size(); }

  std::size_t& all;
  std::list<Query> queries;
  std::optional<DatagramStream> stream;
};

DnsForward::DnsForward(AsyncIo& io, std::string resolv_conf, Limits limits)
    : io_(io),
      limits_(limits),
      resolvers_(std::move(resolv_conf)),
      relays_(io, limits.connections) {}

DnsForward::~DnsForward() {
  close();
}

void DnsForward::close() {
  closed_ = true;
  connecting_.clear();
  relays_.close();
  senders_.clear();
}

std::vector<SocketAddress> DnsForward::servers() {
  std::vector<SocketAddress> servers = resolvers_.now().servers;
  for (SocketAddress& server : servers) {
    server.set_port(limits_.port);
  }
  return servers;
}

void DnsForward::accept_tcp(Fd connection) {
  if (closed_ || connecting_.size() + relays_.count() >= limits_.connections) {
    return;
  }
  const auto position = connecting_.emplace(connecting_.begin());
  position->guest = std::move(connection);
  position->connector.emplace(io_, servers(), limits_.connect_timeout_ns,
                              [this, position](Result<Fd> resolver) {
                                Fd guest = std::move(position->guest);
                                connecting_.erase(position);
                                if (resolver) {
                                  relays_.add(std::move(guest), std::move(*resolver));
                                }
                              });
}

void DnsForward::accept_udp(Fd connection) {
  if (closed_ || !make_room()) {
    return;
  }
  const auto position = senders_.emplace(senders_.begin(), queries_);
  position->stream.emplace(
      io_, std::move(connection),
      DatagramStream::Events{
          .received = [this, position](
                          std::span<const std::byte> datagram) { on_datagram(position, datagram); },
          .ended = [this, position] { senders_.erase(position); }});
}

// Programs in the guest send each query from a port of its own, and leave it.
bool DnsForward::make_room() {
  if (senders_.size() < limits_.senders) {
    return true;
  }
  const auto idle = std::find_if(senders_.rbegin(), senders_.rend(),
                                 [](const Sender& sender) { return sender.queries.empty(); });
  if (idle == senders_.rend()) {
    return false;
  }
  senders_.erase(std::prev(idle.base()));
  return true;
}

void DnsForward::on_datagram(std::list<Sender>::iterator sender,
                             std::span<const std::byte> datagram) {
  if (!is_dns_query(datagram) || queries_ >= limits_.queries) {
    return;
  }
  senders_.splice(senders_.begin(), senders_, sender);
  const auto position = sender->queries.emplace(sender->queries.begin());
  ++queries_;
  position->query.emplace(io_, std::vector(datagram.begin(), datagram.end()), servers(),
                          limits_.times,
                          [this, sender, position](std::span<const std::byte> answer) {
                            if (!answer.empty()) {
                              sender->stream->send(answer);
                            }
                            sender->queries.erase(position);
                            --queries_;
                          });
}

}  // namespace msb::launcher
