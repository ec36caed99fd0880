// SPDX-License-Identifier: Apache-2.0
#include "sandbox/dependency_order.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

namespace msb::sandbox {
namespace {

using Levels = std::vector<std::vector<std::string>>;
using Declared = std::vector<std::pair<std::string, std::vector<std::string>>>;

Sandboxfile declare(const Declared& sandboxes) {
  Sandboxfile file;
  for (const auto& [name, dependencies] : sandboxes) {
    SandboxSpec spec;
    spec.depends_on = dependencies;
    file.sandboxes.push_back({name, spec, {}});
  }
  return file;
}

TEST_CASE("what others depend on comes in an earlier level, else the file's order holds") {
  const Sandboxfile file = declare(
      {{"web", {"api", "cache"}}, {"cache", {}}, {"api", {"db"}}, {"db", {}}, {"alone", {}}});
  CHECK(dependency_levels(file, {}) == Levels{{"cache", "db", "alone"}, {"api"}, {"web"}});
  CHECK(dependency_levels(file, {"web"}) == Levels{{"cache", "db"}, {"api"}, {"web"}});
  CHECK(dependency_levels(file, {"alone", "api", "api"}) == Levels{{"db", "alone"}, {"api"}});
  CHECK(dependency_levels(declare({}), {}) == Levels{});
}

TEST_CASE("a diamond is walked once, however many ways lead through it") {
  Declared sandboxes = {{"a0", {}}, {"b0", {}}};
  for (int i = 1; i <= 32; ++i) {
    const std::vector<std::string> below = {fmt::format("a{}", i - 1), fmt::format("b{}", i - 1)};
    sandboxes.push_back({fmt::format("a{}", i), below});
    sandboxes.push_back({fmt::format("b{}", i), below});
  }
  const auto levels = dependency_levels(declare(sandboxes), {"a32"});
  REQUIRE(levels);
  CHECK(levels->size() == 33);
  CHECK(levels->at(31) == std::vector<std::string>{"a31", "b31"});
}

TEST_CASE("names that are not there, and circles, are said") {
  const Sandboxfile file = declare({{"x", {}}, {"a", {"b"}}, {"b", {"c"}}, {"c", {"b"}}});
  CHECK(dependency_levels(file, {"y", "x"}).error().message == "there is no sandbox 'y'");
  CHECK(dependency_levels(file, {"x"}) == Levels{{"x"}});
  CHECK(dependency_levels(file, {"a"}).error().message ==
        "depends_on goes in a circle: b -> c -> b");
  CHECK(dependency_levels(declare({{"a", {"b"}}}), {}).error().message ==
        "depends_on names \"b\", which is no sandbox here");
}

}  // namespace
}  // namespace msb::sandbox
