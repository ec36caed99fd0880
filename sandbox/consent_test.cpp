// SPDX-License-Identifier: Apache-2.0
#include "sandbox/consent.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace msb::sandbox {
namespace {

namespace fs = std::filesystem;

// A directory with a project in it and what is beside that.
class Bed {
 public:
  Bed() {
    std::string made = "/tmp/msb-consent-test-XXXXXX";
    REQUIRE(::mkdtemp(made.data()) != nullptr);
    root_ = fs::canonical(made).string();
    fs::create_directories(project() + "/src");
    fs::create_directories(root_ + "/project-of-others/.ssh");
    std::ofstream(project() + "/.env") << "A=b\n";
  }
  Bed(const Bed&) = delete;
  Bed& operator=(const Bed&) = delete;
  ~Bed() { fs::remove_all(root_); }

  [[nodiscard]] const std::string& root() const { return root_; }
  [[nodiscard]] std::string project() const { return root_ + "/project"; }
  [[nodiscard]] std::string others() const { return root_ + "/project-of-others"; }

 private:
  std::string root_;
};

std::vector<std::string> beyond_of(const SandboxSpec& spec, const Bed& bed) {
  const auto sentences = beyond(spec, bed.project());
  REQUIRE(sentences);
  return *sentences;
}

TEST_CASE("what is in the project needs no consent") {
  const Bed bed;
  SandboxSpec spec;
  spec.image = "python:3.12";
  spec.volumes = {{"src", "/a", false},
                  {".", "/b", false},
                  {"./none/yet", "/c", false},
                  {bed.project() + "/src", "/d", true},
                  {"src/../src", "/e", false}};
  spec.env_files = {".env", "src/none"};
  spec.ports = {"8080:80", "127.9.9.9:1:2", "[::1]:1:2", "53/udp"};
  CHECK(beyond_of(spec, bed).empty());
  spec.image = "./src";
  CHECK(beyond_of(spec, bed).empty());
}

TEST_CASE("what is beyond the project is said, wherever links and dots hide it") {
  const Bed bed;
  fs::create_symlink("../project-of-others/.ssh", bed.project() + "/innocent");
  fs::create_symlink("../project-of-others", bed.project() + "/image");
  SandboxSpec spec;
  spec.image = "./image";
  spec.volumes = {{bed.others(), "/a", false},
                  {"../project-of-others", "/b", true},
                  {"innocent", "/keys", false},
                  {"src/../innocent/new", "/c", false},
                  {"/", "/host", false}};
  spec.env_files = {"innocent/env"};
  spec.ports = {"0.0.0.0:8080:80", "[::]:0:53/udp", "9000"};
  CHECK(beyond_of(spec, bed) ==
        std::vector<std::string>{
            "runs the image in " + bed.others(),
            "mounts " + bed.others() + " at /a (read and write)",
            "mounts " + bed.others() + " at /b (read only)",
            "mounts " + bed.others() + "/.ssh at /keys (read and write)",
            "mounts " + bed.others() + "/.ssh/new at /c (read and write)",
            "mounts / at /host (read and write)",
            "reads variables from " + bed.others() + "/.ssh/env",
            "publishes port 80 at 0.0.0.0:8080, which other machines can reach",
            "publishes udp port 53 at [::]:a free port, which other machines can reach"});
}

TEST_CASE("what leads nowhere cannot be agreed to") {
  const Bed bed;
  fs::create_symlink("loop", bed.project() + "/loop");
  fs::create_symlink(bed.others() + "/later", bed.project() + "/dangling");
  SandboxSpec spec;
  spec.image = "a";
  for (const char* path : {"loop", "dangling"}) {
    CAPTURE(path);
    spec.volumes = {{path, "/a", false}};
    CHECK_FALSE(beyond(spec, bed.project()));
  }
  CHECK_FALSE(beyond(spec, bed.project() + "/none"));
}

TEST_CASE("names that could deceive are shown as what they are, and differ") {
  const Bed bed;
  SandboxSpec spec;
  spec.image = "a";
  spec.volumes = {{"/a\x1b[2J\xc3\xa9", "/g", false}, {"/a\\x1b[2J\xc3\xa9", "/h", false}};
  CHECK(beyond_of(spec, bed) ==
        std::vector<std::string>{"mounts /a\\x1b[2J\\xc3\\xa9 at /g (read and write)",
                                 "mounts /a\\x5cx1b[2J\\xc3\\xa9 at /h (read and write)"});
}

TEST_CASE("a volume is judged by the file that it was opened as") {
  const Bed bed;
  fs::create_symlink("src", bed.project() + "/link");
  const auto opened = open_volume({"link", "/a", true}, bed.project());
  REQUIRE(opened);
  CHECK(opened->path == bed.project() + "/src");
  CHECK(opened->guest == "/a");
  CHECK(opened->read_only);
  CHECK(beyond(*opened, bed.project()).value() == std::nullopt);
  // The sandbox swaps it for a link out of the project, too late.
  fs::rename(bed.project() + "/src", bed.project() + "/old");
  fs::create_symlink(bed.others(), bed.project() + "/src");
  CHECK(real_path(opened->file) == bed.project() + "/old");
  const auto swapped = open_volume({"link", "/a", false}, bed.project());
  REQUIRE(swapped);
  CHECK(beyond(*swapped, bed.project()).value() ==
        "mounts " + bed.others() + " at /a (read and write)");
}

TEST_CASE("only directories and regular files that are there are opened as volumes") {
  const Bed bed;
  REQUIRE(::mkfifo((bed.project() + "/fifo").c_str(), 0600) == 0);
  CHECK(open_volume({".env", "/e", false}, bed.project()));
  CHECK(open_volume({"/usr", "/u", true}, bed.project()));
  for (const char* path : {"fifo", "none", "/dev/null", ".env/x"}) {
    CAPTURE(path);
    CHECK_FALSE(open_volume({path, "/a", false}, bed.project()));
  }
  const auto file = open_volume({".env", "/e", false}, bed.project());
  REQUIRE(file);
  fs::remove(bed.project() + "/.env");
  CHECK_FALSE(real_path(file->file));
}

TEST_CASE("what was agreed to is remembered for its project alone") {
  const Bed bed;
  const std::string path = bed.root() + "/home/consents.json";
  const Consents consents(path);
  CHECK(consents.is_agreed("/p", {}) == true);
  CHECK(consents.is_agreed("/p", {"a"}) == false);
  REQUIRE(consents.agree("/p", {"a", "b"}));
  REQUIRE(consents.agree("/p", {"c"}));
  CHECK(consents.is_agreed("/p", {"a", "b", "c"}) == true);
  CHECK(consents.missing("/p", {"a", "d"}) == std::vector<std::string>{"d"});
  CHECK(consents.is_agreed("/q", {"a"}) == false);
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("several that agree at the same time lose nothing") {
  const Bed bed;
  const std::string path = bed.root() + "/home/consents.json";
  std::vector<std::thread> threads;
  std::vector<std::string> all;
  for (int i = 0; i < 8; ++i) {
    all.push_back(fmt::format("sentence {}", i));
    threads.emplace_back(
        [&path, sentence = all.back()] { CHECK(Consents(path).agree("/p", {sentence})); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(Consents(path).is_agreed("/p", all) == true);
}

TEST_CASE("a file of consents that is damaged is said, and agrees to nothing") {
  const Bed bed;
  const std::string path = bed.root() + "/consents.json";
  const Consents consents(path);
  for (const char* text :
       {"", "[]", "{", "{}", "{\"projects\": []}", "{\"projects\": {\"/p\": 1}}",
        "{\"projects\": {\"/p\": [1]}}", "{\"projects\": {\"/p\": {\"a\": \"a\"}}}"}) {
    CAPTURE(text);
    std::ofstream(path) << text;
    const auto agreed = consents.is_agreed("/p", {"a"});
    REQUIRE_FALSE(agreed);
    CHECK(agreed.error().message.find(path) != std::string::npos);
    CHECK_FALSE(consents.agree("/p", {"a"}));
  }
  fs::remove(path);
  fs::create_symlink("elsewhere", path);
  CHECK_FALSE(consents.agree("/p", {"a"}));
}

}  // namespace
}  // namespace msb::sandbox
