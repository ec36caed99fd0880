// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "sandbox/launch.hpp"

namespace msb::sandbox {
namespace {

using Words = std::vector<std::string>;

SandboxSpec all() {
  SandboxSpec spec;
  spec.shell = "/bin/bash";
  spec.command = {"serve", "now"};
  spec.scripts = {{"start", "a"}, {"test", "b"}};
  return spec;
}

TEST_CASE(
    "what runs: a program, a script, the script start, the command, the shell, the image's own") {
  SandboxSpec spec = all();
  CHECK(choose_task(spec, {"id", "test", {"-u"}}, false) == Task{{"id", "-u"}, true, false});
  CHECK(choose_task(spec, {"", "test", {"-v"}}, false) ==
        Task{{"/.sandbox/scripts/test", "-v"}, true, false});
  CHECK(choose_task(spec, {}, true) == Task{{"/.sandbox/scripts/start"}, true, false});
  spec.scripts.clear();
  CHECK(choose_task(spec, {"", "", {"x"}}, false) == Task{{"serve", "now", "x"}, true, false});
  spec.command.clear();
  CHECK(choose_task(spec, {}, false) == Task{{"/bin/bash"}, true, false});
  CHECK(choose_task(spec, {"", "", {"-c", "x"}}, true) ==
        Task{{"/bin/bash", "-c", "x"}, true, false});
  spec.shell.clear();
  CHECK(choose_task(spec, {}, false) == Task{{}, false, false});
  CHECK(choose_task(spec, {"", "", {"ls"}}, false) == Task{{"ls"}, false, false});
}

TEST_CASE("a shell alone is there to be entered when nobody types into it") {
  SandboxSpec spec;
  spec.shell = "sh";
  CHECK(choose_task(spec, {}, true) == Task{{}, false, true});
  CHECK(choose_task(spec, {"", "shell", {}}, true) == Task{{}, false, true});
}

TEST_CASE("a script that there is not is answered with the nearest; shell is one unless declared") {
  const auto task = choose_task(all(), {"", "tset", {}}, false);
  REQUIRE_FALSE(task);
  CHECK(task.error().message.find("did you mean \"test\"?") != std::string::npos);
  CHECK(choose_task(all(), {"", "shell", {}}, false) == Task{{"/bin/bash"}, true, false});
}

}  // namespace
}  // namespace msb::sandbox
