// SPDX-License-Identifier: Apache-2.0
#include "sandbox/state_directory.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "sandbox/files.hpp"
#include "sandbox/place_testing.hpp"

namespace msb::sandbox {
namespace {

namespace fs = std::filesystem;

TEST_CASE("whoever has the lock runs, and says as what") {
  const Place place;
  const StateDirectory state(place.path + "/box");
  REQUIRE(state.make());
  CHECK(state.running_id().value() == std::nullopt);
  auto locked = state.lock();
  REQUIRE((locked && *locked));
  CHECK(state.running_id().value() == "");
  REQUIRE(StateDirectory::say_id((*locked)->lock, "0123abcd"));
  CHECK(state.running_id().value() == "0123abcd");
  CHECK_FALSE(state.lock()->has_value());
  CHECK_FALSE(state.remove()->has_value());
  // Another descriptor of the same description holds it, as that of a child does.
  const Fd inherited(::dup((*locked)->lock.get()));
  (*locked)->lock.reset();
  CHECK(state.running_id().value() == "0123abcd");
}

TEST_CASE("who has the lock for a moment is waited for, and who runs is not") {
  const Place place;
  const StateDirectory state(place.path + "/box");
  auto looking = state.lock();
  REQUIRE((looking && *looking));
  std::thread looker([&] { (*looking)->lock.reset(); });
  auto locked = state.lock_when_free();
  looker.join();
  REQUIRE((locked && *locked));
  REQUIRE(StateDirectory::say_id((*locked)->lock, "0123abcd"));
  CHECK(state.lock_when_free().value() == std::nullopt);
  CHECK(state.lock_when_free("4567abcd").value() == std::nullopt);
  std::thread last([&] { (*locked)->lock.reset(); });
  CHECK(state.lock_when_free("0123abcd").value() != std::nullopt);
  last.join();
  // What it said is not said of the next who has it.
  const auto next = state.lock_when_free();
  REQUIRE((next && *next));
  CHECK(state.running_id().value() == "");
}

TEST_CASE("what is removed by two at a time is removed") {
  const Place place;
  for (int round = 0; round < 20; ++round) {
    std::vector<std::thread> threads;
    for (const char* name : {"a", "b", "c", "d"}) {
      const StateDirectory state(fmt::format("{}/all/{}", place.path, name));
      REQUIRE(state.lock());
      for (int file = 0; file < 20; ++file) {
        REQUIRE(write_file(state.file(fmt::format("f{}", file)), "x"));
      }
      threads.emplace_back([state] { CHECK(state.remove()); });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(fs::is_empty(place.path + "/all"));
  }
}

TEST_CASE("what is locked stays the same one when its place is taken by something else") {
  const Place place;
  const StateDirectory state(place.path + "/menv/box");
  auto locked = state.lock();
  REQUIRE((locked && *locked));
  fs::create_directory(place.path + "/elsewhere");
  fs::rename(place.path + "/menv/box", place.path + "/moved");
  fs::create_directory_symlink(place.path + "/elsewhere", place.path + "/menv/box");
  REQUIRE((*locked)->state.pin({"base", "sha256:1"}));
  REQUIRE((*locked)->state.write_scripts({{"start", "x"}}, "/bin/sh"));
  CHECK(fs::exists(place.path + "/moved/sandbox.json"));
  CHECK(fs::exists(place.path + "/moved/scripts/start"));
  CHECK_FALSE((*locked)->remove());  // what is in its place is not it
  CHECK(fs::exists(place.path + "/moved/sandbox.json"));
  CHECK(fs::is_empty(place.path + "/elsewhere"));
  CHECK_FALSE(state.lock());
  // Nor is it reached through a link in the place of all states.
  fs::remove_all(place.path + "/menv");
  fs::create_directory_symlink(place.path + "/elsewhere", place.path + "/menv");
  CHECK_FALSE(state.lock());
  CHECK(fs::is_empty(place.path + "/elsewhere"));
}

TEST_CASE("an error of a locked state names the path that users know") {
  const Place place;
  const StateDirectory state(place.path + "/box");
  const auto locked = state.lock();
  REQUIRE((locked && *locked));
  fs::create_directory((*locked)->state.disk());
  const auto failed = read_file((*locked)->state.disk(), 10);
  REQUIRE_FALSE(failed);
  CHECK((*locked)->said(failed.error()).message ==
        fmt::format("'{}/disk.ext4' is no regular file", state.path()));
}

TEST_CASE("a state is removed with what a killed process has not finished, and nothing else is") {
  const Place place;
  const StateDirectory state(place.path + "/box");
  REQUIRE(state.lock());
  REQUIRE(write_file(state.file("disk.ext4.7.new"), "draft"));
  REQUIRE(state.lock());
  CHECK_FALSE(fs::exists(state.file("disk.ext4.7.new")));
  REQUIRE(write_file(state.disk(), "content"));
  const auto removed = state.remove();
  REQUIRE((removed && *removed));
  CHECK(**removed > 0);
  CHECK(fs::is_empty(place.path));
  REQUIRE(state.make());
  REQUIRE(state.remove());  // not even a lock is in it yet
  // What an interrupted one left goes with the next start.
  fs::create_directory(place.path + "/.removed-box-7");
  REQUIRE(write_file(place.path + "/.removed-box-7/disk.ext4", "half"));
  REQUIRE(state.lock());
  CHECK_FALSE(fs::exists(place.path + "/.removed-box-7"));
  REQUIRE(state.remove());
  REQUIRE(state.make());
  REQUIRE(write_file(state.file("other"), "x"));
  CHECK_FALSE(state.remove());
  CHECK(fs::exists(state.file("other")));
}

TEST_CASE("how it ended is what was recorded, or that nobody was left to record it") {
  const Place place;
  const StateDirectory state(place.path + "/box");
  REQUIRE(state.make());
  CHECK(state.exit_record().value() == std::nullopt);
  REQUIRE(state.begin(5));
  const auto killed = state.exit_record();
  REQUIRE((killed && *killed));
  CHECK((*killed)->cause == "failed");
  CHECK((*killed)->started_ms == 5);
  REQUIRE(write_file(state.record(),
                     R"({"status":3,"cause":"exited","message":"m","kernel":["a",1,"b"]})"));
  const auto record = state.exit_record();
  REQUIRE((record && *record));
  CHECK((*record)->status == 3);
  CHECK((*record)->cause == "exited");
  CHECK((*record)->kernel == std::vector<std::string>{"a", "b"});
  REQUIRE(state.begin(6));
  CHECK((*state.exit_record())->cause == "failed");
}

TEST_CASE("an image is pinned as long as there is a disk that lies on it") {
  const Place place;
  const StateDirectory state(place.path + "/box");
  REQUIRE(state.make());
  REQUIRE(state.pin({"base", "sha256:1"}));
  CHECK_FALSE((*state.image()).has_value());
  REQUIRE(write_file(state.disk(), ""));
  const auto image = state.image();
  REQUIRE((image && *image));
  CHECK((*image)->digest == "sha256:1");
  REQUIRE(write_file(state.file("sandbox.json"), "nonsense"));
  CHECK_FALSE(state.image());
}

TEST_CASE("scripts are files that can be executed, and those of before are gone") {
  const Place place;
  const StateDirectory state(place.path + "/box");
  REQUIRE(state.make());
  REQUIRE(state.write_scripts({{"old", "x"}}, "/bin/sh"));
  REQUIRE(state.write_scripts({{"start", "echo hi"}}, "/bin/sh"));
  CHECK(read_file(state.file("scripts/start"), 100).value() == "#!/bin/sh\necho hi\n");
  CHECK_FALSE(fs::exists(state.file("scripts/old")));
  struct stat status{};
  REQUIRE(::stat(state.file("scripts/start").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0755);
}

TEST_CASE("nothing is reached through a link that came with a repository") {
  const Place place;
  fs::create_directory(place.path + "/elsewhere");
  fs::create_directory_symlink(place.path + "/elsewhere", place.path + "/box");
  const StateDirectory state(place.path + "/box");
  CHECK_FALSE(state.make());
  CHECK_FALSE(open_directory(state.path()));
  REQUIRE(write_file(place.path + "/elsewhere/file", "x"));
  fs::create_symlink(place.path + "/elsewhere/file", place.path + "/link");
  CHECK_FALSE(read_file(place.path + "/link", 10));
}

}  // namespace
}  // namespace msb::sandbox
