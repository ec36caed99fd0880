// SPDX-License-Identifier: Apache-2.0
#include "base/publish.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace msb {
namespace {

TEST_CASE("a published port's words are an address, the host's port and the guest's") {
  struct Row {
    const char* word;
    const char* address;
    std::uint16_t host_port;
    std::uint16_t guest_port;
    Transport transport;
  };
  for (const Row& row : {
           Row{"8080:80", "127.0.0.1", 8080, 80, Transport::kTcp},
           Row{"8080:80/tcp", "127.0.0.1", 8080, 80, Transport::kTcp},
           Row{"53:53/udp", "127.0.0.1", 53, 53, Transport::kUdp},
           Row{"0:65535", "127.0.0.1", 0, 65535, Transport::kTcp},
           Row{"9000", "127.0.0.1", 9000, 9000, Transport::kTcp},
           Row{"9000/udp", "127.0.0.1", 9000, 9000, Transport::kUdp},
           Row{"0.0.0.0:1:2", "0.0.0.0", 1, 2, Transport::kTcp},
           Row{"[::1]:1:2", "::1", 1, 2, Transport::kTcp},
           Row{"[::]:0:2/udp", "::", 0, 2, Transport::kUdp},
           Row{"[fe80::1%lo]:1:2", "fe80::1%lo", 1, 2, Transport::kTcp},
       }) {
    CAPTURE(row.word);
    const auto words = parse_publish(std::string_view(row.word));
    REQUIRE(words);
    CHECK(words->host.text() == row.address);
    CHECK(words->host.port() == row.host_port);
    CHECK(words->guest_port == row.guest_port);
    CHECK(words->transport == row.transport);
  }
}

TEST_CASE("words that publish nothing are refused") {
  for (const char* word : {"",
                           ":",
                           "80:",
                           ":80",
                           "0",
                           "80:0",
                           "65536",
                           "80:65536",
                           "+80:80",
                           " 80:80",
                           "80 :80",
                           "080:80",
                           "0x50:80",
                           "-1:80",
                           "80:80/",
                           "80:80/TCP",
                           "80:80/sctp",
                           "80/80",
                           "::80:80",
                           "127.0.0.1:80",
                           "localhost:80:80",
                           "127.1:80:80",
                           "127.0.0.1::80",
                           "1.2.3.4:80:80:80",
                           "::1:80:80",
                           "[::1]:80",
                           "[::1:80:80",
                           "[]:80:80",
                           "[127.0.0.1]:80:80",
                           "[::1]80:80",
                           "[::1%none]:80:80",
                           "[x:]:80:80"}) {
    CAPTURE(word);
    const auto words = parse_publish(std::string_view(word));
    REQUIRE_FALSE(words);
    CHECK(words.error().message.find(fmt::format("--publish \"{}\"", word)) == 0);
  }
}

TEST_CASE("a port is published once, and no more than 64 are") {
  const auto parse = [](std::vector<std::string> words) {
    return parse_publish(std::span<const std::string>(words));
  };
  CHECK(parse({}));
  CHECK(parse({"1:2", "1:2/udp", "127.0.0.2:1:2", "[::1]:1:2", "2:2"}));
  CHECK(parse({"0:80", "0:80"}));
  const auto twice = parse({"1:2", "127.0.0.1:1:3"});
  REQUIRE_FALSE(twice);
  CHECK(twice.error().message == "--publish names tcp port 1 of 127.0.0.1 twice");
  CHECK_FALSE(parse({"[::1]:1:2", "[0:0::1]:1:2"}));
  CHECK_FALSE(parse({"1:2", "x"}));
  std::vector<std::string> many(64, "0:80");
  CHECK(parse(many));
  many.emplace_back("0:80");
  CHECK_FALSE(parse(many));
}

}  // namespace
}  // namespace msb
