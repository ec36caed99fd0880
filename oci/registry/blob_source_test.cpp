// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/blob_source.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "oci/registry/test_registry.hpp"

namespace msb::oci {
namespace {

using namespace std::chrono_literals;
using testing::Client;
using testing::describe;
using testing::says;
using testing::ServerConnection;
using testing::ServerRequest;
using testing::TestServer;

// Bytes that tell where they are.
std::string make_content(std::size_t size) {
  std::string content;
  content.reserve(size + 16);
  for (std::size_t i = 0; content.size() < size; ++i) {
    content += fmt::format("{:x},", i);
  }
  content.resize(size);
  return content;
}

const std::string kContent = make_content(3'000'000);

Result<std::string> fetch(const Client& client, const TestServer& server,
                          const Descriptor& descriptor = describe(kContent)) {
  return testing::read_all(*client.open(server).blob(descriptor));
}

std::size_t range_start(const ServerRequest& request) {
  const std::string range = request.header("range");
  return range.empty() ? 0 : std::stoul(range.substr(range.find('=') + 1));
}

void send_head(const ServerConnection& connection, std::size_t length, std::string_view more = {},
               std::string_view status = "200 OK") {
  connection.send(fmt::format("HTTP/1.1 {}\r\nContent-Length: {}\r\n{}\r\n", status, length, more));
}

// Answers with what is left from the range's start on, but at most `most` bytes, and closes.
void send_part(const ServerRequest& request, ServerConnection& connection, std::size_t most) {
  const std::size_t start = range_start(request);
  if (start == 0) {
    send_head(connection, kContent.size());
  } else {
    send_head(connection, kContent.size() - start,
              fmt::format("Content-Range: bytes {}-{}/{}\r\n", start, kContent.size() - 1,
                          kContent.size()),
              "206 Partial Content");
  }
  connection.send(std::string_view(kContent).substr(start, most));
  connection.close();
}

}  // namespace

TEST_CASE("a blob arrives whole and in order, in pieces of about a MiB at most") {
  TestServer server([](const ServerRequest& request, ServerConnection& connection) {
    CHECK(request.path == "/v2/team/app/blobs/" + describe(kContent).digest.to_string());
    CHECK(request.header("range").empty());
    connection.reply(200, kContent);
  });
  const Client client;
  const auto source = client.open(server).blob(describe(kContent));
  std::string content;
  while (true) {
    const auto piece = source->next();
    REQUIRE(piece);
    if (piece->empty()) {
      break;
    }
    CHECK(piece->size() <= (1U << 20) + (256U << 10));
    content.append(reinterpret_cast<const char*>(piece->data()), piece->size());
  }
  CHECK((content == kContent));
  CHECK(source->next()->empty());
}

TEST_CASE("a blob without bytes, and one of unknown length, arrive too") {
  const Client client;
  TestServer empty(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(200, ""); });
  CHECK(fetch(client, empty, describe("")) == "");
  TestServer chunked([](const ServerRequest&, ServerConnection& connection) {
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send("3\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n");
  });
  CHECK(fetch(client, chunked, describe("abcde")) == "abcde");
}

TEST_CASE("a transfer that is cut goes on where it ended") {
  TestServer server([](const ServerRequest& request, ServerConnection& connection) {
    send_part(request, connection, 1'000'000);
  });
  const Client client;
  const auto content = fetch(client, server);
  REQUIRE(content);
  CHECK((*content == kContent));
  CHECK(server.requests().size() == 3);
  CHECK(server.requests()[1].header("range") == "bytes=1000000-");
  CHECK(client.notices.size() == 2);
}

TEST_CASE("a server that ignores ranges sends what is there already for nothing") {
  std::atomic<int> asked = 0;
  TestServer server([&](const ServerRequest&, ServerConnection& connection) {
    send_head(connection, kContent.size());
    connection.send(
        std::string_view(kContent).substr(0, ++asked == 1 ? 1'000'000 : kContent.size()));
    connection.close();
  });
  const Client client;
  const auto content = fetch(client, server);
  REQUIRE(content);
  CHECK((*content == kContent));
  CHECK(asked == 2);
}

TEST_CASE("another range than the one that was asked for is refused") {
  for (const char* range :
       {"Content-Range: bytes 5-2999999/3000000\r\n", "", "Content-Range: x\r\n"}) {
    TestServer server([&](const ServerRequest& request, ServerConnection& connection) {
      if (range_start(request) == 0) {
        send_part(request, connection, 1'000'000);
        return;
      }
      send_head(connection, kContent.size() - range_start(request), range, "206 Partial Content");
      connection.close();
    });
    const Client client;
    CAPTURE(range);
    CHECK(says(fetch(client, server), "where bytes from 1000000 on were asked for"));
  }
}

TEST_CASE("a transfer that makes no headway is given up") {
  TestServer server([](const ServerRequest& request, ServerConnection& connection) {
    // A byte at a time is no headway.
    send_part(request, connection, 1);
  });
  const Client client;
  const auto content = fetch(client, server);
  CHECK(says(content, "127.0.0.1"));
  CHECK(says(content, describe(kContent).digest.to_string()));
  CHECK(server.requests().size() == 6);
}

