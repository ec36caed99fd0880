// SPDX-License-Identifier: Apache-2.0
#include "sandbox/state_directory.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "sandbox/files.hpp"

namespace msb::sandbox {
namespace {

namespace fs = std::filesystem;

struct Place {
  Place() {
    std::string name = fs::temp_directory_path() / "state-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() { fs::remove_all(path); }
  std::string path;
};

TEST_CASE("whoever has the lock runs, and says as what") {
  const Place place;
  const StateDirectory state(place.path + "/box");
  REQUIRE(state.make());
  CHECK(state.running_id().value() == std::nullopt);
  auto lock = state.lock();
  REQUIRE((lock && *lock));
  CHECK(state.running_id().value() == "");
  REQUIRE(StateDirectory::say_id(**lock, "0123abcd"));
  CHECK(state.running_id().value() == "0123abcd");
  CHECK(state.lock().value() == std::nullopt);
  // Another descriptor of the same description holds it, as that of a child does.
  const Fd inherited(::dup((*lock)->get()));
  lock->reset();
  CHECK(state.running_id().value() == "0123abcd");
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
