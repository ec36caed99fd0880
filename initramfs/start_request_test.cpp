// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/start_request.h"
}

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "protocol/msb_exec.h"

namespace {

using Bytes = std::vector<uint8_t>;

Bytes payload(const msb_start& start, const std::vector<std::string>& strings) {
  Bytes bytes(sizeof start);
  std::memcpy(bytes.data(), &start, sizeof start);
  for (const std::string& string : strings) {
    bytes.insert(bytes.end(), string.c_str(), string.c_str() + string.size() + 1);
  }
  return bytes;
}

msb_start head(uint32_t arguments, uint32_t variables) {
  return {.flags = 0,
          .user = 0,
          .group = 0,
          .arguments = arguments,
          .variables = variables,
          .reserved = 0};
}

struct Parsed {
  std::unique_ptr<uint8_t[]> bytes;  // of exactly that size, so that a byte too far is seen
  start_request request{};
  failure why{};
  bool ok;

  explicit Parsed(const Bytes& from) : bytes(new uint8_t[from.size()]) {
    if (!from.empty()) std::memcpy(bytes.get(), from.data(), from.size());
    ok = start_request_parse(bytes.get(), from.size(), &request, &why);
  }
  ~Parsed() { start_request_free(&request); }
  Parsed(const Parsed&) = delete;
  Parsed& operator=(const Parsed&) = delete;
};

}  // namespace

TEST_CASE("start_with_everything_is_taken_apart") {
  msb_start start = head(3, 2);
  start.flags = MSB_START_CREATE_DIRECTORY;
  start.user = 1000;
  start.group = 100;
  Parsed parsed(payload(start, {"/work", "sh", "", "a b", "A=1", "B=\xff\x01=2"}));
  REQUIRE(parsed.ok);
  CHECK(parsed.request.flags == MSB_START_CREATE_DIRECTORY);
  CHECK(parsed.request.user == 1000);
  CHECK(parsed.request.group == 100);
  CHECK(std::string(parsed.request.directory) == "/work");
  CHECK(std::string(parsed.request.arguments[0]) == "sh");
  CHECK(std::string(parsed.request.arguments[1]).empty());
  CHECK(std::string(parsed.request.arguments[2]) == "a b");
  CHECK(parsed.request.arguments[3] == nullptr);
  CHECK(std::string(parsed.request.variables[0]) == "A=1");
  CHECK(std::string(parsed.request.variables[1]) == "B=\xff\x01=2");
  CHECK(parsed.request.variables[2] == nullptr);
}

TEST_CASE("start_that_is_wrong_is_refused") {
  std::vector<Bytes> wrong;
  auto add = [&](auto change, const std::vector<std::string>& strings) {
    msb_start start = head(1, 1);
    change(start);
    wrong.push_back(payload(start, strings));
  };
  add([](msb_start&) {}, {"/", "a"});
  add([](msb_start&) {}, {"/", "a", "A=1", "B=1"});
  add([](msb_start&) {}, {"work", "a", "A=1"});
  add([](msb_start&) {}, {"", "a", "A=1"});
  add([](msb_start&) {}, {"/", "a", "A"});
  add([](msb_start& start) { start.flags = 2; }, {"/", "a", "A=1"});
  add([](msb_start& start) { start.reserved = 1; }, {"/", "a", "A=1"});
  add([](msb_start& start) { start.arguments = 0; }, {"/", "A=1"});
  add([](msb_start& start) { start.user = UINT32_MAX; }, {"/", "a", "A=1"});
  add([](msb_start& start) { start.group = UINT32_MAX; }, {"/", "a", "A=1"});
  for (const Bytes& bytes : wrong) {
    CAPTURE(std::string(bytes.begin(), bytes.end()));
    Parsed parsed(bytes);
    CHECK_FALSE(parsed.ok);
    CHECK(parsed.why.stage == MSB_STAGE_REQUEST);
    CHECK(parsed.why.code == EINVAL);
  }
}

TEST_CASE("start_with_more_strings_than_the_kernel_takes_is_refused_before_memory_is_spent") {
  for (auto [arguments, variables] :
       {std::pair{UINT32_MAX, UINT32_MAX}, {START_STRINGS_MAX, 1u}, {1u, START_STRINGS_MAX}}) {
    Parsed parsed(payload(head(arguments, variables), {"/", "a"}));
    CHECK_FALSE(parsed.ok);
    CHECK(parsed.why.code == E2BIG);
  }
}

TEST_CASE("start_cut_off_anywhere_is_refused") {
  Bytes whole = payload(head(2, 1), {"/work", "sh", "-c", "A=1"});
  REQUIRE(Parsed(whole).ok);
  for (size_t length = 0; length < whole.size(); length++) {
    CAPTURE(length);
    CHECK_FALSE(Parsed(Bytes(whole.begin(), whole.begin() + static_cast<long>(length))).ok);
  }
}

TEST_CASE("start_of_random_bytes_is_parsed_without_harm") {
  std::mt19937 random(1);
  Bytes whole = payload(head(3, 3), {"/work", "sh", "-c", "true", "A=1", "B=2", "C="});
  for (int round = 0; round < 20000; round++) {
    Bytes bytes = whole;
    for (auto changes = random() % 4 + 1; changes > 0; changes--) {
      bytes[random() % bytes.size()] =
          static_cast<uint8_t>(random() % 4 == 0 ? random() : random() % 4);
    }
    Parsed parsed(bytes);
    if (!parsed.ok) continue;
    size_t total = std::strlen(parsed.request.directory);
    for (char** s = parsed.request.arguments; *s != nullptr; s++) total += std::strlen(*s);
    for (char** s = parsed.request.variables; *s != nullptr; s++) total += std::strlen(*s);
    CHECK(total < bytes.size());
  }
}
