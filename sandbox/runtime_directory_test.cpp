// SPDX-License-Identifier: Apache-2.0
#include "sandbox/runtime_directory.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "sandbox/place_testing.hpp"

namespace msb::sandbox {
namespace {

namespace fs = std::filesystem;

// All sandboxes of the test are in it.
struct Runtime : Place {
  Runtime() { ::setenv("XDG_RUNTIME_DIR", path.c_str(), 1); }
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime() { ::unsetenv("XDG_RUNTIME_DIR"); }
};

TEST_CASE("what runs is listed, and what dead ones left is cleared away") {
  const Runtime place;
  auto one =
      make_runtime_directory({Kind::kProject, "web", "/p", "/p/menv/web", Purpose::kEntered});
  auto two = make_runtime_directory({Kind::kTemporary, "tmp", "", ""});
  REQUIRE((one && two));
  auto listed = list_running();
  REQUIRE(listed);
  REQUIRE(listed->size() == 2);
  CHECK(listed->front().who.name == "web");
  CHECK(listed->front().who.state == "/p/menv/web");
  CHECK(listed->front().who.purpose == Purpose::kEntered);
  CHECK(listed->back().who.kind == Kind::kTemporary);
  CHECK(is_alive(two->running));
  two->lock.reset();  // its supervisor is dead
  CHECK_FALSE(is_alive(two->running));
  listed = list_running();
  REQUIRE(listed->size() == 1);
  CHECK_FALSE(fs::exists(two->running.directory));

  REQUIRE(make_lasting_link(one->running));
  const auto socket = lasting_agent_socket("/p/menv/web");
  REQUIRE(socket);
  CHECK(fs::equivalent(fs::path(*socket).parent_path(), one->running.directory));
  one->lock.reset();
  CHECK(list_running()->empty());
  CHECK_FALSE(fs::is_symlink(fs::path(*socket).parent_path()));
}

TEST_CASE("a directory that others can write into is not used") {
  const Runtime place;
  fs::create_directory(place.path + "/microsandbox");
  REQUIRE(::chmod((place.path + "/microsandbox").c_str(), 0777) == 0);
  CHECK_FALSE(list_running());
}

TEST_CASE("a damaged directory is passed over while somebody holds its lock") {
  const Runtime place;
  const auto one = make_runtime_directory({Kind::kTemporary, "tmp", "", ""});
  REQUIRE(one);
  fs::remove(one->running.directory + "/identity");
  CHECK(list_running()->empty());
  CHECK(fs::exists(one->running.directory));
}

}  // namespace
}  // namespace msb::sandbox
