// SPDX-License-Identifier: Apache-2.0
#include "launcher/output_log.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/testing/wire.hpp"

namespace msb::launcher {
namespace {

struct LogFixture {
  LogFixture() { REQUIRE(::mkdtemp(directory.data()) != nullptr); }
  ~LogFixture() {
    if (log) {
      log->close();
    }
    wire.loop->drain();
    std::filesystem::remove_all(directory);
  }
  [[nodiscard]] std::string path() const { return directory + "/output.log"; }
  Result<void> open(OutputLog::Limits limits = {}) {
    auto opened = OutputLog::open(
        *wire.loop, path(), [this](const Error& error) { troubles.push_back(error.message); },
        limits);
    if (!opened) {
      return std::unexpected(opened.error());
    }
    log = std::move(*opened);
    return {};
  }
  void add(std::string_view text) const {
    log->add(MSB_STREAM_STDOUT, std::as_bytes(std::span(text)));
  }
  static std::string content(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static std::string texts(const std::string& path) {
    std::ifstream file(path);
    std::string all;
    for (std::string line; std::getline(file, line);) {
      all += nlohmann::json::parse(line).at("text").get<std::string>();
    }
    return all;
  }

  std::string directory = "/tmp/msb-log-XXXXXX";
  protocol::testing::Wire wire;
  std::unique_ptr<OutputLog> log;
  std::vector<std::string> troubles;
};

TEST_CASE_FIXTURE(LogFixture,
                  "lines are written as they come, a prompt soon, the rest at the end") {
  REQUIRE(open());
  struct stat status{};
  REQUIRE(::stat(path().c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  add("one\n$ ");
  CHECK(texts(path()) == "one\n");
  CHECK(wire.run_until([&] { return texts(path()) == "one\n$ "; }));
  add("rest");
  log->close();
  CHECK(texts(path()) == "one\n$ rest");
  CHECK(troubles.empty());
}

TEST_CASE_FIXTURE(LogFixture, "a log is gone on with") {
  REQUIRE(open());
  add("first\n");
  log->close();
  REQUIRE(open());
  add("second\n");
  CHECK(texts(path()) == "first\nsecond\n");
}

TEST_CASE_FIXTURE(LogFixture, "a log that is full becomes the one before, and no line is lost") {
  REQUIRE(open({.file_bytes = 1000, .patience_ns = 1}));
  std::string all;
  for (int i = 0; i < 25; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    add(line);
    all += line;
    CHECK(std::filesystem::file_size(path()) <= 1000);
  }
  const std::string kept = texts(path() + ".1") + texts(path());
  CHECK(std::filesystem::file_size(path() + ".1") > 900);
  CHECK(all.ends_with(kept));
  CHECK(kept.size() > 100);
  CHECK(troubles.empty());
}

TEST_CASE_FIXTURE(LogFixture, "what is no regular file is no log") {
  REQUIRE(::symlink("/dev/null", path().c_str()) == 0);
  CHECK(open().error().message.find("symbolic link") != std::string::npos);
  REQUIRE(::unlink(path().c_str()) == 0);
  REQUIRE(::mkfifo(path().c_str(), 0600) == 0);
  CHECK_FALSE(open());
  REQUIRE(::unlink(path().c_str()) == 0);
  REQUIRE(::mkdir(path().c_str(), 0700) == 0);
  CHECK_FALSE(open());
}

TEST_CASE_FIXTURE(
    LogFixture, "a log that cannot grow is told once, leaves no half line, and works again later") {
  REQUIRE(open());
  add("before\n");
  const std::string before = content(path());
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  // As a full disk: part of what is written fits. SIGXFSZ would end the process.
  auto* const action = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit full{before.size() + 5, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &full) == 0);
  add("lost\n");
  add("lost too\n");
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  CHECK(content(path()) == before);
  CHECK(troubles.size() == 1);
  CHECK(troubles.front().find("output is lost") != std::string::npos);
  add("after\n");
  CHECK(texts(path()) == "before\nafter\n");
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &full) == 0);
  add("lost again\n");
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  CHECK(troubles.size() == 2);
  ::signal(SIGXFSZ, action);
}

TEST_CASE_FIXTURE(LogFixture, "a log that cannot be renamed goes on") {
  REQUIRE(open({.file_bytes = 200, .patience_ns = 1}));
  REQUIRE(::mkdir((path() + ".1").c_str(), 0700) == 0);
  std::string all;
  for (int i = 0; i < 10; ++i) {
    add("a line\n");
    all += "a line\n";
  }
  CHECK(texts(path()) == all);
  CHECK(troubles.size() == 1);
}

}  // namespace
}  // namespace msb::launcher
