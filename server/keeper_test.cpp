// SPDX-License-Identifier: Apache-2.0
#include "server/keeper.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "oci/test_support.hpp"
#include "server/presence.hpp"

namespace msb::server {
namespace {

TEST_CASE("a keeper lives as long as its process, however that ends") {
  const oci::testing::TemporaryDirectory home;
  const auto own = Keeper::begin(home.path());
  REQUIRE(own);
  int ids[2];
  REQUIRE(::pipe(ids) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto other = Keeper::begin(home.path());
    const std::int64_t id = other ? other->id() : 0;
    if (::write(ids[1], &id, sizeof id) == sizeof id) {
      ::pause();
    }
    ::_exit(1);
  }
  std::int64_t other = 0;
  REQUIRE(::read(ids[0], &other, sizeof other) == sizeof other);
  ::close(ids[0]);
  ::close(ids[1]);
  CHECK(other > 0);
  CHECK(other != own->id());
  CHECK(own->lives(own->id()));
  CHECK(own->lives(other));
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK_FALSE(own->lives(other));
  CHECK_FALSE(own->lives(0));
  CHECK_FALSE(own->lives(-5));
  CHECK(std::filesystem::file_size(server_folder(home.path()) + "/keepers") == 0);
}

}  // namespace
}  // namespace msb::server
