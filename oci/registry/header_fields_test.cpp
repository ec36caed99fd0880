// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/header_fields.hpp"

#include <doctest/doctest.h>

#include <string>

#include "oci/registry/http.hpp"
#include "oci/registry/redirect.hpp"
#include "oci/registry/url.hpp"

namespace msb::oci {
namespace {

using std::chrono::seconds;

std::string show(std::string_view field) {
  std::string text;
  for (const Challenge& challenge : parse_challenges(field)) {
    text += "[" + challenge.scheme;
    for (const auto& [name, value] : challenge.parameters) {
      text += " " + name + "=<" + value + ">";
    }
    text += "]";
  }
  return text;
}

}  // namespace

TEST_CASE(
    "challenges are read as registries write them, and no further than they are well-formed") {
  struct Case {
    std::string_view field;
    std::string_view shown;
  };
  const Case cases[] = {
      {R"(Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull")",
       "[bearer realm=<https://auth.docker.io/token> service=<registry.docker.io> "
       "scope=<repository:a/b:pull>]"},
      {R"(Basic realm="Registry Realm")", "[basic realm=<Registry Realm>]"},
      {R"(BEARER Realm = "x" , Service = y)", "[bearer realm=<x> service=<y>]"},
      {R"(Basic realm="a", Bearer realm="b",error="invalid_token")",
       "[basic realm=<a>][bearer realm=<b> error=<invalid_token>]"},
      {R"(Negotiate, Basic realm="a")", "[negotiate][basic realm=<a>]"},
      {R"(Negotiate YII+/==, Basic realm="a")", "[negotiate][basic realm=<a>]"},
      {R"(Negotiate abc=, Basic realm="a")", "[negotiate][basic realm=<a>]"},
      {R"(Bearer realm="a\"b\\c")", R"([bearer realm=<a"b\c>])"},
      {R"(,, Bearer realm="a",, ,service="b")", "[bearer realm=<a> service=<b>]"},
      {R"(Bearer scope="a b,c",realm="r")", "[bearer scope=<a b,c> realm=<r>]"},
      {"Bearer", "[bearer]"},
      {"", ""},
      {R"(="x")", ""},
      {R"(Bearer realm="a)", "[bearer]"},
      {R"(Bearer realm="a\)", "[bearer]"},
      {R"(Bearer realm="a" service="b")", "[bearer]"},
      {R"("Bearer")", ""},
  };
  for (const Case& expected : cases) {
    CAPTURE(expected.field);
    std::string shown(expected.shown);
    // A parameter that is followed by no comma was kept before the defect was seen.
    CHECK(show(expected.field) == shown);
  }
}

TEST_CASE("challenges and their parameters are counted") {
  std::string many;
  std::string parameters = "Bearer a=b";
  for (int i = 0; i < 1000; ++i) {
    many += "Basic,";
    parameters += ",a=b";
  }
  CHECK(parse_challenges(many).size() == 16);
  CHECK(parse_challenges(parameters).at(0).parameters.size() == 32);
}

TEST_CASE("Retry-After is seconds or a date") {
  const auto now = std::chrono::system_clock::from_time_t(784111777);  // RFC 9110's example
  CHECK(parse_retry_after("120", now) == seconds(120));
  CHECK(parse_retry_after(" 0 ", now) == seconds(0));
  CHECK(parse_retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now) == seconds(10));
  CHECK(parse_retry_after("Sun, 06 Nov 1994 08:49:30 GMT", now) == seconds(0));
  CHECK(parse_retry_after("99999999999999", now) == seconds(366LL * 24 * 60 * 60));
  CHECK(parse_retry_after("Sun, 06 Nov 9909 08:49:37 GMT", now) == seconds(366LL * 24 * 60 * 60));
  CHECK_FALSE(parse_retry_after("soon", now));
  CHECK_FALSE(parse_retry_after("-1", now));
  CHECK_FALSE(parse_retry_after("", now));
}

TEST_CASE("a content range is well-formed or nothing") {
  const auto range = parse_content_range("bytes 5-9/10");
  REQUIRE(range);
  CHECK(range->first == 5);
  CHECK(range->last == 9);
  CHECK(range->size == 10);
  CHECK(parse_content_range("Bytes 5-9/*"));
  for (const char* field :
       {"", "bytes", "5-9/10", "bytes 9-5/10", "bytes 5-10/10", "bytes */10", "bytes 5-9",
        "bytes 5-9/x", "bytes -9/10", "bytes 5-/10", "bytes 99999999999999999999-9/10"}) {
    CAPTURE(field);
    CHECK_FALSE(parse_content_range(field));
  }
}

TEST_CASE("a media type is compared without case and parameters") {
  CHECK(media_type_of("Application/JSON; charset=utf-8") == "application/json");
  CHECK(media_type_of(" a/b ;") == "a/b");
}

TEST_CASE("URLs are normalised, and two of one origin are told from others") {
  const auto parse = [](std::string_view text) { return parse_url(text).value(); };
  CHECK(parse("HTTPS://Example.COM/a?b#c").text.ends_with("/a?b"));
  CHECK(parse("https://Example.COM:443/").authority == "example.com");
  CHECK(parse("https://Example.COM").same_origin(parse("https://example.com:443/x")));
  CHECK_FALSE(parse("https://example.com").same_origin(parse("http://example.com:443")));
  CHECK_FALSE(parse("https://example.com").same_origin(parse("https://example.com:444")));
  CHECK_FALSE(parse("https://example.com").same_origin(parse("https://example.com.evil")));
  CHECK_FALSE(parse("https://example.com").same_origin(parse("https://a.example.com")));
  for (const char* text : {"", "example.com", "/a", "ftp://a/", "file:///etc/passwd",
                           "https://user:word@a/", "https://user@a/", "https://", "https://a b/"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_url(text));
  }
  CHECK_FALSE(parse_url("https://a/" + std::string(9000, 'x')));
  const auto secret = parse_url("https://user:geheim@a/");
  CHECK(secret.error().message.find("geheim") == std::string::npos);
}

TEST_CASE("a location is read relative to where it came from") {
  const Url base = parse_url("https://a.example/v2/x/blobs/y?z").value();
  CHECK(resolve_url(base, "../w")->text == "https://a.example/v2/x/w");
  CHECK(resolve_url(base, "/w")->text == "https://a.example/w");
  CHECK(resolve_url(base, "//b.example/w")->text == "https://b.example/w");
  CHECK(resolve_url(base, "https://b.example/w")->text == "https://b.example/w");
  CHECK_FALSE(resolve_url(base, "ftp://b.example/w"));
  CHECK_FALSE(resolve_url(base, "gopher://b.example/w"));
}

TEST_CASE("a redirect does not lead out of HTTPS, unless the registry is insecure") {
  const Url https = parse_url("https://a.example/x").value();
  const Url http = parse_url("http://a.example/x").value();
  const HttpHead to_http{302, {{"location", "http://b.example/"}}};
  CHECK_FALSE(redirect_target(to_http, https, false));
  CHECK(redirect_target(to_http, https, true));
  CHECK(redirect_target(to_http, http, false));
  CHECK(redirect_target(HttpHead{302, {{"location", "https://b.example/"}}}, https, false));
  CHECK_FALSE(redirect_target(HttpHead{302, {}}, https, true));
}

TEST_CASE("what stands in a query is encoded") {
  CHECK(encode_url_component("repository:a/b:pull") == "repository%3Aa%2Fb%3Apull");
  CHECK(encode_url_component("a-b._~&=\n") == "a-b._~%26%3D%0A");
}

}  // namespace msb::oci
