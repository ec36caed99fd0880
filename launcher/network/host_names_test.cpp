// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/host_names.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace msb::launcher {
namespace {

Result<HostNames> parse(const std::vector<std::string>& words) {
  return parse_host_names(words);
}

TEST_CASE("each name has one address for all of its ports") {
  const auto hosts = parse({"db=/run/db.sock:5432", "Cache.local=a=b:c:6379", "DB=/other:80"});
  REQUIRE(hosts);
  REQUIRE(hosts->names.size() == 2);
  CHECK(hosts->names[0].name == "db");
  CHECK(hosts->names[0].address == "127.77.1.1");
  CHECK(hosts->names[1].name == "cache.local");
  CHECK(hosts->names[1].address == "127.77.1.2");
  REQUIRE(hosts->ports.size() == 3);
  CHECK(hosts->ports[0].address == "127.77.1.1");
  CHECK(hosts->ports[0].port == 5432);
  CHECK(hosts->ports[0].socket == "/run/db.sock");
  CHECK(hosts->ports[1].address == "127.77.1.2");
  CHECK(hosts->ports[1].socket == "a=b:c");
  CHECK(hosts->ports[2].address == "127.77.1.1");
  CHECK(hosts->ports[2].port == 80);
  CHECK(hosts->ports[2].socket == "/other");
}

TEST_CASE("words that name no port of a sandbox are refused") {
  const std::string long_label(64, 'a');
  const std::string long_path(200, 'p');
  for (const std::string& word : {std::string(),
                                  std::string("db"),
                                  std::string("db=/s"),
                                  std::string("db:80=/s"),
                                  std::string("=/s:80"),
                                  std::string("db=:80"),
                                  std::string("db=/s:"),
                                  std::string("db=/s:0"),
                                  std::string("db=/s:65536"),
                                  std::string("db=/s:+80"),
                                  std::string("db=/s:http"),
                                  std::string("-db=/s:80"),
                                  std::string("db-=/s:80"),
                                  std::string("d b=/s:80"),
                                  std::string("d\nb=/s:80"),
                                  std::string("db.=/s:80"),
                                  std::string("a..b=/s:80"),
                                  std::string("d_b=/s:80"),
                                  std::string("10.0.0.1=/s:80"),
                                  std::string("localhost=/s:80"),
                                  std::string("LocalHost=/s:80"),
                                  long_label + "=/s:80",
                                  "db=" + long_path + ":80"}) {
    CAPTURE(word);
    CHECK_FALSE(parse({word}));
  }
}

TEST_CASE("a port of a name is said once, and no more than 64 are") {
  CHECK_FALSE(parse({"db=/a:80", "db=/b:80"}));
  CHECK(parse({"db=/a:80", "web=/a:80", "db=/a:81"}));
  std::vector<std::string> many;
  for (int i = 0; i < 64; ++i) {
    many.push_back(fmt::format("h{}=/s:80", i));
  }
  const auto hosts = parse(many);
  REQUIRE(hosts);
  CHECK(hosts->names.back().address == "127.77.1.64");
  many.emplace_back("one-more=/s:80");
  CHECK_FALSE(parse(many));
}

}  // namespace
}  // namespace msb::launcher
