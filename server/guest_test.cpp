// SPDX-License-Identifier: Apache-2.0
#include "server/guest.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <string>
#include <vector>

namespace msb::server {
namespace {

using Variables = std::vector<std::string>;

TEST_CASE("a variable takes the place of the one of its name, and of no other") {
  const Variables own = {"PATH=/bin", "PATHS=/a", "HOME=/root"};
  CHECK(with_variables(own, {"PATH=/usr/bin", "NEW=1"}) ==
        Variables{"PATHS=/a", "HOME=/root", "PATH=/usr/bin", "NEW=1"});
  CHECK(with_variables(own, {"HOME=a", "HOME=b=c"}) ==
        Variables{"PATH=/bin", "PATHS=/a", "HOME=b=c"});
  CHECK(with_variables(own, {}) == own);
}

TEST_CASE("a variable without a value leaves those of other names alone") {
  CHECK(with_variables({"PATH=/bin", "HOME=/root"}, {"HOME"}) == Variables{"PATH=/bin", "HOME"});
}

TEST_CASE("what the sandbox's own system refuses is not what a key or the operator does") {
  const auto word = [](int code) {
    return info(problem_of({MSB_STAGE_REQUEST, {"it was refused", code}}).reason).word;
  };
  CHECK(word(EACCES) == "denied_in_sandbox");
  CHECK(word(EPERM) == "denied_in_sandbox");
  CHECK(word(EROFS) == "denied_in_sandbox");
  CHECK(word(ENOENT) == "not_found");
  CHECK(word(EIO) == "failed");
}

}  // namespace
}  // namespace msb::server
