// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/credentials.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "base/fd.hpp"
#include "oci/base64.hpp"
#include "oci/registry/docker_config.hpp"
#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using namespace std::chrono_literals;

const Credentials kAlice{.username = "alice", .password = "s3:cret", .identity_token = {}};

std::string read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

mode_t mode_of(const std::string& path) {
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

// A config.json and, on PATH, a helper docker-credential-test that is a shell script.
struct Home {
  testing::TemporaryDirectory directory;
  std::string path = directory / "config.json";
  DockerConfig config{path, 10s};

  explicit Home(std::string_view content = {}) {
    if (!content.empty()) {
      testing::write_file(path, content);
    }
    ::setenv("PATH", (directory.path() + ":/usr/bin:/bin").c_str(), 1);
  }

  void helper(std::string_view script) const {
    const std::string program = directory / "docker-credential-test";
    testing::write_file(program, "#!/bin/sh\n" + std::string(script));
    REQUIRE(::chmod(program.c_str(), 0700) == 0);
  }
};

std::string auth_entry(std::string_view key, std::string_view user_and_password) {
  return nlohmann::json{{"auths", {{key, {{"auth", encode_base64(user_and_password)}}}}}}.dump();
}

}  // namespace

TEST_CASE("base64 is read back only in the form in which it is written") {
  for (const char* bytes : {"", "a", "ab", "abc", "abcd"}) {
    CHECK(decode_base64(encode_base64(bytes)) == bytes);
  }
  CHECK(encode_base64("ab") == "YWI=");
  for (const char* text : {"YWI", "YW=I", "YWJ=", "Y===", "====", " YWI", "YWI=\n", "Y*I="}) {
    CAPTURE(text);
    CHECK_FALSE(decode_base64(text));
  }
}

TEST_CASE("credentials are found under every key that means the registry") {
  struct Case {
    std::string_view key;
    std::string registry;
  };
  for (const Case& named :
       {Case{"https://index.docker.io/v1/", "docker.io"}, Case{"index.docker.io", "docker.io"},
        Case{"docker.io", "docker.io"}, Case{"ghcr.io", "ghcr.io"},
        Case{"https://ghcr.io", "ghcr.io"}, Case{"http://ghcr.io/v2/", "ghcr.io"},
        Case{"ghcr.io/user", "ghcr.io"}, Case{"localhost:5000", "localhost:5000"}}) {
    CAPTURE(named.key);
    const Home home(auth_entry(named.key, "alice:s3:cret"));
    CHECK(home.config.find(named.registry).value() == kAlice);
    CHECK_FALSE(home.config.find("other.example").value());
  }
  const Home home(auth_entry("localhost:5000", "alice:s3:cret"));
  CHECK_FALSE(home.config.find("localhost").value());
}

TEST_CASE("an entry can give user and password apart, or an identity token, or nothing") {
  const Home home(R"({"auths": {
    "a.example": {"username": "alice", "password": "s3:cret"},
    "b.example": {"auth": "PHRva2VuPjo=", "identitytoken": "t"},
    "c.example": {}}})");
  CHECK(home.config.find("a.example").value() == kAlice);
  CHECK(home.config.find("b.example").value()->identity_token == "t");
  CHECK_FALSE(home.config.find("c.example").value());
}

TEST_CASE("a malformed entry fails for its registry alone, and its error shows nothing of it") {
  const Home home(R"({"auths": {"a.example": {"auth": "geheim"}, "b.example": {"auth": 1},
                                "c.example": {"username": "alice", "password": "s3:cret"}}})");
  const auto malformed = home.config.find("a.example");
  REQUIRE_FALSE(malformed);
  CHECK(malformed.error().message.find("geheim") == std::string::npos);
  CHECK(malformed.error().message.find(home.path) != std::string::npos);
  CHECK_FALSE(home.config.find("b.example"));
  CHECK(home.config.find("c.example").value() == kAlice);
}

