// SPDX-License-Identifier: Apache-2.0
// For tests: a control server on a real socket, its clients, and a machine that does as it is told.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/control.hpp"
#include "base/fd.hpp"
#include "launcher/control_server.hpp"
#include "launcher/json_rpc.hpp"
#include "launcher/machine_requests.hpp"
#include "protocol/testing/wire.hpp"

namespace msb::launcher::testing {

struct ControlClient {
  void say(std::string_view text) const {
    REQUIRE(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(text.size()));
  }
  // Reads what has come, and whether that was the end.
  bool hear() {
    char buffer[64 * 1024];
    ssize_t size = 0;
    while ((size = ::recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
      heard.append(buffer, static_cast<std::size_t>(size));
    }
    return size < 0 && errno == EAGAIN;
  }
  std::optional<Json> next() {
    hear();
    const std::size_t end = heard.find('\n');
    if (end == std::string::npos) {
      return std::nullopt;
    }
    Json line = Json::parse(heard.substr(0, end));
    heard.erase(0, end + 1);
    CHECK(line.at("jsonrpc") == "2.0");
    return line;
  }

  Fd socket;
  std::string heard;
};

inline std::string request(int id, std::string_view method,
                           const Json& parameters = Json::object()) {
  return Json{{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", parameters}}.dump() +
         "\n";
}

inline std::string notification(std::string_view method) {
  return Json{{"jsonrpc", "2.0"}, {"method", method}}.dump() + "\n";
}

// A server, the session's part in it, and a machine that does as `machine` says.
struct ControlFixture {
  ControlFixture() {
    REQUIRE(::mkdtemp(directory.data()) != nullptr);
    auto made = make_control_pair();
    REQUIRE(made);
    pair = std::move(*made);
    requests.emplace(pair.ours.get());
  }
  ~ControlFixture() {
    if (server) {
      server->close();
    }
    wire.loop->drain();
    std::filesystem::remove_all(directory);
  }

  [[nodiscard]] std::string path() const { return directory + "/control"; }
  void serve(std::vector<RunningDisk> disks = {}, ControlServer::Limits limits = {}) {
    auto created = ControlServer::create(
        *wire.loop, path(), *requests, [this] { return open_agent(); },
        {512, 2, std::move(disks), std::move(shares), Json::object()}, limits);
    REQUIRE(created);
    server = std::move(*created);
    server->open();
  }
  RunningDisk disk(const std::string& name, std::uintmax_t size, bool read_only = false) {
    const std::string file = directory + "/" + name;
    std::ofstream(file).put('\0');
    std::filesystem::resize_file(file, size);
    return {Fd(::open(file.c_str(), O_RDWR | O_CLOEXEC)), size, read_only};
  }
  // The way to the agent, which is the wire's far end: once.
  Result<Fd> open_agent() {
    if (!wire.host) {
      return fail("the agent does not answer");
    }
    return std::move(wire.host);
  }
  [[nodiscard]] ControlClient client() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
            0);
    return {std::move(socket), {}};
  }

  // What the session and the machine do when their sockets are readable.
  void turn() {
    bool more = true;
    while (more) {
      more = false;
      while (auto message = receive_control(pair.theirs.get())) {
        asked.push_back(std::move(*message));
        if (machine) {
          machine(asked.back());
        }
        more = true;
      }
      while (auto message = receive_control(pair.ours.get())) {
        if (!requests->on_answer(*message)) {
          machine_broke = true;
          requests->close();
        }
        more = true;
      }
    }
  }
  bool run_until(const std::function<bool()>& condition) {
    return wire.run_until([&] {
      turn();
      return condition();
    });
  }
  void settle() {
    int rounds = 0;
    CHECK(run_until([&] { return ++rounds > 20; }));
  }
  // The next line that comes to `from`.
  Json next(ControlClient& from) {
    std::optional<Json> line;
    REQUIRE(run_until([&] { return line || (line = from.next()); }));
    return *line;
  }
  Json ask(ControlClient& from, std::string_view method, const Json& parameters = Json::object()) {
    from.say(request(++id, method, parameters));
    Json line = next(from);
    CHECK(line.at("id") == id);
    return line;
  }
  bool ended(ControlClient& from) {
    return run_until([&] { return !from.hear(); });
  }
  // That whatever happened before, another client is served.
  void check_serves() {
    ControlClient other = client();
    CHECK(ask(other, "status").at("result").at("cpus") == 2);
  }
  void answer(ControlKind kind, const ControlMessage& to, std::string_view text = {}) const {
    CHECK(send_control(pair.theirs.get(), kind, to.value, text));
  }
  // A machine that does whatever it is asked to.
  void obey() {
    machine = [this](const ControlMessage& message) { answer(ControlKind::kDone, message); };
  }

  protocol::testing::Wire wire;
  std::string directory = "/tmp/msb-control-XXXXXX";
  ControlPair pair;
  std::optional<MachineRequests> requests;
  std::function<void(const ControlMessage&)> machine;
  std::vector<ControlMessage> asked;
  bool machine_broke = false;
  std::list<RunningShare> shares;  // that it is started with
  std::unique_ptr<ControlServer> server;
  int id = 0;
};

inline int code_of(const Json& line) {
  return line.at("error").at("code").get<int>();
}

inline std::string message_of(const Json& line) {
  return line.at("error").at("message").get<std::string>();
}

}  // namespace msb::launcher::testing
