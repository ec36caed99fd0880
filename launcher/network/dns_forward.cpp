// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/dns_forward.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "launcher/network/dns_message.hpp"

namespace msb::launcher {

namespace {

// Of DNS by TCP (RFC 1035, 4.2.2): whole queries, each with its length in front. Nothing when
// something else came.
std::optional<std::size_t> pass_queries(std::span<const std::byte> bytes) {
  constexpr std::size_t kLength = 2;  // bytes, big-endian
  static_assert(kLength + kMaxDnsQuery < Relays::kRelayBuffer);
  std::size_t passed = 0;
  while (bytes.size() - passed >= kLength) {
    const auto rest = bytes.subspan(passed);
    const std::size_t size =
        std::to_integer<std::size_t>(rest[0]) << 8 | std::to_integer<std::size_t>(rest[1]);
    if (size < kDnsHeader || size > kMaxDnsQuery) {
      return std::nullopt;
    }
    if (rest.size() < kLength + size) {
      break;
    }
    const auto message = rest.subspan(kLength, size);
    if (!is_dns_query(message) || is_dns_transfer(message)) {
      return std::nullopt;
    }
    passed += kLength + size;
  }
  return passed;
}

}  // namespace

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

  // Its first query may be on its way.
  [[nodiscard]] bool is_idle(std::chrono::milliseconds unasked_for) const {
    return queries.empty() && (answered || std::chrono::steady_clock::now() - came >= unasked_for);
  }

  std::size_t& all;
  const std::chrono::steady_clock::time_point came = std::chrono::steady_clock::now();
  bool answered = false;
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
                                  relays_.add(std::move(guest), std::move(*resolver), pass_queries);
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
  const auto idle = std::find_if(senders_.rbegin(), senders_.rend(), [this](const Sender& sender) {
    return sender.is_idle(limits_.unasked_for);
  });
  if (idle == senders_.rend()) {
    return false;
  }
  senders_.erase(std::prev(idle.base()));
  return true;
}

void DnsForward::on_datagram(std::list<Sender>::iterator sender,
                             std::span<const std::byte> datagram) {
  if (!is_dns_query(datagram)) {
    return;
  }
  senders_.splice(senders_.begin(), senders_, sender);
  if (queries_ >= limits_.queries || sender->queries.size() >= limits_.queries_of_sender) {
    sender->stream->send(dns_server_failure(datagram));
    return;
  }
  const auto position = sender->queries.emplace(sender->queries.begin());
  ++queries_;
  position->query.emplace(io_, std::vector(datagram.begin(), datagram.end()), servers(),
                          limits_.times,
                          [this, sender, position](std::span<const std::byte> answer) {
                            if (!answer.empty()) {
                              sender->stream->send(answer);
                            }
                            sender->answered = true;
                            sender->queries.erase(position);
                            --queries_;
                          });
}

}  // namespace msb::launcher
