// SPDX-License-Identifier: Apache-2.0
#include "sandbox/spec_json.hpp"

#include <doctest/doctest.h>

namespace msb::sandbox {
namespace {

TEST_CASE("a spec comes back from its JSON") {
  SandboxSpec spec;
  spec.image = "python:3.12";
  CHECK(spec_from_json(to_json(spec)) == spec);
  spec.cpus = 2;
  spec.memory_mib = 300;
  spec.disk_mib = 7000;
  spec.processes = 5;
  spec.volumes = {{"/a", "/b", true}, {"/c", "/d", false}};
  spec.ports = {"80:80"};
  spec.envs = {"A=b"};
  spec.env_files = {"/e"};
  spec.depends_on = {"db"};
  spec.workdir = "/w";
  spec.user = "me";
  spec.shell = "bash";
  spec.scripts = {{"start", "a\nb"}};
  spec.command = {"x", ""};
  spec.scope = Scope::kNone;
  spec.network = {"allow dns", "deny any"};
  spec.timeout_s = 9;
  spec.idle_timeout_s = 10;
  CHECK(spec_from_json(to_json(spec)) == spec);
}

TEST_CASE("what is no spec is refused") {
  for (const char* text : {"[]", "null", "3", R"({"image":3})", R"({"image":"a","cpus":"x"})",
                           R"({"image":"a","extra":1})", R"({"image":"a","volumes":[{"host":1}]})",
                           R"({"image":"a","scope":"wide"})", R"({"image":"a","scripts":[1]})"}) {
    CAPTURE(text);
    CHECK_FALSE(spec_from_json(Json::parse(text)));
  }
}

}  // namespace
}  // namespace msb::sandbox
