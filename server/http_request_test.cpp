// SPDX-License-Identifier: Apache-2.0
#include "server/http_request.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

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
  for (const char* field :
       {"", ":80", "localhost:x", "localhost:123456", "[::1", "[zz]", "a b", "user@localhost",
        "localhost/x", "a,b", "::1", "localhost:80:80", ".", "[::1%lo]"}) {
    CAPTURE(field);
    CHECK_FALSE(parse_host(field));
  }
  // An address is looked at as a C string.
  CHECK_FALSE(parse_host(std::string_view("127.0.0.1\0.evil", 15)));
  CHECK_FALSE(parse_host(std::string_view("[::1\0x]", 8)));
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

// What comes of a request that comes in pieces of `size`: its fields and its body, or the status
// that refuses it, and how far it goes.
struct Request {
  RequestParser parser;
  unsigned refused = 0;
  std::string body;
  std::size_t end = 0;
  bool whole = false;
};

constexpr std::size_t kLimit = 200;

std::unique_ptr<Request> read_request(std::string_view text, std::size_t size) {
  auto request = std::make_unique<Request>();
  HeadReader head(request->parser, kLimit);
  std::size_t come = 0;
  while (request->end == 0) {
    if (come == text.size()) {
      return request;
    }
    come = std::min(text.size(), come + size);
    const auto read = head.read(text.substr(0, come));
    if (!read) {
      request->refused = read.error().status;
      return request;
    }
    request->end = *read;
  }
  BodyReader body(request->parser, kLimit);
  std::array<std::byte, 3> piece;
  while (!body.done()) {
    const auto taken = body.take(text.substr(request->end, come - request->end), piece);
    if (!taken) {
      request->refused = info(taken.error().reason).status;
      return request;
    }
    request->end += taken->bytes;
    request->body.append(reinterpret_cast<const char*>(piece.data()), taken->length);
    if (taken->length == 0 && !body.done()) {
      if (come == text.size()) {
        return request;
      }
      come = std::min(text.size(), come + size);
    }
  }
  request->whole = true;
  return request;
}

const std::string kPost = "POST /x HTTP/1.1\r\nHost: localhost\r\n";
const std::string kChunked = kPost + "Transfer-Encoding: chunked\r\n\r\n";

TEST_CASE("a request is the same in pieces of any size, and ends where the next one begins") {
  struct Row {
    std::string text;
    std::string body;
  };
  for (const Row& row :
       {Row{kPost + "\r\n", ""}, Row{kPost + "Content-Length: 5\r\n\r\nhello", "hello"},
        Row{kChunked + "3\r\nhel\r\n02;x=y\r\nlo\r\n0\r\n\r\n", "hello"},
        Row{kChunked + "0\r\nX: y\r\nHost: z\r\n\r\n", ""}}) {
    for (std::size_t size = 1; size <= row.text.size(); ++size) {
      CAPTURE(row.text);
      CAPTURE(size);
      const auto request = read_request(row.text + "GET", size);
      CHECK(request->whole);
      CHECK(request->body == row.body);
      CHECK(request->end == row.text.size());
      CHECK(view(request->parser.get()[http::field::host]) == "localhost");
      CHECK(request->parser.get().find("X") == request->parser.get().end());
    }
  }
}

TEST_CASE("a head has no byte more than it may have") {
  const std::string first = "GET / HTTP/1.1\r\n";
  const std::string host = "Host: x\r\n";
  const auto field = [](std::size_t size) { return "A: " + std::string(size - 5, 'a') + "\r\n"; };
  std::string many = first;
  while (many.size() <= kLimit) {
    many += "A:\r\n";
  }
  const std::size_t rest = kLimit - first.size() - host.size() - 2;
  for (const std::size_t size : {std::size_t{1}, std::size_t{7}, std::size_t{1000}}) {
    CAPTURE(size);
    CHECK(read_request(first + host + field(rest) + "\r\n", size)->whole);
    CHECK(read_request(first + host + field(rest + 1) + "\r\n", size)->refused == 431);
    CHECK(read_request(first + host + field(rest + 800), size)->refused == 431);
    CHECK(read_request(many, size)->refused == 431);
    CHECK(read_request("GET /" + std::string(kLimit, 'a'), size)->refused == 414);
  }
}

TEST_CASE("what is beside the data of chunks has the same bound, all together") {
  const std::string end = "0\r\n\r\n";
  const auto extension = [](std::size_t size) { return ";" + std::string(size - 1, 'a'); };
  for (const std::size_t size : {std::size_t{1}, std::size_t{7}, std::size_t{1000}}) {
    CAPTURE(size);
    const std::string longest = kChunked + "0000000000000001" + extension(kLimit - 2) + "\r\n";
    CHECK(read_request(longest + "x\r\n" + end, size)->whole);
    const std::string longer = kChunked + "0000000000000001" + extension(kLimit + 1) + "\r\n";
    CHECK(read_request(longer, size)->refused == 413);
    CHECK(read_request(kChunked + std::string(kLimit + 19, '0'), size)->refused == 413);
    std::string chunks = kChunked;
    for (int i = 0; i < 10; ++i) {
      chunks += "1" + extension(50) + "\r\nx\r\n";
    }
    CHECK(read_request(chunks + end, size)->refused == 413);
    std::string fields = kChunked + "0\r\n";
    for (std::size_t i = 0; i < kLimit; ++i) {
      fields += "A:\r\n";
    }
    CHECK(read_request(fields, size)->refused == 413);
    // Small chunks have no bound of their own.
    std::string small = kChunked;
    for (std::size_t i = 0; i < 10 * kLimit; ++i) {
      small += "1\r\nx\r\n";
    }
    CHECK(read_request(small + end, size)->body.size() == 10 * kLimit);
  }
}

TEST_CASE("chunks that are none are refused") {
  for (const char* chunks :
       {"0x5\r\n", "+5\r\n", "-5\r\n", " 5\r\n", "\r\n", ";a\r\n", "g\r\n", "5 \r\n", "5 x\r\n",
        "10000000000000000\r\n", "1\r\nab", "1\r\na\n", "1\n", "1\r\r\n", "1;a\rb\r\n",
        "0\r\nnothing\r\n", "0\r\n: x\r\n", "0\r\nX: y\n"}) {
    CAPTURE(chunks);
    CHECK(read_request(kChunked + chunks, 1)->refused == 400);
    CHECK(read_request(kChunked + chunks, 1000)->refused == 400);
  }
}

TEST_CASE("a target with a scheme names the same host as the Host field") {
  const auto target = [](const std::string& text, const std::string& host) {
    const auto request =
        read_request("GET " + text + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 1000);
    return request->refused > 0 ? fmt::format("{}", request->refused)
                                : std::string(view(request->parser.get().target()));
  };
  CHECK(target("http://LocalHost:80/v1?x=/", "localhost:80") == "/v1?x=/");
  CHECK(target("HTTP://localhost", "localhost") == "/");
  CHECK(target("http://localhost?x", "localhost") == "/?x");
  CHECK(target("http://localhost/", "localhost:80") == "400");
  CHECK(target("http://me@localhost/", "localhost") == "400");
  CHECK(target("/http://localhost/", "localhost") == "/http://localhost/");
}

}  // namespace

}  // namespace msb::server
