// SPDX-License-Identifier: Apache-2.0
#include "launcher/image.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <utility>

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

TEST_CASE("the user's words can follow the image's command") {
  ProcessOptions options;
  options.command = {"mine", "too"};
  options.extend = true;
  const auto process = make_process(image(), options);
  REQUIRE(process);
  CHECK(process->arguments == std::vector<std::string>{"/entry", "default", "mine", "too"});
}

TEST_CASE("an image does not get the caller's variables by naming them") {
  ::setenv("MSB_TEST_SECRET", "secret", 1);
  oci::ImageConfig config = image();
  config.env = {"MSB_TEST_SECRET", "PATH", "=x", "A=b"};
  ProcessOptions options;
  options.path = "/scripts";
  const auto process = make_process(config, options);
  REQUIRE(process);
  CHECK(process->environment.size() == 2);
  CHECK(has(*process, "A=b"));
  CHECK(
      has(*process, "PATH=/scripts:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
}

TEST_CASE("a command alone has no entrypoint, and a directory comes first on PATH") {
  ProcessOptions options;
  options.command = {"mine"};
  options.no_entrypoint = true;
  options.path = "/scripts";
  const auto process = make_process(image(), options);
  REQUIRE(process);
  CHECK(process->arguments == std::vector<std::string>{"mine"});
  CHECK(has(*process, "PATH=/scripts:/image/bin"));
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

TEST_CASE("the stop signal is the user's, else the image's, else SIGTERM") {
  oci::ImageConfig image;
  CHECK(stop_signal(image, "") == std::uint32_t{SIGTERM});
  for (const auto& [word, number] : {std::pair{"SIGQUIT", 3U}, std::pair{"INT", 2U},
                                     std::pair{"15", 15U}, std::pair{"SIGRTMIN+3", 37U}}) {
    CAPTURE(word);
    image.stop_signal = word;
    CHECK(stop_signal(image, "") == number);
    CHECK(stop_signal(image, "HUP") == std::uint32_t{SIGHUP});
  }
}

TEST_CASE("a stop signal that there is not is refused, and by whom it was named") {
  oci::ImageConfig image;
  for (const char* word : {"SIGNOTHING", "0", "65", "TERM ", "SIGRTMIN+31", "-15"}) {
    CAPTURE(word);
    image.stop_signal = word;
    const auto named_by_image = stop_signal(image, "");
    REQUIRE_FALSE(named_by_image);
    CHECK(named_by_image.error().message.starts_with("the image's StopSignal: "));
    const auto named_by_user = stop_signal({}, word);
    REQUIRE_FALSE(named_by_user);
    CHECK(named_by_user.error().message.starts_with("--stop-signal: "));
    CHECK(stop_signal(image, "TERM") == std::uint32_t{SIGTERM});
  }
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

TEST_CASE("volumes are lines of the boot file, and what is no path is refused") {
  oci::ImageConfig config = image();
  config.volumes = {"/data", "/var/my lib"};
  CHECK(volume_lines(config) == "volume /data\nvolume /var/my lib\n");
  for (const char* wrong : {"data", "", "/a\nlayer /etc"}) {
    config.volumes = {wrong};
    CHECK_FALSE(volume_lines(config));
  }
}

}  // namespace
}  // namespace msb::launcher
