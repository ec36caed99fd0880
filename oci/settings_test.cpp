// SPDX-License-Identifier: Apache-2.0
#include "oci/settings.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string resolved(const Settings& settings, std::string_view text) {
  const auto reference = resolve_reference(settings, text);
  return reference ? reference->to_string() : reference.error().message;
}

}  // namespace

TEST_CASE("without a file, the built-in aliases are there and nothing is insecure") {
  const testing::TemporaryDirectory directory;
  const auto settings = load_settings(directory / "images.json");
  REQUIRE(settings);
  CHECK(resolved(*settings, "microsandbox/python") == "docker.io/library/python:3.12-slim");
  CHECK(resolved(*settings, "microsandbox/node") == "docker.io/library/node:22-slim");
  CHECK(settings->insecure_registries.empty());
}

TEST_CASE("a tag or digest behind an alias takes the place of the target's") {
  const Settings settings = default_settings();
  CHECK(resolved(settings, "microsandbox/python:3.11") == "docker.io/library/python:3.11");
  CHECK(resolved(settings, "microsandbox/python@" + kDigest) ==
        "docker.io/library/python@" + kDigest);
}

TEST_CASE("an alias is the whole name as it is written") {
  const Settings settings = default_settings();
  for (const char* text : {"docker.io/microsandbox/python", "microsandbox/python2", "python"}) {
    CHECK(resolve_alias(settings, text) == text);
  }
}

TEST_CASE("the file's aliases replace the built-in ones, and what they name is not an alias") {
  const auto settings = parse_settings(
      R"({"aliases": {"microsandbox/python": "registry.local:5000/python:1", "a": "b", "b": "a:2"}})");
  REQUIRE(settings);
  CHECK(resolved(*settings, "microsandbox/python") == "registry.local:5000/python:1");
  CHECK(resolved(*settings, "microsandbox/python:2") == "registry.local:5000/python:2");
  CHECK(resolved(*settings, "microsandbox/node") == "docker.io/library/node:22-slim");
  CHECK(resolved(*settings, "a") == "docker.io/library/b:latest");
  CHECK(resolved(*settings, "b") == "docker.io/library/a:2");
}

TEST_CASE("registries of the settings are named as references name them") {
  const auto settings = parse_settings(
      R"({"insecure_registries": ["localhost:5000", "index.docker.io"],
          "certificates": {"registry.local": "/etc/ca.pem"}})");
  REQUIRE(settings);
  CHECK(settings->insecure_registries.contains("localhost:5000"));
  CHECK(settings->insecure_registries.contains("docker.io"));
  CHECK(settings->certificates.at("registry.local") == "/etc/ca.pem");
}

TEST_CASE("settings that are not in order are refused by the key") {
  struct Case {
    std::string_view json;
    std::string_view names;
  };
  const Case cases[] = {
      {"", "not valid JSON"},
      {"[]", "not a JSON object"},
      {R"({"alias": {}})", "'alias'"},
      {R"({"aliases": []})", "'aliases' is not an object"},
      {R"({"aliases": {"a": 1}})", "'aliases' has an entry"},
      {R"({"aliases": {"a:1": "b"}})", "'a:1'"},
      {R"({"aliases": {"./a": "b"}})", "'./a'"},
      {R"({"aliases": {"a": "B"}})", "the alias 'a'"},
      {R"({"insecure_registries": {}})", "'insecure_registries' is not an array"},
      {R"({"insecure_registries": ["http://a"]})", "'http://a'"},
      {R"({"certificates": {"a": "ca.pem"}})", "'a'"},
      {R"({"certificates": {"a/b": "/ca.pem"}})", "'a/b'"},
  };
  for (const Case& refused : cases) {
    CAPTURE(refused.json);
    const auto settings = parse_settings(refused.json);
    REQUIRE_FALSE(settings);
    CAPTURE(settings.error().message);
    CHECK(settings.error().message.find(refused.names) != std::string::npos);
  }
}

TEST_CASE("an error of the file names the file") {
  const testing::TemporaryDirectory directory;
  const std::string path = directory / "images.json";
  testing::write_file(path, R"({"colour": 1})");
  const auto settings = load_settings(path);
  REQUIRE_FALSE(settings);
  CHECK(settings.error().message.find(path) != std::string::npos);
}

TEST_CASE("settings are in MSB_CONFIG, else in the XDG directory, else in the home directory") {
  ::setenv("MSB_CONFIG", "/m", 1);
  ::setenv("XDG_CONFIG_HOME", "/x", 1);
  ::setenv("HOME", "/h", 1);
  CHECK(settings_path() == "/m/images.json");
  ::unsetenv("MSB_CONFIG");
  CHECK(settings_path() == "/x/microsandbox/images.json");
  ::setenv("XDG_CONFIG_HOME", "relative", 1);
  CHECK(settings_path() == "/h/.config/microsandbox/images.json");
  ::unsetenv("HOME");
  CHECK_FALSE(settings_path());
}

}  // namespace msb::oci
