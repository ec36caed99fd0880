// SPDX-License-Identifier: Apache-2.0
#include "launcher/exit_record.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

namespace msb::launcher {
namespace {

struct Directory {
  Directory() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string path = "/tmp/msb-record-XXXXXX";
};

std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_CASE("a record says how a sandbox ended, and replaces the one before") {
  const Directory directory;
  const std::string path = directory.path + "/exit.json";
  REQUIRE(write_record(path, {{3, "", Cause::kExited}, 1000, 2000, {}}));
  CHECK(
      content(path) ==
      R"({"status":3,"message":"","cause":"exited","started_ms":1000,"ended_ms":2000,"kernel":[]})"
      "\n");
  std::ofstream(path + ".tmp") << "of one that was killed while it wrote";
  REQUIRE(write_record(
      path, {{125, "the guest \xff crashed", Cause::kFailed}, 1, 2, {"Kernel panic", "end"}}));
  const auto json = nlohmann::json::parse(content(path));
  CHECK(json.at("status") == 125);
  CHECK(json.at("message") == "the guest \xef\xbf\xbd crashed");
  CHECK(json.at("cause") == "failed");
  CHECK(json.at("kernel") == nlohmann::json{"Kernel panic", "end"});
  CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
}

TEST_CASE("each cause has its word") {
  CHECK(cause_word(Cause::kStopped) == "stopped");
  CHECK(cause_word(Cause::kTimeout) == "timeout");
  CHECK(cause_word(Cause::kIdle) == "idle");
}

TEST_CASE("a record that cannot be written leaves the old one, and nothing else") {
  const Directory directory;
  CHECK_FALSE(write_record(directory.path + "/missing/exit.json", {}));
  const std::string path = directory.path + "/exit.json";
  REQUIRE(std::filesystem::create_directory(path));  // cannot be renamed over
  const auto written = write_record(path, {});
  REQUIRE_FALSE(written);
  CHECK(written.error().message.find(path) != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
}

}  // namespace
}  // namespace msb::launcher
