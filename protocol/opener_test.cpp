// SPDX-License-Identifier: Apache-2.0
#include "protocol/opener.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "protocol/line_reader.hpp"
#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using testing::Wire;

struct Directory {
  Directory() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string path = "/tmp/msb-opener-XXXXXX";
};

Fd listen_at(const std::string& path, int type = SOCK_STREAM) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  Fd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE((type != SOCK_STREAM || ::listen(socket.get(), 1) == 0));
  return socket;
}

TEST_CASE("a connection begins with its line, and its socket waits") {
  const Directory directory;
  const Fd listening = listen_at(directory.path + "/s");
  const auto socket = open_sandbox(directory.path + "/s", 1025)();
  REQUIRE(socket);
  const Fd accepted(::accept(listening.get(), nullptr, nullptr));
  char buffer[64];
  const ssize_t size = ::read(accepted.get(), buffer, sizeof buffer);
  CHECK(std::string(buffer, static_cast<std::size_t>(size)) == "CONNECT 1025\n");
}

TEST_CASE("what cannot be connected to is told apart") {
  const Directory directory;
  const auto code = [](const std::string& path) {
    const auto socket = connect_sandbox(path, 1025);
    REQUIRE_FALSE(socket);
    return socket.error().code;
  };
  CHECK(code(directory.path + "/missing") == ENOENT);
  std::ofstream(directory.path + "/file") << "x";
  CHECK(code(directory.path + "/file") == ENOTSOCK);
  CHECK(code(directory.path) == ENOTSOCK);
  listen_at(directory.path + "/dead").reset();
  CHECK(code(directory.path + "/dead") == ECONNREFUSED);
  const Fd datagrams = listen_at(directory.path + "/datagrams", SOCK_DGRAM);
  CHECK(code(directory.path + "/datagrams") == EPROTOTYPE);
  CHECK(code(directory.path + "/" + std::string(200, 'x')) == ENOENT);
}

TEST_CASE("a full queue is an error, not a wait") {
  const Directory directory;
  const Fd listening = listen_at(directory.path + "/s");
  std::vector<Fd> connected;
  int code = 0;
  while (code == 0 && connected.size() < 10) {
    auto socket = connect_sandbox(directory.path + "/s", 1025);
    if (socket) {
      connected.push_back(std::move(*socket));
    } else {
      code = socket.error().code;
    }
  }
  CHECK(code == EAGAIN);
}

TEST_CASE("lines are what both sides take them for") {
  CHECK(is_greeting("OK 0"));
  CHECK(is_greeting("OK 4294967295"));
  for (const char* line : {"", "OK", "OK ", "OK 1 ", "ok 1", "OK -1", "OK 4294967296", "OK 1\r"}) {
    CAPTURE(line);
    CHECK_FALSE(is_greeting(line));
  }
  CHECK(connect_line(4294967295U).size() == kMaxConnectLine + 1);
  CHECK(parse_connect("CONNECT 0") == kSupervisorPort);
  CHECK(parse_connect("CONNECT 1") == 1U);
  CHECK(parse_connect("CONNECT 4294967294") == 4294967294U);
  for (const char* line : {"", "CONNECT", "CONNECT ", "CONNECT 4294967295", "CONNECT 4294967296",
                           "CONNECT -1", "CONNECT 1 ", "CONNECT  1", "CONNECT 0x1", "connect 1",
                           "GET / HTTP/1.1\r", "CONNECT 1025\r"}) {
    CAPTURE(line);
    CHECK_FALSE(parse_connect(line));
  }
}

TEST_CASE("a line is read, and not a byte more, wherever it is cut") {
  const std::string all = "CONNECT 1025\nrest";
  for (std::size_t cut = 0; cut <= all.size(); ++cut) {
    Wire wire;
    std::optional<Result<std::string>> got;
    LineReader reader(*wire.loop, wire.host.get(), kMaxConnectLine,
                      [&](Result<std::string> line) { got = std::move(line); });
    reader.start();
    wire.say(all.substr(0, cut));
    CHECK(wire.run_until([] { return true; }));
    wire.say(all.substr(cut));
    CHECK(wire.run_until([&] { return got.has_value(); }));
    CHECK(*got == "CONNECT 1025");
    char buffer[64];
    CHECK(::recv(wire.host.get(), buffer, sizeof buffer, MSG_DONTWAIT) == 4);
  }
}

TEST_CASE("a line that is too long, cut off or given up is an error, once") {
  Wire wire;
  int calls = 0;
  int code = 0;
  LineReader reader(*wire.loop, wire.host.get(), 10, [&](const Result<std::string>& line) {
    ++calls;
    code = line ? 0 : line.error().code;
  });
  reader.start();
  int expected = 0;
  SUBCASE("too long") {
    wire.say("01234567890");
    expected = EMSGSIZE;
  }
  SUBCASE("as long as it may be") {
    wire.say("0123456789\n");
  }
  SUBCASE("cut off") {
    wire.say("012");
    wire.guest.reset();
    expected = ECONNRESET;
  }
  SUBCASE("given up") {
    reader.cancel();
    expected = ECANCELED;
  }
  CHECK(wire.run_until([&] { return calls > 0; }));
  CHECK(code == expected);
  CHECK_FALSE(reader.pending());
}

}  // namespace
}  // namespace msb::protocol
