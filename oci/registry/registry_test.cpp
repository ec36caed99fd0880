// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/registry.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "oci/registry/test_registry.hpp"

namespace msb::oci {
namespace {

using namespace std::chrono_literals;
using testing::Client;
using testing::kManifestPath;
using testing::kManifestType;
using testing::says;
using testing::ServerConnection;
using testing::ServerRequest;
using testing::TestServer;

const std::string kContent = R"({"schemaVersion": 2})";

TestServer::Handler always(int status, std::string body,
                           std::vector<std::pair<std::string, std::string>> headers = {}) {
  return [=](const ServerRequest&, ServerConnection& connection) {
    connection.reply(status, body, headers);
  };
}

}  // namespace

TEST_CASE("a manifest is fetched with its type and digest, whatever connection brings it") {
  TestServer server([](const ServerRequest& request, ServerConnection& connection) {
    CHECK(request.path == kManifestPath);
    CHECK(request.header("accept").find(kManifestType) != std::string::npos);
    CHECK(request.header("user-agent").starts_with("microsandbox/"));
    CHECK(request.header("authorization").empty());
    connection.reply(200, kContent,
                     {{"Content-Type", std::string(kManifestType) + "; charset=utf-8"},
                      {"Docker-Content-Digest", testing::digest_of_text(kContent).to_string()}});
  });
  const Client client;
  const Registry registry = client.open(server);
  for (int i = 0; i < 3; ++i) {
    const auto document = registry.manifest("1");
    REQUIRE(document);
    CHECK(document->content == kContent);
    CHECK(document->media_type == kManifestType);
    CHECK(document->digest == testing::digest_of_text(kContent));
  }
  CHECK(server.connections() == 1);
}

TEST_CASE("a HEAD request tells digest, type and size, and is a single one") {
  const std::string digest = testing::digest_of_text(kContent).to_string();
  TestServer server(always(200, "",
                           {{"Content-Type", std::string(kManifestType)},
                            {"Docker-Content-Digest", digest},
                            {"Content-Length", "20"}}));
  const Client client;
  const auto head = client.open(server).head("1");
  REQUIRE(head);
  REQUIRE(*head);
  CHECK((*head)->digest.to_string() == digest);
  CHECK((*head)->media_type == kManifestType);
  CHECK((*head)->size == 20);
  REQUIRE(server.requests().size() == 1);
  CHECK(server.requests()[0].method == "HEAD");
}

TEST_CASE("a registry that does not say the digest on HEAD, or knows no HEAD, tells nothing") {
  const Client client;
  TestServer silent(always(200, "", {{"Content-Type", std::string(kManifestType)}}));
  CHECK_FALSE(client.open(silent).head("1").value());
  TestServer other(always(200, "",
                          {{"Content-Type", std::string(kManifestType)},
                           {"Docker-Content-Digest", "sha512:" + std::string(128, 'a')}}));
  CHECK_FALSE(client.open(other).head("1").value());
  TestServer refusing(always(405, ""));
  CHECK_FALSE(client.open(refusing).head("1").value());
}

TEST_CASE(
    "a manifest that is not the one that was asked for, or that it is said to be, is refused") {
  const std::string other = testing::digest_of_text("other").to_string();
  const Client client;
  TestServer wrong([](const ServerRequest&, ServerConnection& connection) {
    testing::reply_manifest(connection, kContent);
  });
  CHECK(says(client.open(wrong).manifest(other), other));
  TestServer lying(
      always(200, kContent,
             {{"Content-Type", std::string(kManifestType)}, {"Docker-Content-Digest", other}}));
  CHECK(says(client.open(lying).manifest("1"), "says that it is"));
  CHECK(says(client.open(lying).head(testing::digest_of_text(kContent).to_string()),
             "says that it is"));
  CHECK(wrong.requests().size() == 1);
}

TEST_CASE("what is no image or index is refused by its media type, schema 1 in its own words") {
  const Client client;
  struct Case {
    std::string type;
    std::string_view words;
  };
  for (const Case& refused :
       {Case{"text/html", "'text/html'"}, Case{"", "''"}, Case{"a\x1b[2J", "\\x1b"},
        Case{"application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"}}) {
    TestServer server(always(200, kContent, {{"Content-Type", refused.type}}));
    const auto document = client.open(server).manifest("1");
    CAPTURE(refused.type);
    CHECK(says(document, refused.words));
    CHECK(says(document, "team/app:1"));
  }
}

TEST_CASE("a manifest is read to the longest that it may be, whatever length it claims") {
  std::atomic<std::uint64_t> sent = 0;
  const std::string piece(1U << 20, ' ');
  TestServer endless([&](const ServerRequest&, ServerConnection& connection) {
    connection.send(fmt::format("HTTP/1.1 200 OK\r\nContent-Type: {}\r\n\r\n", kManifestType));
    for (int i = 0; i < 100; ++i) {
      connection.send(piece);
      sent += piece.size();
    }
    connection.close();
  });
  const Client client;
  CHECK(says(client.open(endless).manifest("1"), "longer than 4194304 bytes"));
  CHECK(endless.requests().size() == 1);
}

TEST_CASE("a header without end is refused") {
  const Client client;
  for (const std::string& line :
       {"X: " + std::string(1000, 'x') + "\r\n", std::string("X: y\r\n")}) {
    TestServer server([&](const ServerRequest&, ServerConnection& connection) {
      connection.send("HTTP/1.1 200 OK\r\n");
      for (int i = 0; i < 100000; ++i) {
        connection.send(line);
      }
    });
    CHECK(says(client.open(server).manifest("1"), "endless header"));
  }
}

TEST_CASE("an answer that says what is missing or denied becomes advice") {
  struct Case {
    int status;
    std::string body;
    std::vector<std::string_view> words;
  };
  const std::vector<Case> cases = {
      {404,
       R"({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]})",
       {"team/app:1", "MANIFEST_UNKNOWN: manifest unknown", "check name and tag", "msb login"}},
      {403, "<html>", {"denies access", "team/app:1", "msb login"}},
      {401, "", {"way of authentication"}},
      {418, R"({"errors": [{"message": "\u001b[2J"}]})", {"status 418", "\\x1b"}},
  };
  for (const Case& denied : cases) {
    TestServer server(always(denied.status, denied.body));
    const Client client;
    const auto document = client.open(server).manifest("1");
    CAPTURE(denied.status);
    for (const std::string_view words : denied.words) {
      CHECK(says(document, words));
      CHECK(says(document, server.authority()));
    }
    CHECK(server.requests().size() == 1);
  }
}

TEST_CASE("a busy or broken registry is asked again, and the user told") {
  for (const int status : {408, 429, 500, 502, 503}) {
    std::atomic<int> asked = 0;
    TestServer server([&](const ServerRequest&, ServerConnection& connection) {
      if (++asked < 3) {
        connection.reply(status, "");
      } else {
        testing::reply_manifest(connection, kContent);
      }
    });
    const Client client;
    CAPTURE(status);
    CHECK(client.open(server).manifest("1"));
    CHECK(client.notices.size() == 2);
  }
  TestServer broken(always(500, ""));
  const Client client;
  CHECK(says(client.open(broken).manifest("1"), "status 500"));
  CHECK(broken.requests().size() == 6);
}

TEST_CASE("a registry that wants to be left alone is, for as long as is reasonable") {
  const Client client;
  std::atomic<int> asked = 0;
  TestServer patient([&](const ServerRequest&, ServerConnection& connection) {
    if (++asked == 1) {
      connection.reply(429, "", {{"Retry-After", "1"}});
    } else {
      testing::reply_manifest(connection, kContent);
    }
  });
  CHECK(client.open(patient).manifest("1"));
  REQUIRE(client.notices.size() == 1);
  CHECK(client.notices[0].starts_with("retrying in 1 s: "));

  TestServer impatient(
      always(429, R"({"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached it"}]})",
             {{"Retry-After", "3600"}}));
  const auto refused = client.open(impatient).manifest("1");
  CHECK(says(refused, "limits how often"));
  CHECK(says(refused, "You have reached it"));
  CHECK(says(refused, "come back in 60 minutes"));
  CHECK(impatient.requests().size() == 1);
}

TEST_CASE("a tag or digest that is none never gets into a request") {
  TestServer server(always(200, ""));
  const Client client;
  const Registry registry = client.open(server);
  for (const char* name :
       {"", "..", "a/b", "a b", "a?b", "a#b", "a\r\nX: y", "sha256:", "a:b", "a@b", "md5:aa"}) {
    CAPTURE(name);
    CHECK_FALSE(registry.manifest(name));
    CHECK_FALSE(registry.head(name));
  }
  CHECK(server.requests().empty());
}

TEST_CASE("a registry is created from the parts of a reference alone") {
  const RegistryOptions options;
  CHECK(Registry::create("docker.io", "library/python", options));
  for (const auto& [registry, repository] :
       std::vector<std::pair<std::string, std::string>>{{"docker.io", "python"},
                                                        {"index.docker.io", "library/python"},
                                                        {"a/b", "c"},
                                                        {"", "a"},
                                                        {"a.b", ""},
                                                        {"a.b", "c:d"},
                                                        {"a.b", "../c"},
                                                        {"python", "a"}}) {
    CAPTURE(registry);
    CAPTURE(repository);
    CHECK_FALSE(Registry::create(registry, repository, options));
  }
  RegistryOptions missing;
  missing.settings.certificates["a.b"] = "/nonexistent/ca.pem";
  CHECK(says(Registry::create("a.b", "c", missing), "/nonexistent/ca.pem"));
}

TEST_CASE("a registry that is not declared insecure is never spoken to without TLS") {
  TestServer server(always(200, kContent, {{"Content-Type", std::string(kManifestType)}}));
  Client client;
  client.options.insecure = false;
  const auto document = client.open(server).manifest("1");
  CHECK(says(document, "does not speak TLS"));
  CHECK(says(document, "insecure_registries"));
  CHECK(server.requests().empty());
  // The settings can declare it too.
  client.options.settings.insecure_registries.insert(server.authority());
  CHECK(client.open(server).manifest("1"));
}

TEST_CASE("a registry that cannot be reached is named after a few tries") {
  std::string authority;
  {
    const TestServer server(always(200, ""));
    authority = server.authority();
  }
  const Client client;
  const auto registry = Registry::create(authority, "a", client.options);
  REQUIRE(registry);
  CHECK(says(registry->manifest("1"), authority));
  CHECK(client.notices.size() == 2);
}

TEST_CASE("what is under way ends when a stop is requested") {
  // On the heap: g++ 12 takes one on the stack for uninitialized.
  const auto source = std::make_unique<std::stop_source>();
  Client client;
  client.options.stop = source->get_token();
  TestServer server([&](const ServerRequest&, ServerConnection& connection) {
    source->request_stop();
    connection.wait_for_close();
  });
  CHECK(says(client.open(server).manifest("1"), "cancelled"));
}

TEST_CASE("manifests can be fetched by several threads at once") {
  TestServer server([](const ServerRequest&, ServerConnection& connection) {
    testing::reply_manifest(connection, kContent);
  });
  const Client client;
  const Registry registry = client.open(server);
  std::atomic<int> fetched = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        fetched += registry.manifest("1").has_value() ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(fetched == 80);
  CHECK(server.connections() <= 8);
}

}  // namespace msb::oci
