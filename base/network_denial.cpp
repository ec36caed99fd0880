// SPDX-License-Identifier: Apache-2.0
#include "base/network_denial.hpp"

#include <array>
#include <charconv>

namespace msb {

namespace {

constexpr std::uint32_t kNoRule = ~std::uint32_t{0};

// "REASON RULE PROTOCOL FAMILY ADDRESS SOURCE-PORT DESTINATION-PORT", decimal, the address 32
// hexadecimal digits.
constexpr std::size_t kNumbers = 6;

}  // namespace

std::string NetworkDenial::to_text() const {
  std::string address;
  for (const std::uint8_t byte : destination.bytes) {
    address += fmt::format("{:02x}", byte);
  }
  return fmt::format("{} {} {} {} {} {} {}", static_cast<std::uint32_t>(reason),
                     rule.value_or(kNoRule), protocol, destination.family, source_port,
                     destination_port, address);
}

Result<NetworkDenial> NetworkDenial::from_text(std::string_view text) {
  const auto broken =
      fail("the machine process told of a denied packet in words that have no meaning");
  std::array<std::uint32_t, kNumbers> numbers{};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (std::uint32_t& number : numbers) {
    const auto read = std::from_chars(at, end, number);
    if (read.ec != std::errc() || read.ptr == end || *read.ptr != ' ') {
      return broken;
    }
    at = read.ptr + 1;
  }
  NetworkDenial denial;
  if (end - at != static_cast<std::ptrdiff_t>(2 * denial.destination.bytes.size())) {
    return broken;
  }
  for (std::uint8_t& byte : denial.destination.bytes) {
    const auto read = std::from_chars(at, at + 2, byte, 16);
    if (read.ec != std::errc() || read.ptr != at + 2) {
      return broken;
    }
    at += 2;
  }
  const auto [reason, rule, protocol, family, source_port, destination_port] = numbers;
  if (reason > static_cast<std::uint32_t>(Reason::kUnclear) || protocol > 255 ||
      (family != 4 && family != 6) || source_port > 65535 || destination_port > 65535) {
    return broken;
  }
  denial.reason = static_cast<Reason>(reason);
  denial.rule = rule == kNoRule ? std::nullopt : std::optional(rule);
  denial.protocol = protocol;
  denial.destination.family = family;
  denial.source_port = source_port;
  denial.destination_port = destination_port;
  return denial;
}

}  // namespace msb
