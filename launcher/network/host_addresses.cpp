// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/host_addresses.hpp"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

namespace msb::launcher {

namespace {

std::optional<IpAddress> ip_address(const sockaddr* address) {
  IpAddress ip;
  if (address != nullptr && address->sa_family == AF_INET) {
    sockaddr_in four{};
    std::memcpy(&four, address, sizeof four);
    std::memcpy(ip.bytes.data(), &four.sin_addr, sizeof four.sin_addr);
    return ip;
  }
  if (address != nullptr && address->sa_family == AF_INET6) {
    sockaddr_in6 six{};
    std::memcpy(&six, address, sizeof six);
    ip.family = 6;
    std::memcpy(ip.bytes.data(), &six.sin6_addr, sizeof six.sin6_addr);
    return ip;
  }
  return std::nullopt;
}

}  // namespace

bool InterfaceAddress::loopback() const {
  const auto& bytes = address.address.bytes;
  return address.address.family == 4
             ? bytes[0] == 127
             : std::count(bytes.begin(), bytes.end() - 1, 0) == 15 && bytes[15] == 1;
}

bool InterfaceAddress::link_local() const {
  const auto& bytes = address.address.bytes;
  return address.address.family == 4 ? bytes[0] == 169 && bytes[1] == 254
                                     : bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

Result<std::vector<InterfaceAddress>> interface_addresses() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) {
    return fail_errno(errno, "cannot list this host's network addresses");
  }
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, ::freeifaddrs);
  std::vector<InterfaceAddress> found;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    const auto address = ip_address(entry->ifa_addr);
    const auto mask = ip_address(entry->ifa_netmask);
    if (!address) {
      continue;
    }
    std::uint32_t length = 0;
    for (std::uint32_t i = 0; mask && i < address->bits() / 8; ++i) {
      length += static_cast<std::uint32_t>(std::popcount(mask->bytes[i]));
    }
    found.push_back({entry->ifa_name, {*address, mask ? length : address->bits()}});
  }
  return found;
}

}  // namespace msb::launcher
