// SPDX-License-Identifier: Apache-2.0
// Internet addresses and ports, as sockets and as people write them.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace msb {

// An IPv4 or IPv6 address with a port.
class SocketAddress {
 public:
  SocketAddress() = default;
  // `address` is a sockaddr_in or sockaddr_in6 of `size` bytes.
  SocketAddress(const sockaddr* address, socklen_t size);

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  [[nodiscard]] socklen_t size() const { return size_; }
  [[nodiscard]] int family() const { return storage_.sin6_family; }
  [[nodiscard]] std::uint16_t port() const;
  void set_port(std::uint16_t port);
  // Without the port: "127.0.0.1", "fe80::1%eth0".
  [[nodiscard]] std::string text() const;

  bool operator==(const SocketAddress& other) const;
  bool operator<(const SocketAddress& other) const;

 private:
  sockaddr_in6 storage_{};  // the larger of the two, which begin with the same members
  socklen_t size_ = 0;
};

// Nothing for what is not a whole IPv4 or IPv6 address, or has the scope of a network card that
// there is not.
std::optional<SocketAddress> parse_address(std::string_view text, std::uint16_t port);

// 0 to 65535, in decimal, without leading zeros, signs or anything else.
std::optional<std::uint16_t> parse_port(std::string_view text);

// The address that a socket is bound to.
SocketAddress bound_address(int socket);

}  // namespace msb
