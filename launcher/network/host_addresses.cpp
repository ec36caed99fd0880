// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/host_addresses.hpp"

#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

namespace msb::launcher {

namespace {

constexpr std::uint64_t kSettling = 100'000'000;  // nanoseconds

// RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291: no policy takes these for public.
constexpr std::array<IpPrefix, 7> kPrivate{{{{4, {10}}, 8},
                                            {{4, {172, 16}}, 12},
                                            {{4, {192, 168}}, 16},
                                            {{4, {100, 64}}, 10},
                                            {{4, {169, 254}}, 16},
                                            {{6, {0xfc}}, 7},
                                            {{6, {0xfe, 0x80}}, 10}}};

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

std::vector<IpAddress> own_addresses(std::span<const InterfaceAddress> addresses) {
  std::vector<IpAddress> own;
  for (const InterfaceAddress& each : addresses) {
    if (!each.loopback()) {
      own.push_back(each.address.address);
    }
  }
  std::ranges::stable_partition(own, [](const IpAddress& address) {
    return std::ranges::none_of(kPrivate,
                                [&](const IpPrefix& prefix) { return prefix.contains(address); });
  });
  own.resize(std::min(own.size(), kMaxHostAddresses));
  return own;
}

AddressWatch::AddressWatch(AsyncIo& io)
    : io_(io),
      readable_([this](std::int32_t result) {
        if (result >= 0) {
          on_readable();
        }
      }),
      settled_([this](std::int32_t result) {
        if (result == -ETIME) {
          read_all();
        }
      }) {}

Result<void> AddressWatch::start(Changed changed) {
  changed_ = std::move(changed);
  netlink_ = Fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
  if (!netlink_ ||
      ::bind(netlink_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "cannot watch this host's network addresses");
  }
  // What changed before is found now.
  read_all();
  io_.poll(netlink_.get(), POLLIN, readable_);
  return {};
}

// What the messages say does not matter, nor whether some were lost: all addresses are read anew.
void AddressWatch::on_readable() {
  std::array<std::byte, 8192> ignored{};
  while (::recv(netlink_.get(), ignored.data(), ignored.size(), MSG_DONTWAIT) >= 0 ||
         errno == EINTR || errno == ENOBUFS) {
  }
  if (!settled_.pending()) {
    io_.timeout(kSettling, settled_);
  }
  io_.poll(netlink_.get(), POLLIN, readable_);
}

void AddressWatch::read_all() {
  if (const auto addresses = interface_addresses()) {
    std::vector<IpAddress> own = own_addresses(*addresses);
    if (own != last_) {
      last_ = own;
      changed_(std::move(own));
    }
  }
}

void AddressWatch::close() {
  io_.cancel(readable_);
  io_.cancel(settled_);
}

}  // namespace msb::launcher