TEST_CASE("a blob that is longer than its descriptor says is refused at once") {
  const Client client;
  Descriptor descriptor = describe("abcd");
  descriptor.size = 3;
  TestServer announced(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(200, "abcd"); });
  CHECK(says(fetch(client, announced, descriptor), "more than its 3 bytes"));
  TestServer chunked([](const ServerRequest&, ServerConnection& connection) {
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    connection.send("1\r\nd\r\n");
    connection.wait_for_close();
  });
  CHECK(says(fetch(client, chunked, descriptor), "more than its 3 bytes"));
  TestServer unannounced([](const ServerRequest&, ServerConnection& connection) {
    connection.send("HTTP/1.1 200 OK\r\n\r\n" + std::string(100'000, 'x'));
    connection.close();
  });
  CHECK(says(fetch(client, unannounced, descriptor), "more than its 3 bytes"));
  CHECK(announced.requests().size() + chunked.requests().size() + unannounced.requests().size() ==
        3);
}

TEST_CASE("a blob that is shorter than its descriptor says is refused in the end") {
  const Client client;
  Descriptor descriptor = describe("abcd");
  descriptor.size = 5;
  TestServer ranges([](const ServerRequest& request, ServerConnection& connection) {
    if (range_start(request) == 4) {
      connection.reply(416, "", {{"Content-Range", "bytes */4"}});
    } else {
      connection.reply(200, "abcd");
    }
  });
  CHECK(says(fetch(client, ranges, descriptor), "only 4 of its 5 bytes"));
  TestServer ignoring(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(200, "abcd"); });
  CHECK(says(fetch(client, ignoring, descriptor), "ends after 4 of 5 bytes"));
}

TEST_CASE("a transfer that stalls is cut, and goes on in another") {
  Client client;
  client.options.stall_timeout = 100ms;
  TestServer server([](const ServerRequest& request, ServerConnection& connection) {
    if (range_start(request) == 0) {
      send_head(connection, kContent.size());
      connection.send(std::string_view(kContent).substr(0, 500'000));
      connection.wait_for_close();
    } else {
      send_part(request, connection, kContent.size());
    }
  });
  const auto content = fetch(client, server);
  REQUIRE(content);
  CHECK((*content == kContent));
  REQUIRE_FALSE(client.notices.empty());
  CHECK(client.notices[0].find("0.1 s") != std::string::npos);
}

TEST_CASE("a server that does not even begin to answer is given up after its tries") {
  Client client;
  client.options.stall_timeout = 30ms;
  TestServer server(
      [](const ServerRequest&, ServerConnection& connection) { connection.wait_for_close(); });
  CHECK(says(fetch(client, server), "sent nothing"));
  CHECK(client.notices.size() == 5);
}

TEST_CASE("errors of the server while a blob goes on are retried, a missing blob is not") {
  std::atomic<int> asked = 0;
  const Client client;
  TestServer server([&](const ServerRequest& request, ServerConnection& connection) {
    if (++asked % 2 == 0) {
      connection.reply(503, "");
    } else {
      send_part(request, connection, 1'000'000);
    }
  });
  const auto content = fetch(client, server);
  REQUIRE(content);
  CHECK((*content == kContent));

  TestServer missing([](const ServerRequest&, ServerConnection& connection) {
    connection.reply(404, R"({"errors": [{"code": "BLOB_UNKNOWN"}]})");
  });
  CHECK(says(fetch(client, missing), "BLOB_UNKNOWN"));
  CHECK(missing.requests().size() == 1);
}

TEST_CASE("a reader that takes its time holds the sender up, and is no stall") {
  // More than what fits into the client's buffer and the connection's.
  const std::string content(32U << 20, 'x');
  std::atomic<bool> sent = false;
  TestServer server([&](const ServerRequest&, ServerConnection& connection) {
    connection.reply(200, content);
    sent = true;
  });
  Client client;
  client.options.stall_timeout = 5s;
  const auto source = client.open(server).blob(describe(content));
  auto piece = source->next();
  REQUIRE(piece);
  CHECK_FALSE(sent);
  std::string received(reinterpret_cast<const char*>(piece->data()), piece->size());
  const auto rest = testing::read_all(*source);
  REQUIRE(rest);
  CHECK((received + *rest == content));
}

TEST_CASE("blobs are fetched by several threads at once, and may outlive their registry") {
  TestServer server(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(200, kContent); });
  const Client client;
  std::atomic<int> whole = 0;
  std::vector<std::thread> threads;
  {
    const Registry registry = client.open(server);
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&whole, source = registry.blob(describe(kContent))] {
        const auto content = testing::read_all(*source);
        whole += content && *content == kContent ? 1 : 0;
      });
    }
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(whole == 4);
}

TEST_CASE("a source that is dropped in the middle leaves the registry usable") {
  TestServer server(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(200, kContent); });
  const Client client;
  const Registry registry = client.open(server);
  REQUIRE(registry.blob(describe(kContent))->next());
  CHECK(testing::read_all(*registry.blob(describe(kContent))));
}

TEST_CASE("a small document is verified against its digest and size") {
  const Client client;
  TestServer server(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(200, "{}"); });
  const Registry registry = client.open(server);
  CHECK(registry.document(describe("{}")) == "{}");
  CHECK(says(registry.document(describe("[]")), "does not match its digest"));
  Descriptor large = describe("{}");
  large.size = kMaxDocumentSize + 1;
  CHECK(says(registry.document(large), "larger than"));
  CHECK(server.requests().size() == 2);
}

}  // namespace msb::oci