TEST_CASE("what is stored is found, in a file for its owner alone, and the rest of it is kept") {
  const Home home(R"({"auths": {"https://ghcr.io/v1/": {"auth": "b2xkOm9sZA=="}},
                      "proxies": {"default": {"httpProxy": "p"}}, "psFormat": "x"})");
  REQUIRE(::chmod(home.path.c_str(), 0644) == 0);
  CHECK(home.config.store("ghcr.io", kAlice) == home.path);
  CHECK(home.config.store("docker.io", kAlice) == home.path);
  CHECK(home.config.find("ghcr.io").value() == kAlice);
  CHECK(mode_of(home.path) == 0600);
  const auto document = nlohmann::json::parse(read(home.path));
  CHECK(document["proxies"]["default"]["httpProxy"] == "p");
  CHECK(document["psFormat"] == "x");
  CHECK(document["auths"].contains("https://index.docker.io/v1/"));
  CHECK_FALSE(document["auths"].contains("https://ghcr.io/v1/"));
  CHECK(testing::list_directory(home.directory.path()).size() == 1);
}

TEST_CASE("credentials are stored where there is no file yet, and below a symbolic link") {
  const Home home;
  const DockerConfig deep((home.directory / "new/docker") + "/config.json");
  REQUIRE(deep.store("ghcr.io", kAlice));
  CHECK(deep.find("ghcr.io").value() == kAlice);
  CHECK(mode_of(home.directory / "new") == 0700);

  const std::string link = home.directory / "link.json";
  testing::write_file(home.path, "{}");
  REQUIRE(::symlink(home.path.c_str(), link.c_str()) == 0);
  REQUIRE(DockerConfig(link).store("ghcr.io", kAlice));
  CHECK(home.config.find("ghcr.io").value() == kAlice);
}

TEST_CASE("erased credentials are gone, under every key of the registry") {
  const Home home(R"({"auths": {"ghcr.io": {"auth": "YTpi"}, "https://ghcr.io/": {"auth": "YTpi"},
                                "b.example": {"auth": "YTpi"}}})");
  CHECK(home.config.erase("ghcr.io") == true);
  CHECK_FALSE(home.config.find("ghcr.io").value());
  CHECK(home.config.find("b.example").value());
  CHECK(home.config.erase("ghcr.io") == false);
}

TEST_CASE("a file that cannot be understood is refused and left as it is") {
  for (const char* content : {"{", "[]", R"({"credsStore": "../sh"})", R"({"credsStore": 1})",
                              R"({"credHelpers": {"ghcr.io": "a b"}})"}) {
    CAPTURE(content);
    const Home home(content);
    CHECK_FALSE(home.config.find("ghcr.io"));
    CHECK_FALSE(home.config.store("ghcr.io", kAlice));
    CHECK(read(home.path) == content);
  }
}

TEST_CASE("a helper is asked with the registry's key and answers with credentials") {
  const Home home(R"({"credsStore": "test"})");
  home.helper(R"sh([ "$1" = get ] && [ "$(cat)" = https://index.docker.io/v1/ ] || exit 1
echo '{"ServerURL":"x","Username":"alice","Secret":"s3:cret"}')sh");
  CHECK(home.config.find("docker.io").value() == kAlice);
}

TEST_CASE(
    "a helper of one registry comes before the one of all, and an empty name means the file") {
  const Home home(
      R"({"credsStore": "missing", "credHelpers": {"a.example": "test", "b.example": ""},
                      "auths": {"b.example": {"auth": "YTpi"}}})");
  home.helper(R"(echo '{"Username":"<token>","Secret":"t"}')");
  CHECK(home.config.find("a.example").value()->identity_token == "t");
  CHECK(home.config.find("b.example").value()->username == "a");
  const auto missing = home.config.find("c.example");
  REQUIRE_FALSE(missing);
  CHECK(missing.error().message.find("docker-credential-missing") != std::string::npos);
}

TEST_CASE("a helper that has none leaves it to the file") {
  const Home home(R"({"credsStore": "test", "auths": {"b.example": {"auth": "YTpi"}}})");
  home.helper("echo 'credentials not found in native keychain'; exit 1");
  CHECK_FALSE(home.config.find("a.example").value());
  CHECK(home.config.find("b.example").value()->username == "a");
  CHECK(home.config.erase("a.example") == false);
}

