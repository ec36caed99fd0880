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

// A query with exactly one question (RFC 9619).
bool is_dns_query(std::span<const std::byte> message);

// Whether `message` answers `query`, which is one: the same ID and the same question, in upper or
// lower case (RFC 5452, 4.2 and 9.1).
bool is_dns_answer(std::span<const std::byte> message, std::span<const std::byte> query);

// The answer SERVFAIL (RFC 1035, 4.1.1: RCODE 2) to `query`, which is one.
std::vector<std::byte> dns_server_failure(std::span<const std::byte> query);

}  // namespace msb::launcher
