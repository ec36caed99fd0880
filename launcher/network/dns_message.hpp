// SPDX-License-Identifier: Apache-2.0
// As much of DNS messages (RFC 1035, 4.1) as is needed to carry them: what is a query, and what
// answers it. Pure; both may be hostile.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace msb::launcher {

inline constexpr std::size_t kDnsHeader = 12;       // bytes, of the smallest message
inline constexpr std::size_t kMaxDnsQuery = 65507;  // what fits an IPv4 datagram

// A standard query (RFC 1035, 4.1.1: OPCODE 0) with exactly one question (RFC 9619).
bool is_dns_query(std::span<const std::byte> message);

// Whether `query`, which is one, asks for a whole zone (RFC 5936) or its changes (RFC 1995).
bool is_dns_transfer(std::span<const std::byte> query);

// Whether `message` answers `query`, which is one: the same ID and the same question, in upper or
// lower case (RFC 5452, 4.2 and 9.1).
bool is_dns_answer(std::span<const std::byte> message, std::span<const std::byte> query);

// Whether `answer`, which is one, says that its server could not or would not look: another one may
// know more (RFC 1035, 4.1.1: RCODE 2, 4 and 5).
bool is_dns_failure(std::span<const std::byte> answer);

// The answer SERVFAIL (RFC 1035, 4.1.1: RCODE 2) to `query`, which is one.
std::vector<std::byte> dns_server_failure(std::span<const std::byte> query);

}  // namespace msb::launcher
