// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/authorization.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "oci/base64.hpp"
#include "oci/registry/test_registry.hpp"

namespace msb::oci {
namespace {

using testing::Client;
using testing::says;
using testing::ServerConnection;
using testing::ServerRequest;
using testing::TestServer;

const std::string kContent = R"({"schemaVersion": 2})";
const std::string kBasic = "Basic " + encode_base64("alice:s3:cret");

// A registry with a token server of its own, as registry:2 and others have it.
struct TokenRegistry {
  std::atomic<int> tokens = 0;  // that were given out
  std::atomic<int> valid = 1;   // the first that is still accepted
  std::atomic<bool> needs_login = false;
  std::string answer = R"({{"token": "t{}"}})";
  std::string challenge = R"(Bearer realm="{}",service="the registry",scope="repository:x:push")";

  TestServer token_server{[this](const ServerRequest& request, ServerConnection& connection) {
    const bool refresh = request.body.find("refresh_token=r%2Bt") != std::string::npos;
    if (needs_login && request.header("authorization") != kBasic && !refresh) {
      connection.reply(401, R"({"details": "incorrect username or password"})");
      return;
    }
    connection.reply(200, fmt::format(fmt::runtime(answer), ++tokens));
  }};
  TestServer registry{[this](const ServerRequest& request, ServerConnection& connection) {
    const std::string authorization = request.header("authorization");
    const std::string prefix = "Bearer t";
    if (!authorization.starts_with(prefix) ||
        std::stoi(authorization.substr(prefix.size())) < valid) {
      connection.reply(401, "",
                       {{"WWW-Authenticate",
                         fmt::format(fmt::runtime(challenge), token_server.url("/token?a=b"))}});
      return;
    }
    testing::reply_manifest(connection, kContent);
  }};
};

TestServer::Handler basic_registry(const std::string& authorization) {
  return [=](const ServerRequest& request, ServerConnection& connection) {
    if (request.header("authorization") != authorization) {
      connection.reply(401, "", {{"WWW-Authenticate", "Basic realm=\"r\""}});
    } else {
      testing::reply_manifest(connection, kContent);
    }
  };
}

}  // namespace

TEST_CASE("a token is fetched anonymously for this repository, and used again") {
  TokenRegistry server;
  const Client client;
  const Registry registry = client.open(server.registry);
  CHECK(registry.manifest("1"));
  CHECK(registry.manifest("1"));
  const auto asked = server.token_server.requests();
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].method == "GET");
  CHECK(asked[0].query == "a=b&service=the%20registry&scope=repository%3Ateam%2Fapp%3Apull");
  CHECK(asked[0].header("authorization").empty());
  CHECK(server.registry.requests().size() == 3);
}

TEST_CASE("what the registry names beside, to pull, is asked for too") {
  TokenRegistry server;
  server.challenge =
      R"(Bearer realm="{}",scope="repository:proxied/app:pull repository:a:pull,push registry:x:*")";
  const Client client;
  CHECK(client.open(server.registry).manifest("1"));
  CHECK(server.token_server.requests()[0].query ==
        "a=b&scope=repository%3Ateam%2Fapp%3Apull&scope=repository%3Aproxied%2Fapp%3Apull");
}

TEST_CASE("credentials go to the token server, and only there") {
  TokenRegistry server;
  server.needs_login = true;
  Client client;
  client.as("alice", "s3:cret");
  CHECK(client.open(server.registry).manifest("1"));
  CHECK(server.token_server.requests()[0].header("authorization") == kBasic);
  for (const ServerRequest& request : server.registry.requests()) {
    CHECK(request.header("authorization") != kBasic);
  }
}

TEST_CASE("an identity token is exchanged for an access token") {
  TokenRegistry server;
  server.needs_login = true;
  server.answer = R"({{"access_token": "t{}", "expires_in": 300}})";
  Client client;
  client.options.credentials = [](const std::string&) {
    return std::optional(Credentials{.username = {}, .password = {}, .identity_token = "r+t"});
  };
  CHECK(client.open(server.registry).manifest("1"));
  const auto asked = server.token_server.requests();
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].method == "POST");
  CHECK(asked[0].header("content-type") == "application/x-www-form-urlencoded");
  CHECK(asked[0].body ==
        "service=the%20registry&grant_type=refresh_token&client_id=microsandbox&"
        "scope=repository%3Ateam%2Fapp%3Apull&refresh_token=r%2Bt");
}

