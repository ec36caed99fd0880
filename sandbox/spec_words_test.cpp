// SPDX-License-Identifier: Apache-2.0
#include "sandbox/spec_words.hpp"

#include <doctest/doctest.h>

#include <string>

namespace msb::sandbox {
namespace {

TEST_CASE("sizes are MiB, or numbers with a unit") {
  CHECK(parse_memory("32") == 32U);
  CHECK(parse_memory("512M") == 512U);
  CHECK(parse_memory("512mib") == 512U);
  CHECK(parse_memory("1G") == 1024U);
  CHECK(parse_memory("1T") == 1024U * 1024);
  CHECK(parse_disk("16") == 16U);
  CHECK(parse_disk("10GB") == 10U * 1024);
  CHECK(parse_disk("16T") == 16U * 1024 * 1024);
  for (const char* word : {"", "M", "-1", "+64", " 64", "64 ", "064", "0x40", "1.5G", "64K", "64GG",
                           "1e3", "99999999999999999999", "18446744073709551615T"}) {
    CAPTURE(word);
    const auto size = parse_memory(word);
    REQUIRE_FALSE(size);
    CHECK(size.error().message.find("is no size; write MiB as a number") != std::string::npos);
  }
  CHECK(parse_memory("31").error().message == "\"31\" is not from 32M to 1024G");
  CHECK_FALSE(parse_memory("2T"));
  CHECK_FALSE(parse_disk("15M"));
  CHECK_FALSE(parse_disk("17T"));
}

TEST_CASE("numbers are decimal and within their limits") {
  CHECK(parse_cpus("1") == 1U);
  CHECK(parse_cpus("64") == 64U);
  CHECK(parse_cpus("65").error().message == "\"65\" is no whole number from 1 to 64");
  for (const char* word : {"", "0", "1.0", "010", "two", "-1", "4294967297"}) {
    CAPTURE(word);
    CHECK_FALSE(parse_cpus(word));
    CHECK_FALSE(parse_processes(word));
  }
}

TEST_CASE("durations are seconds, or numbers with a unit") {
  CHECK(parse_duration("30") == 30U);
  CHECK(parse_duration("30s") == 30U);
  CHECK(parse_duration("5m") == 300U);
  CHECK(parse_duration("2h") == 7200U);
  CHECK(parse_duration("365d") == kMaxDuration);
  for (const char* word : {"", "0", "0s", "366d", "1h30m", "1w", "1ms", "-1", "1.5h"}) {
    CAPTURE(word);
    CHECK_FALSE(parse_duration(word));
  }
}

TEST_CASE("a volume is a host's path and a place, or a path that is both") {
  CHECK(parse_volume("./src:/app") == Volume{"./src", "/app", false});
  CHECK(parse_volume("/a:/b/:ro") == Volume{"/a", "/b", true});
  CHECK(parse_volume("/data") == Volume{"/data", "/data", false});
  CHECK(parse_volume("/data/:ro") == Volume{"/data/", "/data", true});
  CHECK(parse_volume("/data:rw") == Volume{"/data", "/data", false});
  for (const char* word :
       {"", "./src", "src", "a:b", "~", "~/x:/x", "~:/x", ":/a", "a:/", "a:/b/../c", "/",
        "a:/b:rox", "a:/b:cache=never", "/a:b", "a\n:/b", "/.."}) {
    CAPTURE(word);
    CHECK_FALSE(parse_volume(word));
  }
  CHECK(parse_volume("./src").error().message ==
        "\"./src\" says no place in the sandbox; write HOST:GUEST[:ro], such as ./src:/work");
}

TEST_CASE("scopes have their words") {
  for (const char* word : {"none", "local", "public", "any"}) {
    CAPTURE(word);
    const auto scope = parse_scope(word);
    REQUIRE(scope);
    CHECK(scope_word(*scope) == word);
  }
  CHECK(parse_scope("group") == Scope::kGroup);
  CHECK(parse_scope("pubic").error().message ==
        "\"pubic\" is none of none, local, public and any; did you mean \"public\"?");
  CHECK_FALSE(parse_scope("no"));
  CHECK_FALSE(parse_scope(""));
}

TEST_CASE("words that are checked are good or refused with what they may be") {
  struct Row {
    Result<void> (*check)(std::string_view);
    std::vector<std::string> good;
    std::vector<std::string> bad;
  };
  const std::string nul("a\0b", 3);
  for (const Row& row : {
           Row{check_image,
               {"python:3.12", "./rootfs", "/a b", "../x:tag", "ghcr.io/a/b"},
               {"", "Python", "a b", "-x", "./a\n", "/\x1b", std::string(5000, 'a')}},
           Row{check_port,
               {"80", "8080:80", "0.0.0.0:1:2/udp"},
               {"", "0", "a", "80:\x1b", "1:2:3"}},
           Row{check_env, {"A=b", "A=", "A=b=c\nd"}, {"", "A", "=b", "A B=c", nul, "A\n=b"}},
           Row{check_path, {".env", "/a"}, {"", "a\n", nul}},
           Row{check_workdir, {"/", "/a b"}, {"", "a", "./a", "/a\n"}},
           Row{check_user,
               {"root", "1000", "a:b", "1:2", "a.b-c_d"},
               {"", ":", "a:", ":a", "a b", "a:b:c"}},
           Row{check_shell,
               {"bash", "/bin/bash", "/bin/zsh-5"},
               {"", "/", "bin/bash", "bash -l", "-c", "a\n"}},
           Row{check_script_name,
               {"start", "a.b-C_1"},
               {"", ".", "..", "a/b", "a b", std::string(65, 'a')}},
           Row{check_text, {"", "a\nb"}, {nul}},
       }) {
    for (const std::string& word : row.good) {
      CAPTURE(word);
      CHECK(row.check(word));
    }
    for (const std::string& word : row.bad) {
      CAPTURE(word);
      const auto checked = row.check(word);
      REQUIRE_FALSE(checked);
      CHECK(checked.error().message.find_first_of("\n\x1b") == std::string::npos);
      CHECK(checked.error().message.size() < 600);
    }
  }
}

}  // namespace
}  // namespace msb::sandbox
