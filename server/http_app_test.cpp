// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cstddef>
#include <string>

#include "server/http_connection.hpp"

namespace msb::server {

namespace {

std::string for_app(const std::string& fields) {
  RequestParser parser;
  HeadReader reader(parser, std::size_t{1} << 15);
  const auto read = reader.read("GET http://a/x HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n");
  REQUIRE(read);
  return head_for_app(parser);
}

TEST_CASE("an app gets no field that was for the connection to the server, and no key for it") {
  const std::string plain =
      "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nVia: 1.1 microsandbox\r\n\r\n";
  CHECK(for_app("") == plain);
  CHECK(for_app("Proxy-Authorization: key\r\nProxy-Connection: close\r\nKeep-Alive: 5\r\n") ==
        plain);
  CHECK(for_app("Connection: x-one\r\nX-One: 1\r\nX-Two: 2\r\nConnection: X-Two, keep-alive\r\n") ==
        plain);
  // What the message is cannot be named away.
  CHECK(for_app("Connection: host, content-length\r\nContent-Length: 5\r\n")
            .contains("Host: a\r\nContent-Length: 5\r\n"));
  CHECK(for_app("Connection: Upgrade\r\nUpgrade: websocket\r\n")
            .contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
}

}  // namespace

}  // namespace msb::server