TEST_CASE("a token that is no longer accepted is replaced, also amid a blob") {
  TokenRegistry server;
  const Client client;
  const Registry registry = client.open(server.registry);
  CHECK(registry.manifest("1"));
  server.valid = 2;
  CHECK(registry.manifest("1"));
  CHECK(server.tokens == 2);

  const std::string content(1'000'000, 'x');
  std::atomic<int> asked = 0;
  TestServer token_server([](const ServerRequest&, ServerConnection& connection) {
    static std::atomic<int> count = 0;
    connection.reply(200, fmt::format(R"({{"token": "{}"}})", ++count));
  });
  TestServer cutting([&](const ServerRequest& request, ServerConnection& connection) {
    const std::string authorization = request.header("authorization");
    // The first token is good for one request, and half of the blob.
    if (authorization.empty() || (authorization == "Bearer 1" && asked > 0)) {
      connection.reply(
          401, "",
          {{"WWW-Authenticate", fmt::format("Bearer realm=\"{}\"", token_server.url("/"))}});
    } else if (++asked == 1) {
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" +
                      content.substr(0, 500'000));
      connection.close();
    } else {
      connection.reply(206, content.substr(500'000),
                       {{"Content-Range", "bytes 500000-999999/1000000"}});
    }
  });
  const auto received = testing::read_all(*client.open(cutting).blob(testing::describe(content)));
  REQUIRE(received);
  CHECK((*received == content));
  CHECK(token_server.requests().size() == 2);
}

TEST_CASE("threads whose token expires together fetch one new token") {
  TokenRegistry server;
  const Client client;
  const Registry registry = client.open(server.registry);
  CHECK(registry.manifest("1"));
  server.valid = 2;
  std::vector<std::thread> threads;
  threads.reserve(8);
  std::atomic<int> fetched = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { fetched += registry.manifest("1").has_value() ? 1 : 0; });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(fetched == 8);
  CHECK(server.tokens == 2);
}

TEST_CASE("who is not let in despite a token is told so, without an endless exchange") {
  TokenRegistry server;
  server.valid = 1000;
  const Client client;
  const auto document = client.open(server.registry).manifest("1");
  CHECK(says(document, "denies access"));
  CHECK(says(document, "msb login"));
  CHECK(server.tokens == 1);
}

TEST_CASE("refused credentials are told from missing ones, and never shown") {
  TokenRegistry server;
  server.needs_login = true;
  const Client anonymous;
  const auto missing = anonymous.open(server.registry).manifest("1");
  CHECK(says(missing, "without a login"));
  CHECK(says(missing, "log in with `msb login " + server.registry.authority() + "`"));
  Client wrong;
  wrong.as("alice", "geheim");
  const auto refused = wrong.open(server.registry).manifest("1");
  CHECK(says(refused, "refuses the credentials"));
  CHECK(says(refused, "incorrect username or password"));
  CHECK(says(refused, "log in again"));
  CHECK_FALSE(says(refused, "geheim"));
  CHECK(server.registry.requests().size() == 2);
}

TEST_CASE("a registry with passwords gets them when it asks") {
  TestServer server(basic_registry(kBasic));
  Client client;
  client.as("alice", "s3:cret");
  const Registry registry = client.open(server);
  CHECK(registry.manifest("1"));
  CHECK(registry.manifest("1"));
  CHECK(server.requests().size() == 3);

  const Client anonymous;
  CHECK(says(anonymous.open(server).manifest("1"), "without a login"));
  Client wrong;
  wrong.as("alice", "geheim");
  const auto refused = wrong.open(server).manifest("1");
  CHECK(says(refused, "refuses the user 'alice' or the password"));
  CHECK_FALSE(says(refused, "geheim"));
}

TEST_CASE("credentials that cannot be read do not hinder a public image, and explain a denial") {
  TokenRegistry open;
  Client client;
  int lookups = 0;
  client.options.credentials = [&](const std::string&) -> Result<std::optional<Credentials>> {
    ++lookups;
    return fail("the helper is broken");
  };
  const Registry registry = client.open(open.registry);
  CHECK(registry.manifest("1"));
  open.valid = 2;
  CHECK(registry.manifest("1"));
  CHECK(lookups == 1);
  TestServer closed(basic_registry(kBasic));
  CHECK(says(client.open(closed).manifest("1"), "the helper is broken"));
}

TEST_CASE("a token server that does not do its work is blamed") {
  struct Case {
    std::string answer;
    std::string_view words;
  };
  for (const Case& broken :
       {Case{"{{}}", "no token"}, Case{"[]", "not a JSON object"}, Case{"<html>", "not valid JSON"},
        Case{R"({{"token": ""}})", "no token"}, Case{R"({{"token": 1}})", "no token"},
        Case{R"({{"token": "a\r\nX: y"}})", "characters"}}) {
    TokenRegistry server;
    server.answer = broken.answer;
    const Client client;
    CAPTURE(broken.answer);
    const auto document = client.open(server.registry).manifest("1");
    CHECK(says(document, broken.words));
    CHECK(says(document, "token server"));
  }
  for (const char* challenge :
       {"Bearer", "Bearer realm=\"/token\"", "Bearer realm=\"ftp://a/\"", "Digest realm=\"{}\""}) {
    TokenRegistry server;
    server.challenge = challenge;
    const Client client;
    CAPTURE(challenge);
    CHECK_FALSE(client.open(server.registry).manifest("1"));
    CHECK(server.tokens == 0);
  }
}

TEST_CASE("a token server that is not reached through HTTPS gets nothing, unless it may") {
  TestServer server([](const ServerRequest&, ServerConnection& connection) {
    connection.reply(200, R"({"token": "t"})");
  });
  HttpClient http(HttpOptions{
      .stall_timeout = testing::kPatience, .insecure = true, .certificates = {}, .stop = {}});
  for (const bool insecure : {false, true}) {
    Authorization authorization(
        http, {.registry = "a.example", .scope = {}, .insecure = insecure, .credentials = {}});
    const auto met = authorization.meet(
        parse_challenges(fmt::format("Bearer realm=\"{}\"", server.url("/"))), "");
    CHECK(met.has_value() == insecure);
    CHECK(authorization.header() == (insecure ? "Bearer t" : ""));
    CHECK(server.requests().size() == (insecure ? 1 : 0));
  }
}

TEST_CASE("what a redirect leads to sees no credentials, and its questions stay unanswered") {
  const std::string content = "content";
  std::atomic<bool> asks = false;
  TestServer storage([&](const ServerRequest&, ServerConnection& connection) {
    if (asks) {
      connection.reply(401, "", {{"WWW-Authenticate", "Basic realm=\"r\""}});
    } else {
      connection.reply(200, content);
    }
  });
  TestServer server([&](const ServerRequest& request, ServerConnection& connection) {
    if (request.header("authorization") != kBasic) {
      connection.reply(401, "", {{"WWW-Authenticate", "Basic realm=\"r\""}});
    } else if (request.path == "/here") {
      connection.reply(307, "", {{"Location", storage.url("/blob?signed")}});
    } else {
      connection.reply(307, "", {{"Location", "/here"}});
    }
  });
  Client client;
  client.as("alice", "s3:cret");
  const Registry registry = client.open(server);
  CHECK(testing::read_all(*registry.blob(testing::describe(content))) == content);
  REQUIRE(storage.requests().size() == 1);
  CHECK(storage.requests()[0].header("authorization").empty());
  CHECK(storage.requests()[0].query == "signed");
  // On the same server they are sent along.
  CHECK(server.requests().back().header("authorization") == kBasic);

  asks = true;
  CHECK_FALSE(testing::read_all(*registry.blob(testing::describe(content))));
  for (const ServerRequest& request : storage.requests()) {
    CHECK(request.header("authorization").empty());
  }
}

TEST_CASE("redirects end, and lead to http and https alone") {
  const Client client;
  TestServer circling([](const ServerRequest& request, ServerConnection& connection) {
    connection.reply(302, "", {{"Location", request.path}});
  });
  CHECK(says(client.open(circling).manifest("1"), "redirects more than 10 times"));
  CHECK(circling.requests().size() == 11);
  for (const char* location : {"file:///etc/passwd", "ftp://127.0.0.1/", "http://a:b@127.0.0.1/"}) {
    TestServer astray([&](const ServerRequest&, ServerConnection& connection) {
      connection.reply(302, "", {{"Location", location}});
    });
    CAPTURE(location);
    CHECK(says(client.open(astray).manifest("1"), "out of reach"));
  }
  TestServer nowhere(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(302, ""); });
  CHECK(says(client.open(nowhere).manifest("1"), "to nowhere"));
}

TEST_CASE("a login is checked with the registry itself, by password or by token") {
  Client right;
  right.as("alice", "s3:cret");
  Client wrong;
  wrong.as("alice", "geheim");

  TestServer basic(basic_registry(kBasic));
  CHECK(check_login(basic.authority(), right.options) == true);
  CHECK(says(check_login(basic.authority(), wrong.options), "refuses the user 'alice'"));
  CHECK(basic.requests()[0].path == "/v2/");

  TokenRegistry bearer;
  bearer.needs_login = true;
  CHECK(check_login(bearer.registry.authority(), right.options) == true);
  CHECK(says(check_login(bearer.registry.authority(), wrong.options), "refuses the credentials"));
  CHECK(bearer.token_server.requests()[0].query == "a=b&service=the%20registry&account=alice");

  TestServer open(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(200, "{}"); });
  CHECK(check_login(open.authority(), right.options) == false);
  TestServer other(
      [](const ServerRequest&, ServerConnection& connection) { connection.reply(404, ""); });
  CHECK(says(check_login(other.authority(), right.options), "is not a registry"));
  CHECK_FALSE(check_login("https://a.example/", right.options));
}

}  // namespace msb::oci
