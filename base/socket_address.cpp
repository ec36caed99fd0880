// SPDX-License-Identifier: Apache-2.0
#include "base/socket_address.hpp"

#include <arpa/inet.h>
#include <net/if.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <system_error>

namespace msb {

namespace {

// The index of a network card by its name or, as Linux allows, by its number.
std::uint32_t scope_index(const std::string& scope) {
  const std::uint32_t index = ::if_nametoindex(scope.c_str());
  if (index != 0) {
    return index;
  }
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(scope.data(), scope.data() + scope.size(), number);
  return error == std::errc() && end == scope.data() + scope.size() ? number : 0;
}

}  // namespace

SocketAddress::SocketAddress(const sockaddr* address, socklen_t size)
    : size_(std::min(size, socklen_t{sizeof storage_})) {
  std::memcpy(&storage_, address, size_);
}

// The port is at the same place in both families' addresses.
static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));

std::uint16_t SocketAddress::port() const {
  return ntohs(storage_.sin6_port);
}

void SocketAddress::set_port(std::uint16_t port) {
  storage_.sin6_port = htons(port);
}

std::string SocketAddress::text() const {
  char buffer[INET6_ADDRSTRLEN] = "";
  if (family() == AF_INET) {
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(get())->sin_addr, buffer,
                sizeof buffer);
    return buffer;
  }
  ::inet_ntop(AF_INET6, &storage_.sin6_addr, buffer, sizeof buffer);
  std::string text = buffer;
  if (storage_.sin6_scope_id != 0) {
    char name[IF_NAMESIZE] = "";
    text += '%';
    text += ::if_indextoname(storage_.sin6_scope_id, name) != nullptr
                ? name
                : std::to_string(storage_.sin6_scope_id);
  }
  return text;
}

bool SocketAddress::operator==(const SocketAddress& other) const {
  return size_ == other.size_ && std::memcmp(&storage_, &other.storage_, size_) == 0;
}

bool SocketAddress::operator<(const SocketAddress& other) const {
  return size_ != other.size_ ? size_ < other.size_
                              : std::memcmp(&storage_, &other.storage_, size_) < 0;
}

std::optional<SocketAddress> parse_address(std::string_view text, std::uint16_t port) {
  if (text.find('\0') != text.npos) {
    return std::nullopt;
  }
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(port);
  if (::inet_pton(AF_INET, std::string(text).c_str(), &four.sin_addr) == 1) {
    return SocketAddress(reinterpret_cast<const sockaddr*>(&four), sizeof four);
  }
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(port);
  const std::size_t percent = text.find('%');
  if (::inet_pton(AF_INET6, std::string(text.substr(0, percent)).c_str(), &six.sin6_addr) != 1) {
    return std::nullopt;
  }
  if (percent != text.npos) {
    six.sin6_scope_id = scope_index(std::string(text.substr(percent + 1)));
    if (six.sin6_scope_id == 0) {
      return std::nullopt;
    }
  }
  return SocketAddress(reinterpret_cast<const sockaddr*>(&six), sizeof six);
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() ||
      (text.size() > 1 && text.front() == '0')) {
    return std::nullopt;
  }
  return port;
}

SocketAddress bound_address(int socket) {
  sockaddr_in6 address{};
  socklen_t size = sizeof address;
  // Cannot fail for an Internet socket.
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
  return {reinterpret_cast<const sockaddr*>(&address), size};
}

}  // namespace msb
