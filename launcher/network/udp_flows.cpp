// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/udp_flows.hpp"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "protocol/host_frames.hpp"

namespace msb::launcher {

namespace {

constexpr std::uint64_t kRetry = 100'000'000;  // nanoseconds
// In one turn of the loop, which has other work too.
constexpr int kReceivedAtOnce = 64;
constexpr std::size_t kLargest = 65536;  // more than a datagram can have

// Room for the control message that says which address of this host a datagram was sent to.
struct PacketInfo {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(in6_pktinfo))] = {};
};

}  // namespace

UdpFlows::Port::Port(UdpFlows& flows, Fd bound, std::uint16_t port_in_guest)
    : socket(std::move(bound)),
      guest_port(port_in_guest),
      readable([&flows, this](std::int32_t result) { flows.on_readable(*this, result); }),
      retry([&flows, this](std::int32_t result) {
        if (result == -ETIME) {
          flows.receive_more(*this);
        }
      }) {}

UdpFlows::UdpFlows(AsyncIo& io, protocol::Opener opener, Limits limits)
    : io_(io),
      opener_(std::move(opener)),
      limits_(limits),
      timer_([this](std::int32_t result) { on_timer(result); }),
      buffer_(std::make_unique_for_overwrite<std::byte[]>(kLargest)) {}

UdpFlows::~UdpFlows() {
  close();
}

Result<void> UdpFlows::add(Fd socket, std::uint16_t guest_port) {
  const int on = 1;
  const bool is_ipv4 = bound_address(socket.get()).family() == AF_INET;
  if (::setsockopt(socket.get(), is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6,
                   is_ipv4 ? IP_PKTINFO : IPV6_RECVPKTINFO, &on, sizeof on) != 0) {
    return fail_errno(errno, "cannot set up a UDP socket");
  }
  ports_.emplace_back(*this, std::move(socket), guest_port);
  return {};
}

void UdpFlows::open() {
  open_ = true;
  for (Port& port : ports_) {
    receive_more(port);
  }
}

void UdpFlows::close() {
  open_ = false;
  while (!flows_.empty()) {
    end(flows_.begin());
  }
  for (Port& port : ports_) {
    io_.cancel(port.readable);
    io_.cancel(port.retry);
    port.socket.reset();
  }
  io_.cancel(timer_);
}

void UdpFlows::receive_more(Port& port) {
  if (open_ && !port.readable.pending() && !port.retry.pending()) {
    io_.poll(port.socket.get(), POLLIN, port.readable);
  }
}

void UdpFlows::on_readable(Port& port, std::int32_t result) {
  if (result == -ECANCELED || !open_) {
    return;
  }
  for (int i = 0; i < kReceivedAtOnce; ++i) {
    const std::int32_t code = receive(port);
    if (code == EAGAIN) {
      break;
    }
    if (code != 0 && code != EINTR) {
      io_.timeout(kRetry, port.retry);
      break;
    }
  }
  receive_more(port);
}

// One datagram. Returns an errno, or 0.
std::int32_t UdpFlows::receive(Port& port) {
  sockaddr_in6 client{};
  iovec place{buffer_.get(), kLargest};
  PacketInfo info;
  msghdr message{};
  message.msg_name = &client;
  message.msg_namelen = sizeof client;
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  message.msg_control = info.bytes;
  message.msg_controllen = sizeof info.bytes;
  const ssize_t size = ::recvmsg(port.socket.get(), &message, 0);
  if (size < 0) {
    return errno;
  }
  LocalAddress local{};
  for (cmsghdr* each = CMSG_FIRSTHDR(&message); each != nullptr;
       each = CMSG_NXTHDR(&message, each)) {
    if (each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_PKTINFO) {
      in_pktinfo fields{};
      std::memcpy(&fields, CMSG_DATA(each), sizeof fields);
      std::memcpy(local.data(), &fields.ipi_spec_dst, sizeof fields.ipi_spec_dst);
    } else if (each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo fields{};
      std::memcpy(&fields, CMSG_DATA(each), sizeof fields);
      std::memcpy(local.data(), &fields.ipi6_addr, sizeof fields.ipi6_addr);
    }
  }
  const auto* const address = reinterpret_cast<const sockaddr*>(&client);
  on_datagram({&port, SocketAddress(address, message.msg_namelen), local},
              {buffer_.get(), static_cast<std::size_t>(size)});
  return 0;
}

void UdpFlows::on_datagram(const Key& key, std::span<const std::byte> datagram) {
  const Position flow = find_or_start(key);
  if (flow == flows_.end() || flow->refused) {
    return;
  }
  touch(flow);
  if (flow->stream) {
    flow->stream->send(datagram);
  } else {
    flow->waiting.add(datagram);
  }
}

