// SPDX-License-Identifier: Apache-2.0
#include "base/ip_text.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <array>

#include "base/socket_address.hpp"

namespace msb {

std::optional<IpAddress> parse_ip_address(std::string_view text) {
  IpAddress address;
  address.family = text.find(':') == std::string_view::npos ? 4 : 6;
  const std::string copy(text);
  // An embedded NUL would end the text early.
  const bool read =
      copy.find('\0') == std::string::npos && ::inet_pton(address.family == 4 ? AF_INET : AF_INET6,
                                                          copy.c_str(), address.bytes.data()) == 1;
  return read ? std::optional(address) : std::nullopt;
}

std::optional<IpPrefix> parse_ip_prefix(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = parse_ip_address(text.substr(0, slash));
  if (!address) {
    return std::nullopt;
  }
  if (slash == std::string_view::npos) {
    return IpPrefix{*address, address->bits()};
  }
  const auto length = parse_port(text.substr(slash + 1));  // a small number
  if (!length || *length > address->bits()) {
    return std::nullopt;
  }
  return IpPrefix{*address, static_cast<std::uint32_t>(*length)};
}

std::string address_text(const IpAddress& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(address.family == 4 ? AF_INET : AF_INET6, address.bytes.data(), text.data(),
              text.size());
  return text.data();
}

std::string prefix_text(const IpPrefix& prefix) {
  return fmt::format("{}/{}", address_text(prefix.address), prefix.length);
}

}  // namespace msb
