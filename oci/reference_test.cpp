// SPDX-License-Identifier: Apache-2.0
#include "oci/reference.hpp"

#include <doctest/doctest.h>

#include <string>

namespace msb::oci {
namespace {

const std::string kHex(64, 'a');
const std::string kDigest = "sha256:" + kHex;

}  // namespace

TEST_CASE("a reference is normalised as Docker does, and shown in Docker's short form") {
  struct Case {
    std::string text;
    std::string full;
    std::string familiar;
  };
  const Case cases[] = {
      {"python", "docker.io/library/python:latest", "python:latest"},
      {"python:3.12-slim", "docker.io/library/python:3.12-slim", "python:3.12-slim"},
      {"user/app", "docker.io/user/app:latest", "user/app:latest"},
      {"library/python", "docker.io/library/python:latest", "python:latest"},
      {"docker.io/python:3", "docker.io/library/python:3", "python:3"},
      {"docker.io/user/app:1", "docker.io/user/app:1", "user/app:1"},
      {"index.docker.io/python", "docker.io/library/python:latest", "python:latest"},
      {"index.docker.io/user/app", "docker.io/user/app:latest", "user/app:latest"},
      {"docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"},
      {"ghcr.io/a/b", "ghcr.io/a/b:latest", "ghcr.io/a/b:latest"},
      {"ghcr.io/a", "ghcr.io/a:latest", "ghcr.io/a:latest"},
      {"ghcr.io/a/b@" + kDigest, "ghcr.io/a/b@" + kDigest, "ghcr.io/a/b@" + kDigest},
      {"python:3.12@" + kDigest, "docker.io/library/python:3.12@" + kDigest,
       "python:3.12@" + kDigest},
      {"localhost/x", "localhost/x:latest", "localhost/x:latest"},
      {"localhost:5000/x:Y_.-1", "localhost:5000/x:Y_.-1", "localhost:5000/x:Y_.-1"},
      // Without a slash there is no registry.
      {"localhost", "docker.io/library/localhost:latest", "localhost:latest"},
      {"localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"},
      {"example.com", "docker.io/library/example.com:latest", "example.com:latest"},
      {"registry/x", "docker.io/registry/x:latest", "registry/x:latest"},
      {"Registry/x", "Registry/x:latest", "Registry/x:latest"},
      {"registry:80/x", "registry:80/x:latest", "registry:80/x:latest"},
      {"127.0.0.1/x", "127.0.0.1/x:latest", "127.0.0.1/x:latest"},
      {"[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"},
      {"[2001:db8::1]/x", "[2001:db8::1]/x:latest", "[2001:db8::1]/x:latest"},
      {"a.b__c_d---e", "docker.io/library/a.b__c_d---e:latest", "a.b__c_d---e:latest"},
      // The short form of these would be read as something else.
      {"docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"},
      {"docker.io/a.b/x", "docker.io/a.b/x:latest", "docker.io/a.b/x:latest"},
      {kHex + ":1", "docker.io/library/" + kHex + ":1", "docker.io/library/" + kHex + ":1"},
  };
  for (const Case& expected : cases) {
    CAPTURE(expected.text);
    const auto reference = parse_reference(expected.text);
    REQUIRE(reference);
    CHECK(reference->to_string() == expected.full);
    CHECK(reference->familiar() == expected.familiar);
    CHECK(parse_reference(reference->to_string()) == *reference);
    CHECK(parse_reference(reference->familiar()) == *reference);
  }
}

TEST_CASE("the digest of a reference says what a registry is asked for, else the tag") {
  CHECK(parse_reference("a")->tag_or_digest() == "latest");
  CHECK(parse_reference("a:b")->tag_or_digest() == "b");
  CHECK(parse_reference("a:b@" + kDigest)->tag_or_digest() == kDigest);
}

TEST_CASE("names and tags as long as they may be are accepted, one more is not") {
  CHECK(parse_reference("example.com/" + std::string(255, 'x')));
  CHECK_FALSE(parse_reference("example.com/" + std::string(256, 'x')));
  CHECK(parse_reference(std::string(247, 'x')));
  CHECK_FALSE(parse_reference(std::string(248, 'x')));  // library/ counts
  CHECK(parse_reference("x:" + std::string(128, 'T')));
  CHECK_FALSE(parse_reference("x:" + std::string(129, 'T')));
}

TEST_CASE("what is no reference is refused with the rule that it breaks") {
  struct Case {
    std::string text;
    std::string_view rule;
  };
  const Case cases[] = {
      {"", "empty"},
      {"./image", "path"},
      {"../image", "path"},
      {"/image", "path"},
      {kHex, "64 hexadecimal digits"},
      {"Python", "lower case"},
      {"user/Python", "lower case"},
      {"a//b", "parts of a repository's name"},
      {"a/", "parts of a repository's name"},
      {"example.com/", "parts of a repository's name"},
      {"-a", "parts of a repository's name"},
      {"a-", "parts of a repository's name"},
      {"a..b", "parts of a repository's name"},
      {"a___b", "parts of a repository's name"},
      {"a._b", "parts of a repository's name"},
      {"a b", "parts of a repository's name"},
      {"a\nb", "parts of a repository's name"},
      {"https://example.com/a", "port"},
      {"\xc3\xa4", "parts of a repository's name"},
      {"a:", "tag is empty"},
      {"a:.b", "a tag is"},
      {"a:-b", "a tag is"},
      {"a:b c", "a tag is"},
      {"a:b:c", "a tag is"},
      {"a@", "after '@'"},
      {"a@sha256:" + std::string(63, 'a'), "after '@'"},
      {"a@sha256:" + std::string(64, 'A'), "after '@'"},
      {"a@sha512:" + std::string(128, 'a'), "after '@'"},
      {"a@" + kDigest + ":b", "after '@'"},
      {"a@" + kDigest + "@" + kDigest, "after '@'"},
      {"@" + kDigest, "parts of a repository's name"},
      {":tag", "parts of a repository's name"},
      {"host:/x", "port"},
      {"host:0/x", "port"},
      {"host:65536/x", "port"},
      {"host:+1/x", "port"},
      {"host:5x/x", "port"},
      {"-a.b/x", "host name"},
      {"a-.b/x", "host name"},
      {"a..b/x", "host name"},
      {"a_b.c/x", "host name"},
      {".a/x", "host name"},
      {":1/x", "host name"},
      {"[::1/x", "IPv6"},
      {"[:::1]/x", "IPv6"},
      {"[::1]x/x", "only a port"},
      {"::1/x", "host name"},
  };
  for (const Case& refused : cases) {
    CAPTURE(refused.text);
    const auto reference = parse_reference(refused.text);
    REQUIRE_FALSE(reference);
    CAPTURE(reference.error().message);
    CHECK(reference.error().message.find(refused.rule) != std::string::npos);
  }
}

TEST_CASE("an error shows no control characters and not all of an endless text") {
  const auto reference = parse_reference("\x1b[2J" + std::string(100000, 'x'));
  REQUIRE_FALSE(reference);
  CHECK(reference.error().message.size() < 1000);
  CHECK(reference.error().message.find('\x1b') == std::string::npos);
}

TEST_CASE("a registry is a host with or without a port, and Docker Hub's names are one") {
  for (const char* hub :
       {"docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"}) {
    CHECK(parse_registry_host(hub) == "docker.io");
  }
  for (const char* host : {"localhost", "ghcr.io", "localhost:5000", "[::1]:5000", "10.0.0.1"}) {
    CHECK(parse_registry_host(host) == host);
  }
  for (const char* text :
       {"", "https://ghcr.io", "ghcr.io/a", "ghcr.io:", "a b", "a@b", "..", "ghcr.io\r\nX: y"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_registry_host(text));
  }
}

}  // namespace msb::oci
