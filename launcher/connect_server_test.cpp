// SPDX-License-Identifier: Apache-2.0
#include "launcher/connect_server.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/testing/wire.hpp"

namespace msb::launcher {
namespace {

// A machine that answers OK, as the device does, or is gone.
struct FakeMachine {
  ConnectServer::Connect connect() {
    return [this](Fd socket, std::uint32_t port) -> Result<void> {
      if (gone) {
        return fail("the machine is gone");
      }
      CHECK(::send(socket.get(), "OK 7\n", 5, MSG_NOSIGNAL) == 5);
      connected.emplace_back(port, std::move(socket));
      return {};
    };
  }
  bool gone = false;
  std::vector<std::pair<std::uint32_t, Fd>> connected;
};

struct Fixture {
  Fixture() { REQUIRE(::mkdtemp(directory.data()) != nullptr); }
  ~Fixture() {
    if (server) {
      server->close();
    }
    wire.loop->drain();
    std::filesystem::remove_all(directory);
  }
  [[nodiscard]] std::string path() const { return directory + "/s"; }
  Result<std::unique_ptr<ConnectServer>> create(ConnectServer::Limits limits = {}) {
    return ConnectServer::create(*wire.loop, path(), machine.connect(), limits);
  }
  void serve(ConnectServer::Limits limits = {}) {
    auto created = create(limits);
    REQUIRE(created);
    server = std::move(*created);
    server->open();
  }
  [[nodiscard]] int connect_code(Fd& socket) const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    socket = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0
               ? 0
               : errno;
  }
  [[nodiscard]] Fd client() const {
    Fd socket;
    REQUIRE(connect_code(socket) == 0);
    return socket;
  }
  [[nodiscard]] std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(directory)) {
      names.push_back(file.path().filename());
    }
    return names;
  }

  protocol::testing::Wire wire;
  std::string directory = "/tmp/msb-connect-XXXXXX";
  FakeMachine machine;
  std::unique_ptr<ConnectServer> server;
};

void say(const Fd& socket, std::string_view text) {
  REQUIRE(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(text.size()));
}

// What has come, or nothing when the other side has closed.
std::optional<std::string> hear(const Fd& socket) {
  char buffer[256];
  const ssize_t size = ::recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (size == 0 || (size < 0 && errno != EAGAIN)) {
    return std::nullopt;
  }
  return std::string(buffer, size > 0 ? static_cast<std::size_t>(size) : 0);
}

