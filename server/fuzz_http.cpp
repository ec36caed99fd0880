// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a request of HTTP/1.1, its target and its host. In pieces of any size it is the
// same request, or refused; what is taken is no longer than it may be, and ends where it says.
// Seeds: tests/corpus/http.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/exchange.hpp"
#include "server/http_request.hpp"
#include "server/v1_streams.hpp"

namespace {

using namespace msb;
using namespace msb::server;

// Small, so that inputs come up to it.
constexpr std::size_t kLimit = 256;

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
}

struct Reading {
  unsigned refused = 0;  // the status
  std::string why;
  std::size_t head = 0;  // its bytes
  std::string fields;
  bool body_refused = false;
  std::string body;
  bool done = false;
  std::size_t end = 0;  // of the request

  bool operator==(const Reading&) const = default;
};

std::string fields_of(const RequestParser& parser) {
  const auto& request = parser.get();
  std::string text(view(request.method_string()));
  (text += ' ') += view(request.target());
  for (const auto& field : request) {
    (text += '\n') += view(field.name_string());
    (text += ": ") += view(field.value());
  }
  return text;
}

void check_head(const RequestParser& parser, std::string_view head) {
  require(head.size() <= kLimit, "a head has no more bytes than it may have");
  require(head.ends_with("\r\n\r\n"), "a head ends with an empty line");
  require(head.find("\r\n\r\n") == head.size() - 4, "and there it ends");
  require(!head.contains("\r\n ") && !head.contains("\r\n\t"), "no field is folded");
  require(!head.contains('\0'), "there is no NUL in it");
  require(std::ranges::count(head, '\r') == std::ranges::count(head, '\n'), "CR and LF are paired");
  const auto& request = parser.get();
  require(request.count(http::field::host) <= 1, "one host");
  require(request.version() == 10 || request.count(http::field::host) == 1, "HTTP/1.1 has a host");
  require(
      request.count(http::field::content_length) + request.count(http::field::transfer_encoding) <=
          1,
      "the length is said once");
  const auto length = view(request[http::field::content_length]);
  require(length.find_first_not_of("0123456789") == std::string_view::npos, "a length has digits");
}

Reading read_in_pieces(std::string_view text, std::size_t size) {
  Reading reading;
  RequestParser parser;
  HeadReader reader(parser, kLimit);
  std::size_t come = 0;
  while (reading.head == 0) {
    come = std::min(text.size(), come + size);
    const auto head = reader.read(text.substr(0, come));
    if (!head) {
      reading.refused = head.error().status;
      reading.why = head.error().problem.message;
      return reading;
    }
    reading.head = *head;
    if (reading.head == 0 && come == text.size()) {
      require(come < kLimit, "no more of a head is waited for than it may have");
      return reading;
    }
  }
  check_head(parser, text.substr(0, reading.head));
  reading.fields = fields_of(parser);
  BodyReader body(parser, kLimit);
  std::array<std::byte, 16> piece;
  reading.end = reading.head;
  while (!body.done()) {
    const auto taken = body.take(text.substr(reading.end, come - reading.end), piece);
    if (!taken) {
      reading.body_refused = true;
      reading.end = 0;  // nobody goes on behind it
      return reading;
    }
    reading.end += taken->bytes;
    require(reading.end <= come, "nothing is taken that has not come");
    reading.body.append(reinterpret_cast<const char*>(piece.data()), taken->length);
    if (taken->length == 0 && !body.done()) {
      if (come == text.size()) {
        break;
      }
      come = std::min(text.size(), come + size);
    }
  }
  reading.done = body.done();
  const auto& request = parser.get();
  if (request.count(http::field::transfer_encoding) == 0) {
    require(reading.end == reading.head + reading.body.size(), "a body is as it came");
  }
  return reading;
}

void check_request(std::string_view text) {
  const Reading whole = read_in_pieces(text, std::max<std::size_t>(text.size(), 1));
  require(whole.refused == 0 || (!whole.why.empty() && !whole.why.contains('\n')),
          "what is wrong is said in one line");
  for (const std::size_t size : {1, 2, 7, 64}) {
    require(read_in_pieces(text, size) == whole, "a request does not depend on how it came");
  }
}

void check_target(std::string_view text) {
  const auto line = parse_target("GET", text);
  if (!line) {
    return;
  }
  require(text.starts_with(line->path_text), "a path is the beginning of its target");
  for (const std::string& segment : line->path) {
    require(!segment.empty() && segment != "." && segment != "..", "a segment is a name");
  }
}

void check_host(std::string_view text) {
  const auto host = parse_host(text);
  if (!host) {
    return;
  }
  require(!host->name.empty() && host->name.size() <= text.size(), "a host has a name");
  require(
      host->name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-._:") == std::string::npos,
      "in lower case, and without what has a meaning elsewhere");
  if (const auto app = parse_app_host(*host)) {
    require(!host->address && host->name.ends_with(".localhost"), "apps are below localhost");
    require(!app->sandbox.contains('.'), "a sandbox is named by one label");
  }
}

void check_escapes(std::string_view text) {
  for (const bool plus_is_blank : {false, true}) {
    const auto decoded = percent_decode(text, plus_is_blank);
    require(!decoded || decoded->size() <= text.size(), "decoding makes nothing longer");
    require(!decoded || text.contains('\0') || !decoded->contains('\0'), "and no NUL");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_request(text);
  // Of a request line its target, of anything else all: they are read apart from heads too.
  const std::size_t blank = text.find(' ');
  const std::string_view rest = blank == std::string_view::npos ? text : text.substr(blank + 1);
  const std::string_view target = rest.substr(0, rest.find(' '));
  check_target(target);
  check_escapes(target);
  check_host(target);
  (void)v1::stream_format(target);
  return 0;
}
