// SPDX-License-Identifier: Apache-2.0
#include "server/http_server.hpp"

#include <doctest/doctest.h>

namespace msb::server {

namespace {

TEST_CASE("a Host field is a name or an address, with or without a port") {
  struct Row {
    const char* field;
    const char* name;
    bool address;
  };
  for (const Row& row :
       {Row{"localhost", "localhost", false}, Row{"LocalHost:5555", "localhost", false},
        Row{"127.0.0.1:80", "127.0.0.1", true}, Row{"[::1]:5555", "::1", true},
        Row{"[::1]", "::1", true}, Row{"sandbox.example.", "sandbox.example", false}}) {
    CAPTURE(row.field);
    const auto host = parse_host(row.field);
    REQUIRE(host);
    CHECK(host->name == row.name);
    CHECK(host->address == row.address);
  }
  for (const char* field : {"", ":80", "localhost:x", "localhost:123456", "[::1", "[zz]", "a b",
                            "user@localhost", "localhost/x", "a,b", "::1", "localhost:80:80"}) {
    CAPTURE(field);
    CHECK_FALSE(parse_host(field));
  }
}

TEST_CASE("an app is named by its port, its sandbox and its namespace") {
  const auto app = [](const char* field) {
    const auto host = parse_host(field);
    REQUIRE(host);
    return parse_app_host(*host);
  };
  const auto web = app("8000-web.localhost:5555");
  REQUIRE(web);
  CHECK(web->port == 8000);
  CHECK(web->sandbox == "web");
  CHECK(web->space == "default");
  const auto shop = app("80-my-app.shop.localhost");
  REQUIRE(shop);
  CHECK(shop->sandbox == "my-app");
  CHECK(shop->space == "shop");
  CHECK_FALSE(app("localhost"));
  CHECK_FALSE(app("127.0.0.1"));
  CHECK_FALSE(app("example.com"));
  // What is below localhost is never the API's, and what is no app's has a port that none has.
  for (const char* field : {"web.localhost", "8000.localhost", "-1-web.localhost",
                            "99999-web.localhost", "8000web.localhost", "x-8000-web.localhost"}) {
    CAPTURE(field);
    const auto none = app(field);
    REQUIRE(none);
    CHECK(none->port == 0);
  }
}

}  // namespace

}  // namespace msb::server