// The end of flows_ when there is no way to the guest now.
UdpFlows::Position UdpFlows::find_or_start(const Key& key) {
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) {
    const Position flow = found->second;
    if (!flow->refused || Clock::now() - flow->used < limits_.refused_for) {
      return flow;
    }
    end(flow);
  }
  if (flows_.size() >= limits_.flows) {
    end(std::prev(flows_.end()));
  }
  const Position flow = flows_.emplace(flows_.begin(), key);
  by_key_.emplace(key, flow);
  flow->used = Clock::now();
  if (!start(*flow)) {
    end(flow);
    return flows_.end();
  }
  wait_for_idle();
  return flow;
}

bool UdpFlows::start(Flow& flow) {
  auto socket = opener_();
  if (!socket) {
    return false;
  }
  // Cannot fail: 0 is not published.
  flow.tunnel.emplace(
      io_, std::move(*socket), *protocol::encode_connect_udp(flow.key.port->guest_port),
      [this, &flow](protocol::Answer<Fd> answer) { on_tunnel(flow, std::move(answer)); });
  return true;
}

void UdpFlows::on_tunnel(Flow& flow, protocol::Answer<Fd> answer) {
  const Position position = by_key_.at(flow.key);
  if (!answer && answer.error().stage != 0) {
    refuse(flow);
    return;
  }
  if (!answer) {  // the connection broke, which the guest did not say
    end(position);
    return;
  }
  flow.stream.emplace(
      io_, std::move(*answer),
      DatagramStream::Events{.received =
                                 [this, position](std::span<const std::byte> datagram) {
                                   touch(position);
                                   UdpFlows::answer(*position, datagram);
                                 },
                             .ended = [this, position] { end(position); }},
      std::exchange(flow.waiting, {}));
  flow.tunnel.reset();  // and with it this callback
}

// From the address that the sender had sent to: it would not know another one. What does not fit
// the socket's buffer is lost, as datagrams are.
void UdpFlows::answer(const Flow& flow, std::span<const std::byte> datagram) {
  iovec place{const_cast<std::byte*>(datagram.data()), datagram.size()};
  PacketInfo info;
  msghdr message{};
  message.msg_name = const_cast<sockaddr*>(flow.key.client.get());
  message.msg_namelen = flow.key.client.size();
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  message.msg_control = info.bytes;
  message.msg_controllen = sizeof info.bytes;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (flow.key.client.family() == AF_INET) {
    in_pktinfo fields{};
    std::memcpy(&fields.ipi_spec_dst, flow.key.local.data(), sizeof fields.ipi_spec_dst);
    header->cmsg_level = IPPROTO_IP;
    header->cmsg_type = IP_PKTINFO;
    header->cmsg_len = CMSG_LEN(sizeof fields);
    message.msg_controllen = CMSG_SPACE(sizeof fields);
    std::memcpy(CMSG_DATA(header), &fields, sizeof fields);
  } else {
    in6_pktinfo fields{};
    std::memcpy(&fields.ipi6_addr, flow.key.local.data(), sizeof fields.ipi6_addr);
    header->cmsg_level = IPPROTO_IPV6;
    header->cmsg_type = IPV6_PKTINFO;
    header->cmsg_len = CMSG_LEN(sizeof fields);
    std::memcpy(CMSG_DATA(header), &fields, sizeof fields);
  }
  ::sendmsg(flow.key.port->socket.get(), &message, MSG_NOSIGNAL);
}

// It stays for a while, so that not every datagram of a sender who goes on asks the guest.
void UdpFlows::refuse(Flow& flow) {
  flow.refused = true;
  flow.waiting = {};
}

void UdpFlows::touch(Position flow) {
  flow->used = Clock::now();
  flows_.splice(flows_.begin(), flows_, flow);
  if (used_) {
    used_();
  }
}

void UdpFlows::end(Position flow) {
  by_key_.erase(flow->key);
  flows_.erase(flow);
}

void UdpFlows::on_timer(std::int32_t result) {
  if (result == -ETIME && open_) {
    expire();
    wait_for_idle();
  }
}

void UdpFlows::expire() {
  while (!flows_.empty() && Clock::now() - flows_.back().used >= limits_.idle) {
    end(std::prev(flows_.end()));
  }
}

void UdpFlows::wait_for_idle() {
  if (!flows_.empty() && !timer_.pending()) {
    const std::chrono::nanoseconds left = flows_.back().used + limits_.idle - Clock::now();
    // Not too early, or it would have to be looked at again and again.
    io_.timeout(static_cast<std::uint64_t>(std::max<std::int64_t>(left.count(), 1'000'000)),
                timer_);
  }
}

}  // namespace msb::launcher
