// SPDX-License-Identifier: Apache-2.0
#include "launcher/words.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cstdint>

#include "launcher/detach_keys.hpp"
#include "launcher/environment.hpp"

namespace msb::launcher {
namespace {

TEST_CASE("limits are read as container engines write them") {
  const auto both = parse_limit("nofile=1024:4096");
  REQUIRE(both);
  CHECK(both->resource == RLIMIT_NOFILE);
  CHECK(both->soft == 1024);
  CHECK(both->hard == 4096);
  const auto one = parse_limit("core=0");
  REQUIRE(one);
  CHECK(one->soft == 0);
  CHECK(one->hard == 0);
  CHECK(parse_limit("stack=8192:unlimited")->hard == UINT64_MAX);
  CHECK(parse_limit("cpu=-1")->soft == UINT64_MAX);
  for (const char* word : {"", "nofile", "nofile=", "nofile=x", "nofile=2:1", "nofile=1:",
                           "files=1", "nofile=1:2:3", "nofile=-2", "nofile=18446744073709551616"}) {
    CAPTURE(word);
    CHECK_FALSE(parse_limit(word));
  }
}

TEST_CASE("a umask is octal") {
  CHECK(parse_umask("027") == 027U);
  CHECK(parse_umask("777") == 0777U);
  for (const char* word : {"", "8", "1000", "-1", "0x1"}) {
    CAPTURE(word);
    CHECK_FALSE(parse_umask(word));
  }
}

TEST_CASE("signals have names and numbers") {
  CHECK(parse_signal("TERM") == 15U);
  CHECK(parse_signal("SIGKILL") == 9U);
  CHECK(parse_signal("sigusr1") == 10U);
  CHECK(parse_signal("64") == 64U);
  CHECK(parse_signal("RTMIN") == 34U);
  CHECK(parse_signal("SIGRTMIN+30") == 64U);
  for (const char* word :
       {"", "0", "65", "SIG", "NOTHING", "RTMIN+31", "RTMIN-1", "-9", "+9", "15 ", " TERM",
        "USR\x11", "SIGSIGTERM", "SIG15", "RTMIN+", "TERM,INT"}) {
    CAPTURE(word);
    CHECK_FALSE(parse_signal(word));
  }
}

TEST_CASE("process ids and timeouts are whole numbers that exist") {
  CHECK(parse_process_id("4294967295") == 4294967295U);
  CHECK_FALSE(parse_process_id("0"));
  CHECK_FALSE(parse_process_id("1x"));
  CHECK_FALSE(parse_process_id("4294967296"));
  CHECK(parse_timeout("5") == 5000U);
  CHECK(parse_timeout("4294967") == 4294967000U);
  CHECK_FALSE(parse_timeout("4294968"));
  CHECK_FALSE(parse_timeout("0"));
  CHECK_FALSE(parse_timeout("1.5"));
}

TEST_CASE("a stop timeout is whole seconds that SHUTDOWN can say") {
  CHECK(parse_stop_timeout("0") == 0U);
  CHECK(parse_stop_timeout("10") == 10'000U);
  CHECK(parse_stop_timeout("600") == 600'000U);
  for (const char* word :
       {"", "601", "-1", "+1", "1.5", "1s", " 1", "0x1", "4294967297", "99999999999999999999"}) {
    CAPTURE(word);
    CHECK_FALSE(parse_stop_timeout(word));
  }
}

std::vector<std::byte> keys(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

TEST_CASE("a host name is what fits into the boot file's line and the kernel") {
  CHECK(check_hostname("shop.web-1"));
  CHECK(check_hostname(std::string(64, 'h')));
  for (const std::string& name :
       {std::string(), std::string(65, 'h'), std::string("a b"), std::string("a/b"),
        std::string("a\nlayer x"), std::string("a\0b", 3)}) {
    CAPTURE(name);
    CHECK_FALSE(check_hostname(name));
  }
}

TEST_CASE("Ctrl-P Ctrl-Q detaches, also in two pieces, and anything else passes") {
  DetachKeys whole;
  CHECK(whole.pass(keys("ab\x10\x11zz")) == keys("ab"));
  CHECK(whole.detached());
  DetachKeys cut;
  CHECK(cut.pass(keys("a\x10")) == keys("a"));
  CHECK_FALSE(cut.detached());
  CHECK(cut.pass(keys("\x11")).empty());
  CHECK(cut.detached());
  DetachKeys other;
  CHECK(other.pass(keys("\x10")).empty());
  CHECK(other.pass(keys("x\x11")) == keys("\x10x\x11"));
  CHECK(other.pass(keys("\x10\x10")) == keys("\x10"));
  CHECK(other.pass(keys("a")) == keys("\x10"
                                      "a"));
  CHECK_FALSE(other.detached());
}

TEST_CASE("a terminal's type is the caller's, unless the command has its own") {
  std::vector<std::string> environment = {"TERM=dumb"};
  add_terminal_type(environment);
  CHECK(environment == std::vector<std::string>{"TERM=dumb"});
  ::setenv("TERM", "vt100", 1);
  environment.clear();
  add_terminal_type(environment);
  CHECK(environment == std::vector<std::string>{"TERM=vt100"});
}

}  // namespace
}  // namespace msb::launcher
