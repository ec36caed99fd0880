// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/resolver.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace msb::launcher {
namespace {

std::vector<std::string> texts(const ResolverConfig& config) {
  std::vector<std::string> all;
  for (const SocketAddress& server : config.servers) {
    all.push_back(server.text());
  }
  return all;
}

using Strings = std::vector<std::string>;

TEST_CASE("servers and search domains are those of resolv.conf(5)") {
  const ResolverConfig config = parse_resolvers(
      "# by hand\n"
      "; nameserver 9.9.9.9\n"
      "domain one.example two.example\n"
      "nameserver 192.0.2.1\n"
      "nameserver\t2001:db8::1 # ours\r\n"
      "nameserver none.example\n"
      "nameserver fe80::1%no-such-card\n"
      "nameserver fe80::1%lo\n"
      "nameserver 192.0.2.4\n"
      "options edns0\n"
      "search a.example  b.example . c\x01.example d.example/ *.example caf\xc3\xa9 "
      "_e-1.example\n");
  CHECK(texts(config) == Strings{"192.0.2.1", "2001:db8::1", "fe80::1%lo"});
  CHECK(config.search == Strings{"a.example", "b.example", "_e-1.example"});
  CHECK(parse_resolvers("search a b\ndomain c d").search == Strings{"c"});
  CHECK(parse_resolvers("search " + std::string(300, 'a') + " b").search == Strings{"b"});
  std::string many = "search";
  for (int i = 0; i < 1000; ++i) {
    many += " some.example";
  }
  CHECK(parse_resolvers(many).search.size() == 19);
}

TEST_CASE("without a server it is this host") {
  CHECK(texts(parse_resolvers("")) == Strings{"127.0.0.1"});
  CHECK(texts(parse_resolvers("nameserver\nnameserver x")) == Strings{"127.0.0.1"});
  CHECK(texts(read_resolvers("/none/resolv.conf")) == Strings{"127.0.0.1"});
  CHECK(texts(read_resolvers("/tmp")) == Strings{"127.0.0.1"});
}

TEST_CASE("the file is read again when it has changed") {
  std::string directory = "/tmp/msb-resolver-XXXXXX";
  REQUIRE(::mkdtemp(directory.data()) != nullptr);
  const std::string path = directory + "/resolv.conf";
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(directory + "/" + name) << text;
  };
  Resolvers resolvers(path);
  CHECK(texts(resolvers.now()) == Strings{"127.0.0.1"});
  write("resolv.conf", "nameserver 192.0.2.1\n");
  CHECK(texts(resolvers.now()) == Strings{"192.0.2.1"});
  write("new", "nameserver 192.0.2.2\n");  // of the same size
  std::filesystem::rename(directory + "/new", path);
  CHECK(texts(resolvers.now()) == Strings{"192.0.2.2"});
  CHECK(&resolvers.now() == &resolvers.now());
  std::filesystem::remove(path);
  CHECK(texts(resolvers.now()) == Strings{"127.0.0.1"});
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace msb::launcher
