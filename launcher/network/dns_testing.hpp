// SPDX-License-Identifier: Apache-2.0
// For tests: DNS messages, put together by hand.
#pragma once

#include <cstdint>
#include <string>

namespace msb::launcher::testing {

// `name`: as it is on the wire, with its lengths. `type`: of the records asked for; 1 is A.
inline std::string dns_query(std::uint16_t id, const std::string& name, std::uint8_t type = 1) {
  using namespace std::string_literals;
  std::string query;
  query += static_cast<char>(id >> 8);
  query += static_cast<char>(id & 0xff);
  query += "\1\0\0\1\0\0\0\0\0\0"s + name;  // recursion desired, one question
  query += '\0';
  query += static_cast<char>(type);
  query += "\0\1"s;  // IN
  return query;
}

// As it is on a TCP connection: with its length in front.
inline std::string framed_by_tcp(const std::string& message) {
  std::string text;
  text += static_cast<char>(message.size() >> 8);
  text += static_cast<char>(message.size() & 0xff);
  return text + message;
}

inline std::string dns_answer(std::string query) {
  query[2] = static_cast<char>(query[2] | 0x80);
  return query;
}

}  // namespace msb::launcher::testing
