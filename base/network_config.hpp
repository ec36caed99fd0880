// SPDX-License-Identifier: Apache-2.0
// The network card of a machine, and what its guest may reach through it.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb {

inline constexpr std::size_t kMaxNetworkRules = 256;
inline constexpr std::size_t kMaxHostAddresses = 1024;
inline constexpr std::uint32_t kMinMtu = 1280;   // RFC 8200 section 5: of every link that has IPv6
inline constexpr std::uint32_t kMaxMtu = 65520;  // what a frame of 65,535 bytes holds, and more

// An IPv4 (in the first 4 bytes) or IPv6 address, in network byte order.
struct IpAddress {
  std::uint32_t family = 4;  // 4 or 6
  std::array<std::uint8_t, 16> bytes{};

  [[nodiscard]] std::uint32_t bits() const { return family == 4 ? 32 : 128; }
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;

  // As one text, for there may be many: the family, then the bytes in hexadecimal.
  template <class Archive>
  std::string save_minimal(const Archive& archive) const;
  // What is none has the family 0.
  template <class Archive>
  void load_minimal(const Archive& archive, const std::string& text);
};

// All addresses that agree with `address` in the first `length` bits.
struct IpPrefix {
  IpAddress address;
  std::uint32_t length = 0;

  [[nodiscard]] bool contains(const IpAddress& other) const {
    if (other.family != address.family) {
      return false;
    }
    const std::uint32_t whole = length / 8;
    for (std::uint32_t i = 0; i < whole; ++i) {
      if (address.bytes[i] != other.bytes[i]) {
        return false;
      }
    }
    const std::uint32_t rest = length % 8;
    return rest == 0 || ((address.bytes[whole] ^ other.bytes[whole]) >> (8 - rest)) == 0;
  }
  friend bool operator==(const IpPrefix&, const IpPrefix&) = default;

  template <class Archive>
  void serialize(Archive& archive);
};

// What one line of a policy says of packets that leave the guest. The first one that a packet
// matches decides; a packet that matches none is denied.
struct NetworkRule {
  static constexpr std::uint32_t kAnyProtocol = 256;

  bool allow = false;
  bool host = false;  // instead of a destination: the addresses in NetworkConfig::host_addresses
  IpPrefix destination;
  std::uint32_t protocol = kAnyProtocol;  // an IP protocol number
  std::uint32_t first_port = 0;           // of TCP and UDP; 0 to 65535 matches packets without
  std::uint32_t last_port = 65535;
  friend bool operator==(const NetworkRule&, const NetworkRule&) = default;

  template <class Archive>
  void serialize(Archive& archive);
};

enum class NetworkBackend : std::uint32_t {
  kNone = 0,  // no card
  kTap = 1,   // a tap device with a virtio-net header of 12 bytes before each frame
  kStream =
      2,  // a stream socket; each frame has its length in front, 4 bytes in network byte order
};

struct NetworkConfig {
  std::uint32_t backend = 0;     // a NetworkBackend
  std::uint32_t descriptor = 0;  // of the backend, as others in MachineConfig; non-blocking
  std::array<std::uint8_t, 6> mac{};
  std::uint32_t mtu = 1500;         // bytes
  std::vector<IpPrefix> addresses;  // the guest's own, with their links' prefixes
  std::vector<NetworkRule> rules;
  std::vector<IpAddress> host_addresses;  // this host's own
  std::uint64_t receive_rate = 0;         // bytes per second into the guest; 0: no limit
  std::uint64_t send_rate = 0;            // likewise out of it

  template <class Archive>
  void serialize(Archive& archive);
};

// The addresses of a host that changed them, for a machine that runs.
std::string host_addresses_text(const std::vector<IpAddress>& addresses);
// Fails on anything else.
Result<std::vector<IpAddress>> host_addresses_from(std::string_view text);

}  // namespace msb
