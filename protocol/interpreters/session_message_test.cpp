// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/session_message.hpp"

#include <doctest/doctest.h>

#include <utility>

using namespace msb::protocol;
using Operation = SessionMessage::Operation;

namespace {

std::string framed(std::string_view json) {
  std::string bytes;
  for (unsigned shift = 0; shift < 32; shift += 8) {
    bytes.push_back(static_cast<char>(json.size() >> shift & 0xff));
  }
  return bytes.append(json);
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// All messages of a stream, given in pieces of `step` bytes.
std::vector<SessionMessage> decoded(SessionMessageDecoder& decoder, std::string_view stream,
                                    std::size_t step) {
  std::vector<SessionMessage> messages;
  for (std::size_t at = 0; at < stream.size(); at += step) {
    auto bytes = bytes_of(stream.substr(at, step));
    while (!bytes.empty()) {
      auto message = decoder.next(bytes);
      REQUIRE(message);
      if (*message) {
        messages.push_back(std::move(**message));
      }
    }
  }
  return messages;
}

}  // namespace

TEST_CASE("a message of each operation gives its fields") {
  auto message =
      parse_session_message(R"({"op":"ready","id":5,"language":"python","version":"3.11.2"})");
  REQUIRE(message);
  CHECK((*message)->operation == Operation::kReady);
  CHECK((*message)->id == 5);
  CHECK((*message)->language == "python");
  CHECK((*message)->version == "3.11.2");

  message = parse_session_message(
      R"({"op":"result","id":1,"data":{"text/plain":"é","image/png":"aGk="},"cut":{"text/html":9}})");
  REQUIRE(message);
  CHECK((*message)->operation == Operation::kResult);
  CHECK((*message)->data.at("text/plain") == "é");
  CHECK((*message)->data.at("image/png") == "aGk=");
  CHECK((*message)->cut.at("text/html") == 9);

  message = parse_session_message(
      R"({"op":"error","id":1,"name":"E","message":"m","traceback":["a\n","b\n"],"exit":3})");
  REQUIRE(message);
  CHECK((*message)->operation == Operation::kError);
  CHECK((*message)->name == "E");
  CHECK((*message)->message == "m");
  CHECK((*message)->traceback == std::vector<std::string>{"a\n", "b\n"});
  CHECK((*message)->exit == 3);

  message = parse_session_message(R"({"op":"done","id":1,"status":255})");
  REQUIRE(message);
  CHECK((*message)->operation == Operation::kDone);
  CHECK((*message)->status == 255);
  CHECK_FALSE((*message)->exit);
}

TEST_CASE("what a later version may add is passed over") {
  const auto unknown_field =
      parse_session_message(R"({"op":"done","id":1,"new":null,"more":-1.5,"less":true})");
  REQUIRE(unknown_field);
  CHECK(*unknown_field);
  const auto unknown_operation = parse_session_message(R"({"op":"progress","id":1})");
  REQUIRE(unknown_operation);
  CHECK_FALSE(*unknown_operation);
}

TEST_CASE("a message of another form is an error") {
  for (const std::string_view json : {
           "",
           "1",
           "[]",
           "null",
           "{",
           R"({"op":"done","id":1}x)",
           R"({"op":"done","id":-1})",
           R"({"op":"done","id":2147483648})",
           R"({"op":"done","id":"1"})",
           R"({"op":1,"id":1})",
           R"({"op":"done","id":1,"status":256})",
           R"({"op":"done","id":1,"exit":"0"})",
           R"({"op":"display","id":1,"data":{"a":1}})",
           R"({"op":"display","id":1,"data":{"a":{"b":"c"}}})",
           R"({"op":"display","id":1,"data":["a"]})",
           R"({"op":"display","id":1,"cut":{"a":"b"}})",
           R"({"op":"error","id":1,"traceback":"a"})",
           R"({"op":"error","id":1,"traceback":[["a"]]})",
           R"({"op":"error","id":1,"other":["a"]})",
           R"({"op":"error","id":1,"other":{}})",
           "{\"op\":\"error\",\"id\":1,\"name\":\"\xff\"}",
           R"({"op":"error","id":1,"name":"\ud800"})",
       }) {
    CAPTURE(json);
    CHECK_FALSE(parse_session_message(json));
  }
}

TEST_CASE("deep nesting and too many entries are errors, not memory") {
  std::string deep = R"({"op":"done","data":)" + std::string(1'000'000, '[');
  CHECK_FALSE(parse_session_message(deep));

  std::string many = R"({"op":"display","id":1,"data":{)";
  for (std::size_t i = 0; i <= kMaxRepresentations; ++i) {
    many += fmt::format(R"({}"{}":"")", i == 0 ? "" : ",", i);
  }
  CHECK_FALSE(parse_session_message(many + "}}"));
  CHECK_FALSE(parse_session_message(R"({")" + std::string(10'000, 'k') + R"(":1})"));
}

TEST_CASE("a stream in pieces of any size gives the same messages") {
  const std::string stream = framed(R"({"op":"started","id":1})") +
                             framed(R"({"op":"unknown","id":1})") +
                             framed(R"({"op":"done","id":1,"status":2})");
  for (std::size_t step = 1; step <= stream.size(); ++step) {
    CAPTURE(step);
    SessionMessageDecoder decoder;
    const auto messages = decoded(decoder, stream, step);
    REQUIRE(messages.size() == 2);
    CHECK(messages[0].operation == Operation::kStarted);
    CHECK(messages[1].status == 2);
  }
}

TEST_CASE("a length of nothing or beyond the limit is an error before any of it comes") {
  for (const std::string_view header :
       {std::string_view("\0\0\0\0", 4), std::string_view("\x01\0\0\x02", 4),
        std::string_view("\xff\xff\xff\xff", 4)}) {
    SessionMessageDecoder decoder;
    auto bytes = bytes_of(header);
    CHECK_FALSE(decoder.next(bytes));
  }
}

TEST_CASE("a stream taken up in its middle begins with the answer that was asked for") {
  const std::string before = framed(R"({"op":"ready","id":4,"version":"old"})") +
                             framed(R"({"op":"display","id":3,"data":{}})");
  const std::string after =
      framed(R"({"op":"ready","id":41,"version":"x"})") + framed(R"({"op":"done","id":42})");
  for (std::size_t from = 0; from <= before.size(); ++from) {
    CAPTURE(from);
    SessionMessageDecoder decoder;
    decoder.seek_ready(41);
    const auto messages = decoded(decoder, before.substr(from) + after, 1 + from % 7);
    REQUIRE(messages.size() == 2);
    CHECK(messages[0].id == 41);
    CHECK(messages[1].id == 42);
  }
}
