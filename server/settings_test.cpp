// SPDX-License-Identifier: Apache-2.0
#include "server/settings.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sandbox/place_testing.hpp"

namespace msb::server {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using sandbox::Place;

std::string message_of(std::string_view json) {
  const auto settings = parse_server_settings(json);
  return settings ? "" : settings.error().message;
}

// {"allow": {"name": value}}
std::string within(const char* group, const char* name, const Json& value) {
  return Json{{group, {{name, value}}}}.dump();
}

TEST_CASE("without a file, what needs no trust is allowed") {
  const Place place;
  const auto settings = load_server_settings(place.path + "/server.json");
  REQUIRE(settings);
  CHECK(settings->hosts.empty());
  CHECK(settings->origins.empty());
  CHECK(settings->images == std::vector<std::string>{"*"});
  CHECK(settings->volumes.empty());
  REQUIRE(settings->ports.size() == 1);
  CHECK(settings->ports[0].address == "127.0.0.1");
  CHECK(settings->ports[0].first == 1024);
  CHECK(settings->ports[0].last == 65535);
  CHECK(settings->scope == sandbox::Scope::kPublic);
}

TEST_CASE("what the operator settled takes the place of the defaults") {
  const Place place;
  const std::string real = fs::canonical(place.path).string();
  fs::create_directories(place.path + "/data/in");
  fs::create_directory_symlink("data", place.path + "/link");
  std::ofstream(place.path + "/server.json")
      << Json{{"hosts", {"Sandbox.Example", "10.0.0.1", "[FE80::1]", "my_host"}},
              {"origins",
               {"https://App.Example", "http://localhost:3000", "https://[::1]:8443", "app://x",
                "chrome-extension://abcdefgh"}},
              {"allow",
               {{"images", {"python", "ghcr.io/me/*", "*", "localhost:5000/a/*:1.*", "a@sha256:*"}},
                {"volumes", {place.path + "/link/in/..:ro", place.path + "/link"}},
                {"ports", {"127.0.0.1:8000-8999", "0.0.0.0:80", "[::1]:1-65535", "[0:0::0]:5-5"}},
                {"scope", "local"}}},
              {"limits",
               {{"sandboxes", 3},
                {"memory", "2T"},
                {"cpus", 4},
                {"sandbox_memory", 4096},
                {"disk", "20G"},
                {"processes", 100},
                {"lifetime", "1d"}}}};
  // Of one directory, that may be written: :ro would be in it.
  CHECK_FALSE(load_server_settings(place.path + "/server.json"));
  Json document = Json::parse(std::ifstream(place.path + "/server.json"));
  document["allow"]["volumes"][1] = place.path + "/link:ro";
  std::ofstream(place.path + "/server.json") << document;
  const auto settings = load_server_settings(place.path + "/server.json");
  REQUIRE_MESSAGE(settings, settings.error().message);
  CHECK(settings->hosts ==
        std::vector<std::string>{"sandbox.example", "10.0.0.1", "[fe80::1]", "my_host"});
  CHECK(settings->origins == std::vector<std::string>{"https://app.example",
                                                      "http://localhost:3000", "https://[::1]:8443",
                                                      "app://x", "chrome-extension://abcdefgh"});
  CHECK(settings->images.size() == 5);
  REQUIRE(settings->volumes.size() == 2);
  CHECK(settings->volumes[0].path == real + "/data");
  CHECK(settings->volumes[0].read_only);
  CHECK(settings->volumes[1].path == real + "/data");
  REQUIRE(settings->ports.size() == 4);
  CHECK(settings->ports[0].first == 8000);
  CHECK(settings->ports[0].last == 8999);
  CHECK(settings->ports[1].first == 80);
  CHECK(settings->ports[1].last == 80);
  CHECK(settings->ports[2].address == "::1");
  CHECK(settings->ports[3].address == "::");
  CHECK(settings->scope == sandbox::Scope::kGroup);
  CHECK(settings->max_sandboxes == 3);
  CHECK(settings->max_memory_mib == 2U * 1024 * 1024);
  CHECK(settings->max_cpus == 4);
  CHECK(settings->max_sandbox_memory_mib == 4096);
  CHECK(settings->max_disk_mib == 20480);
  CHECK(settings->max_processes == 100U);
  CHECK(settings->max_lifetime_s == 86400U);
}

TEST_CASE("a setting that there is not is refused with the one that was meant") {
  CHECK(message_of(R"({"host": []})") == "there is no setting \"host\"; did you mean \"hosts\"?");
  CHECK(message_of(R"({"limit": {}})") ==
        "there is no setting \"limit\"; did you mean \"limits\"?");
  CHECK(message_of(R"({"allow": {"imgaes": []}})") ==
        "there is no setting \"allow.imgaes\"; did you mean \"images\"?");
  CHECK(message_of(R"({"limits": {"images": []}})") == "there is no setting \"limits.images\"");
  CHECK(message_of(R"({"allow.images": []})") == "there is no setting \"allow.images\"");
  CHECK(message_of("{\"\\u001b[2J\": 1}") == "there is no setting \"\\x1b[2J\"");
}

TEST_CASE("what is no document is refused") {
  CHECK(message_of("") == "the document is not valid JSON");
  CHECK(message_of("[]") == "the document is not a JSON object");
  CHECK(message_of(std::string(100000, '[')) != "");
  CHECK(message_of("{}") == "");
}

TEST_CASE("a setting that cannot be is refused by its name") {
  struct Row {
    const char* group;
    const char* name;
    std::vector<Json> bad;
  };
  const Json long_list(std::vector<std::string>(1001, "a"));
  for (const Row& row : {
           Row{"allow",
               "images",
               {1,
                "python",
                Json::object(),
                nullptr,
                {1},
                {"/srv"},
                {"./a"},
                {"../a"},
                {""},
                {"a b"},
                {"A"},
                {"a//b"},
                {"a:b c"},
                {"a/*/"},
                {"\x1b"},
                {"a:" + std::string(300, '*')},
                long_list}},
           Row{"allow",
               "volumes",
               {"/tmp",
                {1},
                {""},
                {"tmp"},
                {"./tmp"},
                {":ro"},
                {"/"},
                {"/:ro"},
                {"/."},
                {"/proc/self/root"},
                {"/none/there"},
                {"/tmp:rw"},
                {std::string("/tmp\0x", 6)}}},
           Row{"allow",
               "ports",
               {80,
                {80},
                {"80"},
                {"127.0.0.1"},
                {"127.0.0.1:"},
                {"127.0.0.1:0"},
                {"127.0.0.1:0-5"},
                {"127.0.0.1:5-4"},
                {"127.0.0.1:1-65536"},
                {"127.0.0.1:1-"},
                {"127.0.0.1:-1"},
                {"127.0.0.1:1-2-3"},
                {"127.0.0.1:01"},
                {"localhost:80"},
                {"::1:80"},
                {"[127.0.0.1]:80"},
                {"[::1]"},
                {"[::1]80"},
                {":80"},
                {"127.1:80"},
                {"*:80"}}},
           Row{"allow", "scope", {1, "", "all", nullptr, Json::array(), true}},
           Row{"limits", "sandboxes", {0, -1, 1.5, "3", nullptr, 100001, 18446744073709551615U}},
           Row{"limits", "memory", {0, -1, 1.5, "", "lots", true, "17T", 18446744073709551615U}},
           Row{"limits", "cpus", {0, 65, -1, 1.0, "two", false}},
           Row{"limits", "sandbox_memory", {31, "2T", "1.5G", Json::array()}},
           Row{"limits", "disk", {15, "17T"}},
           Row{"limits", "processes", {0, "many"}},
           Row{"limits", "lifetime", {0, "1w", "366d"}},
       }) {
    for (const Json& bad : row.bad) {
      const std::string json = within(row.group, row.name, bad);
      CAPTURE(json.substr(0, 200));
      const auto settings = parse_server_settings(json);
      REQUIRE_FALSE(settings);
      CHECK(settings.error().message.starts_with(
          fmt::format("the setting \"{}.{}\": ", row.group, row.name)));
      CHECK(settings.error().message.find('\x1b') == std::string::npos);
    }
  }
  CHECK(message_of(R"({"allow": []})") == "the setting \"allow\": it has to be an object");
  CHECK(message_of(R"({"limits": null})") == "the setting \"limits\": it has to be an object");
}

TEST_CASE("hosts and origins are what a browser would send") {
  for (const char* bad :
       {"",    "http://a", "a:80",         "a/b",       "a b",         ".",         "a.",
        ".a",  "a..b",     "-a",           "a-",        "*",           "*.example", "[::1",
        "::1", "[::1]:80", "[fe80::1%lo]", "[1.2.3.4]", "h\xc3\xb6st", "a@b"}) {
    CAPTURE(bad);
    CHECK(message_of(Json{{"hosts", {bad}}}.dump()).starts_with("the setting \"hosts\": "));
  }
  CHECK_FALSE(parse_server_settings(Json{{"hosts", {std::string(254, 'a')}}}.dump()));
  CHECK_FALSE(parse_server_settings(Json{{"hosts", {std::string(64, 'a')}}}.dump()));
  for (const char* bad : {"",
                          "*",
                          "null",
                          "app.example",
                          "https://",
                          "https://*.example",
                          "https://a/",
                          "https://a/b",
                          "https://a?b",
                          "https://a#b",
                          "https://u@a",
                          "https://a:",
                          "https://a:x",
                          "https://a:65536",
                          "https://a:1:2",
                          "://a",
                          "1x://a",
                          "https:/a",
                          "https://::1",
                          "https://[::1",
                          "https://[::1]x",
                          "https://a b",
                          "https://a,https://b"}) {
    CAPTURE(bad);
    CHECK(message_of(Json{{"origins", {bad}}}.dump()).starts_with("the setting \"origins\": "));
  }
  CHECK(message_of(R"({"origins": ["https://a:443"]})") ==
        "the setting \"origins\": \"https://a:443\" has the port that https has anyway, which "
        "browsers leave out; leave it out, too");
  CHECK(message_of(R"({"origins": ["http://a:80"]})") != "");
  CHECK(message_of(R"({"origins": ["http://a:443", "https://a:80"]})") == "");
}

TEST_CASE("what may only be read is in nothing that may be written") {
  const Place place;
  const std::string real = fs::canonical(place.path).string();
  fs::create_directories(place.path + "/a/b");
  fs::create_directories(place.path + "/ab");
  const auto judge = [&](const std::vector<std::string>& volumes) {
    Json words = Json::array();
    for (const std::string& volume : volumes) {
      words.push_back(place.path + volume);
    }
    return message_of(within("allow", "volumes", words));
  };
  CHECK(judge({"/a", "/a/b:ro"}) ==
        fmt::format("the setting \"allow.volumes\": \"{0}/a/b\" may only be read, and is in "
                    "\"{0}/a\", which may be written; allow that with :ro, or something else",
                    real));
  CHECK(judge({"/a/b:ro", "/a"}) != "");
  CHECK(judge({"/a", "/a:ro"}) != "");
  CHECK(judge({"/a:ro", "/a/b"}) == "");
  CHECK(judge({"/a", "/ab:ro"}) == "");
  CHECK(judge({"/ab", "/a:ro"}) == "");
}

TEST_CASE("a path is in a volume by whole components") {
  const AllowedVolume volume{"/srv/data", false};
  for (const char* inside : {"/srv/data", "/srv/data/", "/srv/data/a"}) {
    CHECK(is_in(inside, volume));
  }
  for (const char* outside :
       {"/", "/srv", "/srv/dat", "/srv/data2", "/srv/data-old/a", "", "/a/srv/data"}) {
    CAPTURE(outside);
    CHECK_FALSE(is_in(outside, volume));
  }
}

TEST_CASE("the file is beside that of images, and an error names it") {
  const Place place;
  const char* const before = std::getenv("MSB_CONFIG");
  const std::string kept = before != nullptr ? before : "";
  ::setenv("MSB_CONFIG", place.path.c_str(), 1);
  const auto path = server_settings_path();
  if (before != nullptr) {
    ::setenv("MSB_CONFIG", kept.c_str(), 1);
  } else {
    ::unsetenv("MSB_CONFIG");
  }
  REQUIRE(path);
  CHECK(*path == place.path + "/server.json");
  std::ofstream(*path) << R"({"hosts": 1})";
  CHECK(load_server_settings(*path).error().message ==
        "server settings '" + *path +
            "': the setting \"hosts\": it has to be a list of at most 1000 texts");
  fs::remove(*path);
  fs::create_directory(*path);
  CHECK_FALSE(load_server_settings(*path));
}

}  // namespace
}  // namespace msb::server
