// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/dns_message.hpp"

#include <doctest/doctest.h>

#include <string>

#include "launcher/network/dns_testing.hpp"
#include "protocol/testing/wire.hpp"

namespace msb::launcher {
namespace {

using protocol::testing::bytes_of;
using protocol::testing::text_of;
using testing::dns_answer;
using testing::dns_query;
using namespace std::string_literals;

bool is_query(const std::string& text) {
  return is_dns_query(bytes_of(text));
}

TEST_CASE("a query has one whole question, and is no answer") {
  const std::string query = dns_query(7, "\3www\7example\0"s);
  CHECK(is_query(query));
  CHECK(is_query(query + "additional records"));
  CHECK(is_query(dns_query(7, "\0"s)));
  CHECK_FALSE(is_query(dns_answer(query)));
  for (const int opcode : {1, 2, 4, 5, 8, 15}) {
    CAPTURE(opcode);
    std::string other = query;
    other[2] = static_cast<char>(opcode << 3 | 1);
    CHECK_FALSE(is_query(other));
  }
  for (std::size_t size = 0; size < query.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(is_query(query.substr(0, size)));
  }
  CHECK(is_query(query + std::string(kMaxDnsQuery - query.size(), 'x')));
  CHECK_FALSE(is_query(query + std::string(kMaxDnsQuery - query.size() + 1, 'x')));
}

TEST_CASE("names that are none make no query") {
  CHECK_FALSE(is_query(dns_query(7, "\xc0\x0c"s)));     // points at itself
  CHECK_FALSE(is_query(dns_query(7, "\3www\xc0\0"s)));  // points into the header
  CHECK_FALSE(is_query(dns_query(7, "\x40"s + std::string(64, 'x') + "\0"s)));
  std::string longest;
  for (int i = 0; i < 127; ++i) {
    longest += "\1a";
  }
  CHECK(is_query(dns_query(7, longest + "\0"s)));  // 255 bytes
  CHECK_FALSE(is_query(dns_query(7, longest + "\1a\0"s)));
  std::string many = dns_query(7, "\3www\0"s);
  many[5] = 2;
  CHECK_FALSE(is_query(many));
  many[4] = 1;
  many[5] = 0;
  CHECK_FALSE(is_query(many));
}

TEST_CASE("an answer has the query's ID and question") {
  const std::string query = dns_query(0x1234, "\3www\7example\0"s);
  const auto answers = [&](const std::string& answer) {
    return is_dns_answer(bytes_of(answer), bytes_of(query));
  };
  CHECK(answers(dns_answer(query)));
  CHECK(answers(dns_answer(query) + "records"));
  CHECK(answers(dns_answer(dns_query(0x1234, "\3WWW\7exAMple\0"s))));
  CHECK_FALSE(answers(query));
  CHECK_FALSE(answers(dns_answer(dns_query(0x1235, "\3www\7example\0"s))));
  CHECK_FALSE(answers(dns_answer(dns_query(0x1234, "\3www\7examplf\0"s))));
  CHECK_FALSE(answers(dns_answer(dns_query(0x1234, "\3www\0"s))));
  CHECK_FALSE(answers(dns_answer(dns_query(0x1234, "\3www\7example\0"s, 28))));
  CHECK_FALSE(answers(""));
  for (std::size_t size = 0; size < query.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(answers(dns_answer(query).substr(0, size)));
  }
}

TEST_CASE("transfers of zones and failures of servers are told apart") {
  const auto is_transfer = [](std::uint8_t type) {
    return is_dns_transfer(bytes_of(dns_query(7, "\3www\0"s, type)));
  };
  CHECK(is_transfer(251));
  CHECK(is_transfer(252));
  CHECK_FALSE(is_transfer(1));
  CHECK_FALSE(is_transfer(255));
  std::string other = dns_query(7, "\3www\0"s, 252);
  other[other.size() - 4] = 1;  // 256 + 252
  CHECK_FALSE(is_dns_transfer(bytes_of(other)));

  for (int code = 0; code < 16; ++code) {
    CAPTURE(code);
    std::string answer = dns_answer(dns_query(7, "\3www\0"s));
    answer[3] = static_cast<char>(0x80 | code);
    CHECK(is_dns_failure(bytes_of(answer)) == (code == 2 || code == 4 || code == 5));
  }
}

TEST_CASE("SERVFAIL answers its query") {
  std::string query = dns_query(0x1234, "\3www\7example\0"s);
  const std::string question = query.substr(12);
  query[11] = 1;  // an additional record
  query += "the record";
  const auto answer = dns_server_failure(bytes_of(query));
  CHECK(is_dns_answer(answer, bytes_of(query)));
  CHECK(text_of(answer) == "\x12\x34\x81\x02\0\1\0\0\0\0\0\0"s + question);
}

}  // namespace
}  // namespace msb::launcher
