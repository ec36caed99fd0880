// SPDX-License-Identifier: Apache-2.0
// What a guest's frames may do: where each may go, from whom it may say that it comes, and which
// are answers to what came from outside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "base/network_config.hpp"
#include "base/network_denial.hpp"
#include "virtio/net/packet.hpp"
#include "virtio/net/policy.hpp"
#include "virtio/net/recent.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

class FrameFilter {
 public:
  struct Options {
    MacAddress mac{};  // the guest's own, and its addresses
    std::vector<IpPrefix> addresses;
    std::vector<NetworkRule> rules;
    std::vector<IpAddress> host;  // what rules for the host itself mean
    // Who takes the frames makes connections of its own of them, and knows TCP, UDP and ICMP only,
    // in whole packets: what else there is it takes for something that it is not. Nobody begins a
    // connection to the guest through it.
    bool proxied = false;
  };
  explicit FrameFilter(Options options);

  void set_host(std::vector<IpAddress> host) { policy_.set_host(std::move(host)); }
  // Nothing passes, in either direction.
  [[nodiscard]] bool closed() const { return closed_; }

  enum class Verdict : std::uint8_t {
    kPass,
    kMalformed,  // no packet that one could judge
    kIgnore,     // dropped without a word: what guests say by themselves, and protocols but IP
    kDeny,       // dropped, told, and answered by refusal()
  };
  // Of a frame that the guest sends, by `head` as parse_packet(). `now` in nanoseconds, of any
  // clock that does not go back.
  Verdict check_sent(std::span<const std::byte> head, std::size_t size, const NetHeader& header,
                     std::uint64_t now);
  // Whether a frame for the guest is let in; remembers whom the guest may answer.
  bool check_received(std::span<const std::byte> head, std::size_t size, std::uint64_t now);

  // Of the frame that was denied last.
  [[nodiscard]] const NetworkDenial& denial() const { return denial_; }
  // The frame that tells the guest of it: a reset, or "unreachable, administratively prohibited".
  // Empty when nothing is to be said.
  [[nodiscard]] std::vector<std::byte> refusal(std::span<const std::byte> head) const;

 private:
  // One that came from outside: protocol, the other's address, its port and the guest's (of an
  // echo its identifier, twice).
  using Flow = std::tuple<std::uint8_t, IpAddress, std::uint16_t, std::uint16_t>;
  using Fragmented = std::tuple<IpAddress, IpAddress, std::uint32_t, std::uint8_t>;

  [[nodiscard]] bool is_own(const IpAddress& address) const;
  [[nodiscard]] bool is_on_link(const IpAddress& address) const;
  [[nodiscard]] static bool is_plain(const Packet& packet);
  Verdict check_arp(const Packet& packet) const;
  [[nodiscard]] std::optional<Verdict> check_link_talk(const Packet& packet) const;
  Verdict check_ip(const Packet& packet, std::uint64_t now);
  Verdict check_later_fragment(const Packet& packet, std::uint64_t now);
  [[nodiscard]] bool answers(const Packet& packet, std::uint64_t now);
  void remember_received(const Packet& packet, std::uint64_t now);
  Verdict deny(NetworkDenial::Reason reason, const Packet& packet,
               std::optional<std::uint32_t> rule = {});
  static std::optional<Flow> flow_of(const Packet& packet, bool sent);

  const MacAddress mac_;
  const std::vector<IpPrefix> addresses_;
  const bool proxied_;
  Policy policy_;
  const bool closed_;
  // What came from outside and may be answered. A TCP connection is new until there was more than
  // its beginning, so that no flood of those takes the place of one that is in use.
  Recent<Flow, bool> new_connections_;
  Recent<Flow, bool> connections_;
  Recent<Flow, bool> datagrams_;
  Recent<Flow, bool> questions_;  // datagrams that the guest sent to a proxy: their answers come in
  Recent<Fragmented, std::size_t> fragments_;  // let out; how many bytes their headers take
  NetworkDenial denial_;
  Packet denied_;
};

// Whether what the driver asks of the device below, in a header before the frame, is only what it
// should: a checksum where the protocol has it, and cutting into segments of that protocol. The
// checksum is written behind all checks, so anywhere else it could turn a packet into another one.
bool is_offload_sane(const NetHeader& header, const std::optional<Packet>& packet);

}  // namespace msb::virtio