TEST_CASE("a helper stores and erases, and nothing of it gets into the file") {
  const Home home(R"({"credsStore": "test", "auths": {"ghcr.io": {"auth": "YTpi"}}})");
  home.helper("cat > \"${0%/*}/$1\"");
  CHECK(home.config.store("ghcr.io", kAlice) == "the credential helper 'test'");
  const auto stored = nlohmann::json::parse(read(home.directory / "store"));
  CHECK(stored ==
        nlohmann::json{{"ServerURL", "ghcr.io"}, {"Username", "alice"}, {"Secret", "s3:cret"}});
  CHECK(read(home.path).find("YTpi") == std::string::npos);
  CHECK(home.config.erase("ghcr.io") == true);
  CHECK(read(home.directory / "erase") == "ghcr.io");
}

TEST_CASE("a helper that fails, floods or answers nonsense is named, and no secret shown") {
  struct Case {
    std::string_view script;
    std::string_view says;
  };
  for (const Case& failing :
       {Case{"echo 'locked\x1b[0m'; exit 1", "locked"}, Case{"exit 1", "does not say why"},
        Case{"exec cat /dev/zero", "writes more than"},
        Case{"echo '{\"Secret\":\"s3:cret\"}'", "something else"},
        Case{"echo s3:cret", "something else"}, Case{"kill -KILL $$", "does not say why"}}) {
    CAPTURE(failing.script);
    const Home home(R"({"credsStore": "test"})");
    home.helper(failing.script);
    const auto found = home.config.find("ghcr.io");
    REQUIRE_FALSE(found);
    const std::string& message = found.error().message;
    CAPTURE(message);
    CHECK(message.find("docker-credential-test") != std::string::npos);
    CHECK(message.find(failing.says) != std::string::npos);
    CHECK(message.find("s3:cret") == std::string::npos);
    CHECK(message.find('\x1b') == std::string::npos);
  }
  const Home home(R"({"credsStore": "test"})");
  home.helper("cat; exit 1");
  const auto stored = home.config.store("ghcr.io", kAlice);
  REQUIRE_FALSE(stored);
  CHECK(stored.error().message.find("s3:cret") == std::string::npos);
}

TEST_CASE("a helper that does not end is killed") {
  const Home home(R"({"credsStore": "test"})");
  home.helper("exec sleep 1000");
  const auto found = DockerConfig(home.path, 50ms).find("ghcr.io");
  REQUIRE_FALSE(found);
  CHECK(found.error().message.find("50 ms") != std::string::npos);
}

TEST_CASE("a helper is not waited for longer than it lives, whatever it leaves behind") {
  const Home home(R"({"credsStore": "test"})");
  home.helper(
      "while [ -e \"$0\" ]; do sleep 0.1; done &\necho "
      "'{\"Username\":\"alice\",\"Secret\":\"s3:cret\"}'");
  CHECK(home.config.find("ghcr.io").value() == kAlice);  // its timeout is less
}

TEST_CASE("a helper gets no descriptor of ours") {
  const Home home(R"({"credsStore": "test"})");
  constexpr int kNumber = 40;                                  // not one that the shell uses
  const Fd leaking(::fcntl(STDERR_FILENO, F_DUPFD, kNumber));  // not close-on-exec
  home.helper(
      "for fd in /proc/self/fd/*; do [ \"${fd##*/}\" -gt 2 ] && echo \"$fd\" >> "
      "\"${0%/*}/found\"; done\necho '{\"Username\":\"alice\",\"Secret\":\"s3:cret\"}'");
  CHECK(home.config.find("ghcr.io").value() == kAlice);
  CHECK(read(home.directory / "found").find("/" + std::to_string(leaking.get()) + "\n") ==
        std::string::npos);
}

TEST_CASE("Docker's configuration is in DOCKER_CONFIG, else in the home directory") {
  ::setenv("DOCKER_CONFIG", "/d", 1);
  ::setenv("HOME", "/h", 1);
  CHECK(DockerConfig::default_path() == "/d/config.json");
  ::unsetenv("DOCKER_CONFIG");
  CHECK(DockerConfig::default_path() == "/h/.docker/config.json");
  ::unsetenv("HOME");
  CHECK_FALSE(DockerConfig::default_path());
}

}  // namespace msb::oci