TEST_CASE_FIXTURE(Fixture, "a connection is given away with everything behind its line") {
  serve();
  const Fd socket = client();
  say(socket, "CONNECT 1025\nSTART at once");
  CHECK(wire.run_until([&] { return machine.connected.size() == 1; }));
  CHECK(machine.connected[0].first == 1025);
  CHECK(hear(socket) == "OK 7\n");
  CHECK(hear(machine.connected[0].second) == "START at once");
  CHECK((::fcntl(machine.connected[0].second.get(), F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE_FIXTURE(Fixture, "a line may come byte by byte") {
  serve();
  const Fd socket = client();
  const std::string line = "CONNECT 80\n";
  std::size_t said = 0;
  CHECK(wire.run_until([&] {
    if (said < line.size()) {
      say(socket, line.substr(said++, 1));
    }
    return !machine.connected.empty();
  }));
  CHECK(machine.connected[0].first == 80);
}

TEST_CASE_FIXTURE(Fixture, "what is not the line closes the connection, and others go on") {
  serve();
  std::string text;
  SUBCASE("garbage") {
    text = "GET / HTTP/1.1\r\n";
  }
  SUBCASE("no number") {
    text = "CONNECT x\n";
  }
  SUBCASE("no port") {
    text = "CONNECT 4294967295\n";
  }
  SUBCASE("a number that is too large") {
    text = "CONNECT 99999999999\n";
  }
  SUBCASE("an empty line") {
    text = "\n";
  }
  SUBCASE("a line without end") {
    text = std::string(100'000, 'C');
  }
  SUBCASE("nothing, and its end") {
    text = "";
  }
  SUBCASE("half a line, and its end") {
    text = "CONNECT";
  }
  const Fd socket = client();
  say(socket, text);
  ::shutdown(socket.get(), SHUT_WR);
  CHECK(wire.run_until([&] { return !hear(socket); }));
  CHECK(machine.connected.empty());
  const Fd next = client();
  say(next, "CONNECT 1\n");
  CHECK(wire.run_until([&] { return machine.connected.size() == 1; }));
}

TEST_CASE_FIXTURE(Fixture, "who is slow is closed when the time is over") {
  serve({.line_timeout_ns = 50'000'000, .pending = 256});
  const Fd silent = client();
  const Fd slow = client();
  say(slow, "CONN");
  CHECK(wire.run_until([&] { return !hear(silent) && !hear(slow); }));
  CHECK(machine.connected.empty());
}

TEST_CASE_FIXTURE(Fixture, "a flood waits, and is served in the end") {
  serve({.line_timeout_ns = 10'000'000'000, .pending = 4});
  std::vector<Fd> silent;
  for (int i = 0; i < 4; ++i) {
    silent.push_back(client());
  }
  const Fd late = client();
  say(late, "CONNECT 5\n");
  // All that the loop has to do it does: the silent ones are accepted, the late one is not.
  int rounds = 0;
  CHECK(wire.run_until([&] { return ++rounds > 20; }));
  CHECK(machine.connected.empty());
  silent.pop_back();
  CHECK(wire.run_until([&] { return machine.connected.size() == 1; }));
  for (int i = 0; i < 200; ++i) {
    const Fd socket = client();
    say(socket, "CONNECT 6\n");
    CHECK(wire.run_until(
        [&] { return machine.connected.size() == static_cast<std::size_t>(i) + 2; }));
  }
}

TEST_CASE_FIXTURE(Fixture, "a machine that takes no connection closes it") {
  serve();
  machine.gone = true;
  const Fd socket = client();
  say(socket, "CONNECT 1025\n");
  CHECK(wire.run_until([&] { return !hear(socket); }));
}

TEST_CASE_FIXTURE(Fixture, "who comes before the guest is ready waits") {
  auto created = create();
  REQUIRE(created);
  server = std::move(*created);
  const Fd socket = client();
  say(socket, "CONNECT 1025\n");
  int rounds = 0;
  CHECK(wire.run_until([&] { return ++rounds > 20; }));
  CHECK(machine.connected.empty());
  server->open();
  CHECK(wire.run_until([&] { return machine.connected.size() == 1; }));
}

TEST_CASE_FIXTURE(Fixture, "the socket is this user's alone, and nothing else is left beside it") {
  serve();
  struct stat status{};
  REQUIRE(::lstat(path().c_str(), &status) == 0);
  CHECK(S_ISSOCK(status.st_mode));
  CHECK((status.st_mode & 07777) == 0600);
  CHECK(files() == std::vector<std::string>{"s"});
  const Fd waiting = client();
  server->close();
  CHECK(files().empty());
  CHECK(wire.run_until([&] { return !hear(waiting); }));
}

TEST_CASE_FIXTURE(Fixture, "a socket that is served is refused, and stays") {
  serve();
  Fixture other;
  auto second = ConnectServer::create(*other.wire.loop, path(), other.machine.connect(), {});
  REQUIRE_FALSE(second);
  CHECK(second.error().message.find("running sandbox") != std::string::npos);
  const Fd socket = client();
  say(socket, "CONNECT 1\n");
  CHECK(wire.run_until([&] { return machine.connected.size() == 1; }));
  CHECK(files() == std::vector<std::string>{"s"});
}

TEST_CASE_FIXTURE(Fixture, "a socket that a dead process left is replaced") {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path().copy(address.sun_path, sizeof address.sun_path - 1);
  {
    const Fd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(dead.get(), 1) == 0);
  }
  Fd socket;
  CHECK(connect_code(socket) == ECONNREFUSED);
  serve();
  CHECK(connect_code(socket) == 0);
  CHECK(files() == std::vector<std::string>{"s"});
}

TEST_CASE_FIXTURE(Fixture, "anything else at the path is refused, and stays") {
  SUBCASE("a file") {
    std::ofstream(path()) << "precious";
  }
  SUBCASE("a directory") {
    std::filesystem::create_directory(path());
  }
  SUBCASE("a link, wherever it leads") {
    std::filesystem::create_symlink("/nonexistent", path());
  }
  const auto created = create();
  REQUIRE_FALSE(created);
  CHECK(created.error().message.find("is not a socket") != std::string::npos);
  CHECK(files() == std::vector<std::string>{"s"});
}

TEST_CASE_FIXTURE(Fixture, "paths that cannot be are refused") {
  for (const std::string& bad :
       {std::string(), directory + "/missing/s", directory + "/" + std::string(200, 'x')}) {
    CAPTURE(bad);
    CHECK_FALSE(ConnectServer::create(*wire.loop, bad, machine.connect(), {}));
  }
  CHECK(files().empty());
}

TEST_CASE_FIXTURE(Fixture, "a file that took the socket's place is not removed") {
  serve();
  std::filesystem::remove(path());
  std::ofstream(path()) << "precious";
  server->close();
  CHECK(files() == std::vector<std::string>{"s"});
}

}  // namespace
}  // namespace msb::launcher
