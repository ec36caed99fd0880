// SPDX-License-Identifier: Apache-2.0
#include "launcher/image.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

namespace msb::launcher {
namespace {

oci::ImageConfig image() {
  oci::ImageConfig config;
  config.entrypoint = {"/entry"};
  config.cmd = {"default"};
  config.env = {"PATH=/image/bin", "LANG=C"};
  config.working_dir = "/srv";
  config.user = "7:8";
  return config;
}

bool has(const protocol::ProcessSpec& process, std::string_view variable) {
  return std::ranges::find(process.environment, variable) != process.environment.end();
}

TEST_CASE("an image alone says what runs, where and as whom") {
  const auto process = make_process(image(), {});
  REQUIRE(process);
  CHECK(process->arguments == std::vector<std::string>{"/entry", "default"});
  CHECK(process->directory == "/srv");
  CHECK(process->user == "7:8");
  CHECK(has(*process, "PATH=/image/bin"));
}

TEST_CASE("the user's command replaces the image's and keeps its entrypoint") {
  ProcessOptions options;
  options.command = {"mine", "too"};
  options.directory = "/tmp";
  options.user = "0";
  const auto process = make_process(image(), options);
  REQUIRE(process);
  CHECK(process->arguments == std::vector<std::string>{"/entry", "mine", "too"});
  CHECK(process->directory == "/tmp");
  CHECK(process->user == "0");
}

TEST_CASE("the user's variables replace the image's, also by name alone") {
  ::setenv("MSB_TEST_VARIABLE", "from here", 1);
  ::unsetenv("MSB_TEST_ABSENT");
  ProcessOptions options;
  options.environment = {"LANG=de", "LANG=fr", "EMPTY=", "MSB_TEST_VARIABLE", "MSB_TEST_ABSENT"};
  const auto process = make_process(image(), options);
  REQUIRE(process);
  CHECK(has(*process, "LANG=fr"));
  CHECK_FALSE(has(*process, "LANG=C"));
  CHECK_FALSE(has(*process, "LANG=de"));
  CHECK(has(*process, "EMPTY="));
  CHECK(has(*process, "MSB_TEST_VARIABLE=from here"));
  CHECK(std::ranges::none_of(process->environment, [](const std::string& text) {
    return text.starts_with("MSB_TEST_ABSENT");
  }));
}

TEST_CASE("an image that says nothing gives root, the root directory and a usual PATH") {
  ProcessOptions options;
  options.command = {"true"};
  const auto process = make_process({}, options);
  REQUIRE(process);
  CHECK(process->user.empty());
  CHECK(process->directory == "/");
  CHECK(has(*process, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
}

TEST_CASE("HOME is left to the guest, which knows the user's directory") {
  ProcessOptions options;
  options.command = {"true"};
  options.user = "postgres:adm";
  const auto process = make_process({}, options);
  REQUIRE(process);
  CHECK(process->user == "postgres:adm");
  CHECK(std::ranges::none_of(process->environment,
                             [](const std::string& text) { return text.starts_with("HOME="); }));
}

TEST_CASE("nothing to run, and variables without a name, are refused") {
  CHECK_FALSE(make_process({}, {}));
  for (const char* variable : {"", "=", "=x"}) {
    CAPTURE(variable);
    ProcessOptions options;
    options.command = {"true"};
    options.environment = {variable};
    CHECK_FALSE(make_process({}, options));
  }
}

}  // namespace
}  // namespace msb::launcher
