// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/dns_message.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace msb::launcher {

namespace {

// Offsets and bits of the header (RFC 1035, 4.1.1).
constexpr std::size_t kId = 2;  // bytes, at the front
constexpr std::size_t kFlags = 2;
constexpr std::size_t kQuestions = 4;
constexpr std::size_t kCounts = 4;  // each of 2 bytes, the questions' first
constexpr std::uint8_t kResponse = 0x80;
constexpr std::uint8_t kResponseAndOpcode = 0xf8;
constexpr std::uint8_t kResponseCode = 0x0f;  // of the second byte of flags
constexpr std::uint8_t kKeptFlags = 0x79;     // OPCODE and RD
constexpr std::uint8_t kServerFailure = 2;
constexpr std::uint8_t kNotImplemented = 4;
constexpr std::uint8_t kRefused = 5;
constexpr std::uint16_t kIncrementalTransfer = 251;  // QTYPE of RFC 1995, 2
constexpr std::uint16_t kTransfer = 252;             // 3.2.3

constexpr std::size_t kMaxName = 255;  // 2.3.4
constexpr std::uint8_t kMaxLabel = 63;
constexpr std::size_t kTypeAndClass = 4;  // bytes behind the name (4.1.2)

std::uint8_t byte_at(std::span<const std::byte> message, std::size_t offset) {
  return std::to_integer<std::uint8_t>(message[offset]);
}

// The one question. Its name has nothing in front that it could be compressed to.
std::optional<std::span<const std::byte>> question_of(std::span<const std::byte> message) {
  if (message.size() < kDnsHeader || byte_at(message, kQuestions) != 0 ||
      byte_at(message, kQuestions + 1) != 1) {
    return std::nullopt;
  }
  const auto rest = message.subspan(kDnsHeader);
  std::size_t size = 0;
  while (size < rest.size() && size < kMaxName) {
    const std::uint8_t label = byte_at(rest, size);
    size += 1U + label;
    if (label > kMaxLabel) {
      return std::nullopt;
    }
    if (label == 0) {
      size += kTypeAndClass;
      return size <= rest.size() ? std::optional(rest.first(size)) : std::nullopt;
    }
  }
  return std::nullopt;
}

bool is_response(std::span<const std::byte> message) {
  return (byte_at(message, kFlags) & kResponse) != 0;
}

// Lengths of labels are no letters.
std::byte to_lower(std::byte byte) {
  return byte >= std::byte{'A'} && byte <= std::byte{'Z'} ? byte | std::byte{0x20} : byte;
}

}  // namespace

bool is_dns_query(std::span<const std::byte> message) {
  return message.size() <= kMaxDnsQuery && question_of(message) &&
         (byte_at(message, kFlags) & kResponseAndOpcode) == 0;
}

bool is_dns_transfer(std::span<const std::byte> query) {
  const auto type = question_of(query)->last(kTypeAndClass);
  const int number = byte_at(type, 0) << 8 | byte_at(type, 1);
  return number == kTransfer || number == kIncrementalTransfer;
}

bool is_dns_answer(std::span<const std::byte> message, std::span<const std::byte> query) {
  const auto asked = question_of(query);
  const auto answered = question_of(message);
  if (!asked || !answered || !is_response(message) || asked->size() != answered->size() ||
      !std::ranges::equal(message.first(kId), query.first(kId))) {
    return false;
  }
  const std::size_t name = asked->size() - kTypeAndClass;
  return std::ranges::equal(asked->first(name), answered->first(name), {}, to_lower, to_lower) &&
         std::ranges::equal(asked->subspan(name), answered->subspan(name));
}

bool is_dns_failure(std::span<const std::byte> answer) {
  const int code = byte_at(answer, kFlags + 1) & kResponseCode;
  return code == kServerFailure || code == kNotImplemented || code == kRefused;
}

std::vector<std::byte> dns_server_failure(std::span<const std::byte> query) {
  const auto question = question_of(query);
  std::vector<std::byte> answer(query.begin(), query.begin() + kDnsHeader);
  answer[kFlags] = (answer[kFlags] & std::byte{kKeptFlags}) | std::byte{kResponse};
  answer[kFlags + 1] = std::byte{kServerFailure};
  // The question alone.
  std::fill(answer.begin() + kQuestions + 2, answer.begin() + kQuestions + 2 * kCounts,
            std::byte{0});
  answer.insert(answer.end(), question->begin(), question->end());
  return answer;
}

}  // namespace msb::launcher
