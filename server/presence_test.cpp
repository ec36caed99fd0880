// SPDX-License-Identifier: Apache-2.0
#include "server/presence.hpp"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "sandbox/locked_file.hpp"
#include "sandbox/place_testing.hpp"

namespace msb::server {
namespace {

namespace fs = std::filesystem;
using sandbox::Place;

// Of a process that has ended.
pid_t dead_process() {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(0);
  }
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  return child;
}

void say(const std::string& home, const std::string& json) {
  std::ofstream(server_folder(home) + "/running.json") << json;
}

std::string announcement_of(pid_t pid) {
  return fmt::format(R"({{"pid": {}, "url": "http://x", "started_ms": 1, "dev": false}})", pid);
}

TEST_CASE("where none runs, none is found and nothing is made") {
  const Place place;
  const auto found = find_server(place.path);
  REQUIRE(found);
  CHECK_FALSE(*found);
  CHECK(fs::is_empty(place.path));
}

TEST_CASE("the server that runs is found by where it listens") {
  const Place place;
  const std::string home = place.path + "/home";
  {
    const auto presence = Presence::take(home);
    REQUIRE(presence);
    struct stat status{};
    REQUIRE(::stat(server_folder(home).c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0700);
    CHECK(find_server(home).error().message ==
          "the server of '" + home + "' is about to start or to end; try again");
    REQUIRE(presence->announce("http://127.0.0.1:5555", true));
    const auto found = find_server(home);
    REQUIRE((found && *found));
    CHECK((*found)->pid == ::getpid());
    CHECK((*found)->url == "http://127.0.0.1:5555");
    CHECK((*found)->dev);
    CHECK((*found)->started_ms > 0);
    pollfd ended{(*found)->process.get(), POLLIN, 0};
    CHECK(::poll(&ended, 1, 0) == 0);  // it runs
  }
  const auto found = find_server(home);
  REQUIRE(found);
  CHECK_FALSE(*found);
}

TEST_CASE("there is one server of a home, and the next says nothing until it listens") {
  const Place place;
  {
    const auto first = Presence::take(place.path);
    REQUIRE(first);
    CHECK(Presence::take(place.path).error().message ==
          "another server of '" + place.path + "' is about to start or to end; try again");
    REQUIRE(first->announce("http://127.0.0.1:5555", false));
    CHECK(Presence::take(place.path).error().message ==
          fmt::format("a server runs already: http://127.0.0.1:5555 (process {}); stop it with "
                      "`msb server stop` first",
                      ::getpid()));
    const auto other = Presence::take(place.path + "/other");
    CHECK(other);
  }
  auto second = Presence::take(place.path);
  REQUIRE(second);
  CHECK_FALSE(fs::exists(server_folder(place.path) + "/running.json"));
  CHECK_FALSE(find_server(place.path));
  REQUIRE(second->announce("http://127.0.0.1:1", false));
  const Presence moved = std::move(*second);
  CHECK(find_server(place.path).value()->url == "http://127.0.0.1:1");
}

TEST_CASE("what a server that is no more has said fools nobody") {
  const Place place;
  fs::create_directory(server_folder(place.path));
  const std::string lock = server_folder(place.path) + "/lock";
  // Its number is another process's by now; without and with the lock's file.
  say(place.path, announcement_of(::getpid()));
  CHECK(find_server(place.path).value() == std::nullopt);
  std::ofstream(lock).flush();
  CHECK(find_server(place.path).value() == std::nullopt);
  // The next holds the lock, and the number is nobody's.
  const auto held = sandbox::take_lock(lock);
  REQUIRE((held && *held));
  say(place.path, announcement_of(dead_process()));
  CHECK(find_server(place.path).error().message ==
        "the server of '" + place.path + "' is about to start or to end; try again");
}

TEST_CASE("the lock counts as long as the process lives that has it") {
  const Place place;
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto presence = Presence::take(place.path);
    const bool said = presence && presence->announce("http://child", false);
    [[maybe_unused]] const auto written = ::write(ready[1], said ? "y" : "n", 1);
    ::pause();
    ::_exit(0);
  }
  char answer = 0;
  REQUIRE(::read(ready[0], &answer, 1) == 1);
  REQUIRE(answer == 'y');
  const auto found = find_server(place.path);
  REQUIRE((found && *found));
  CHECK((*found)->pid == child);
  REQUIRE(::kill(child, SIGKILL) == 0);
  pollfd ended{(*found)->process.get(), POLLIN, 0};
  CHECK(::poll(&ended, 1, 10000) == 1);
  // Its end is not waited for: it is still a zombie, whose number a pidfd could be opened by.
  CHECK(find_server(place.path).value() == std::nullopt);
  ::waitpid(child, nullptr, 0);
  CHECK(Presence::take(place.path));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("an announcement that is damaged is no server") {
  const Place place;
  const auto presence = Presence::take(place.path);
  REQUIRE(presence);
  for (const char* bad :
       {"", "[]", "{", "{}", R"({"pid": 1, "url": "x", "started_ms": 1})",
        R"({"pid": "1", "url": "x", "started_ms": 1, "dev": true})",
        R"({"pid": 0, "url": "x", "started_ms": 1, "dev": true})",
        R"({"pid": -1, "url": "x", "started_ms": 1, "dev": true})",
        R"({"pid": 4294967297, "url": "x", "started_ms": 1, "dev": true})",
        R"({"pid": 18446744073709551615, "url": "x", "started_ms": 1, "dev": true})",
        R"({"pid": 1, "url": 1, "started_ms": 1, "dev": true})",
        R"({"pid": 1, "url": "x", "started_ms": null, "dev": true})",
        R"({"pid": 1, "url": "x", "started_ms": 1, "dev": 0})"}) {
    CAPTURE(bad);
    say(place.path, bad);
    const auto found = find_server(place.path);
    REQUIRE_FALSE(found);
    CHECK(found.error().message.find("running.json' is damaged") != std::string::npos);
    CHECK_FALSE(Presence::take(place.path));
  }
}

TEST_CASE("what is in the place of the folder is not followed") {
  const Place place;
  fs::create_directory(place.path + "/elsewhere");
  fs::create_directory_symlink("elsewhere", server_folder(place.path));
  CHECK_FALSE(find_server(place.path));
  CHECK_FALSE(Presence::take(place.path));
  CHECK(fs::is_empty(place.path + "/elsewhere"));
  fs::remove(server_folder(place.path));
  std::ofstream(server_folder(place.path)).flush();
  CHECK_FALSE(Presence::take(place.path));
}

}  // namespace
}  // namespace msb::server
