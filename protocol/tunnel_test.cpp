// SPDX-License-Identifier: Apache-2.0
#include "protocol/tunnel.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string>

#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using testing::frame_of;
using testing::text_of;
using testing::Wire;

struct End {
  std::optional<Fd> socket;
  std::optional<Failure> failure;
  Tunnel::Done done() {
    return [this](Answer<Fd> answer) {
      if (answer) {
        socket = std::move(*answer);
      } else {
        failure = answer.error();
      }
    };
  }
  [[nodiscard]] bool over() const { return socket || failure; }
};

const std::string kDone = frame_of(MSB_DONE, msb_done{0});

TEST_CASE("a tunnel hands the connection over without reading one byte of it") {
  Wire wire;
  End end;
  const Tunnel tunnel(*wire.loop, std::move(wire.host), *encode_connect_tcp(80), end.done());
  const std::string request = text_of(*encode_connect_tcp(80));
  CHECK(wire.run_until([&] { return wire.hear().size() >= request.size(); }));
  CHECK(wire.hear() == request);
  const std::string all = "OK 1\n" + kDone + "first bytes";
  SUBCASE("at once") {
    wire.say(all);
    CHECK(wire.run_until([&] { return end.over(); }));
  }
  SUBCASE("byte by byte") {
    std::size_t said = 0;
    CHECK(wire.run_until([&] {
      if (said < all.size()) {
        wire.say(all.substr(said++, 1));
      }
      return said == all.size() && end.over();
    }));
  }
  REQUIRE(end.socket);
  char buffer[64];
  CHECK(::read(end.socket->get(), buffer, sizeof buffer) == 11);
  CHECK(std::string(buffer, 11) == "first bytes");
  CHECK(::write(end.socket->get(), "back", 4) == 4);
  CHECK(wire.hear() == request + "back");
}

TEST_CASE("a tunnel that is refused, or breaks, says why") {
  std::string answer;
  std::uint32_t stage = 0;
  SUBCASE("refused") {
    answer = "OK 1\n" + frame_of(MSB_REFUSED, msb_failure{2, 111}, "nobody listens");
    stage = 2;
  }
  SUBCASE("closed before the greeting") {
    answer = "";
  }
  SUBCASE("closed after it") {
    answer = "OK 1\n";
  }
  SUBCASE("no sandbox") {
    answer = "SSH-2.0-OpenSSH\r\n";
  }
  SUBCASE("an endless line") {
    answer = std::string(100, 'O');
  }
  SUBCASE("another frame") {
    answer = "OK 1\n" + frame_of(MSB_STDOUT, "x");
  }
  SUBCASE("a huge frame") {
    answer = "OK 1\n" + std::string("\x31\0\0\0\xff\xff\xff\xff", 8);
  }
  Wire wire;
  End end;
  const Tunnel tunnel(*wire.loop, std::move(wire.host), *encode_connect_unix("/s"), end.done());
  CHECK(wire.run_until([&] { return !wire.hear().empty(); }));
  wire.say(answer);
  ::shutdown(wire.guest.get(), SHUT_WR);
  CHECK(wire.run_until([&] { return end.over(); }));
  REQUIRE(end.failure);
  CHECK(end.failure->stage == stage);
  CHECK(wire.run_until([&] { return wire.closed(); }));
}

TEST_CASE("a tunnel that is given up closes its connection and says nothing") {
  Wire wire;
  End end;
  {
    const Tunnel tunnel(*wire.loop, std::move(wire.host), *encode_connect_tcp(80), end.done());
    SUBCASE("before the greeting") {}
    SUBCASE("after it") {
      wire.say("OK 1\n");
      CHECK(wire.run_until([&] { return !wire.hear().empty(); }));
    }
  }
  CHECK(wire.run_until([&] { return wire.closed(); }));
  CHECK_FALSE(end.over());
}

}  // namespace
}  // namespace msb::protocol
