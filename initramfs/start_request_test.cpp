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
  msb_start start{};
  start.arguments = arguments;
  start.variables = variables;
  start.umask = MSB_UMASK_DEFAULT;
  return start;
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
  start.flags =
      MSB_START_CREATE_DIRECTORY | MSB_START_KEEP | MSB_START_TERMINAL | MSB_START_CHANNEL;
  start.groups = 2;
  start.limits = 1;
  start.keep = MSB_KEEP_MAX;
  Bytes bytes(sizeof start);
  std::memcpy(bytes.data(), &start, sizeof start);
  msb_limit limit{.resource = 7, .reserved = 0, .soft = 10, .hard = UINT64_MAX};
  bytes.resize(sizeof start + sizeof limit);
  std::memcpy(bytes.data() + sizeof start, &limit, sizeof limit);
  for (const char* string :
       {"label", "me:us", "/work", "adm", "27", "sh", "", "a b", "A=1", "B=\xff\x01=2"}) {
    bytes.insert(bytes.end(), string, string + std::strlen(string) + 1);
  }
  Parsed parsed(bytes);
  REQUIRE(parsed.ok);
  const start_request& request = parsed.request;
  CHECK(request.fixed.flags == start.flags);
  CHECK(request.fixed.keep == MSB_KEEP_MAX);
  CHECK(request.limits[0].resource == 7);
  CHECK(request.limits[0].soft == 10);
  CHECK(request.limits[0].hard == UINT64_MAX);
  CHECK(std::string(request.label) == "label");
  CHECK(std::string(request.user) == "me:us");
  CHECK(std::string(request.directory) == "/work");
  CHECK(std::string(request.groups[0]) == "adm");
  CHECK(std::string(request.groups[1]) == "27");
  CHECK(request.groups[2] == nullptr);
  CHECK(std::string(request.arguments[0]) == "sh");
  CHECK(std::string(request.arguments[1]).empty());
  CHECK(std::string(request.arguments[2]) == "a b");
  CHECK(request.arguments[3] == nullptr);
  CHECK(std::string(request.variables[0]) == "A=1");
  CHECK(std::string(request.variables[1]) == "B=\xff\x01=2");
  CHECK(request.variables[2] == nullptr);
  CHECK(request.variables[3] == nullptr);  // room for one more
}

TEST_CASE("start_that_is_wrong_is_refused") {
  std::vector<Bytes> wrong;
  auto add = [&](auto change, const std::vector<std::string>& strings) {
    msb_start start = head(1, 1);
    change(start);
    wrong.push_back(payload(start, strings));
  };
  const std::vector<std::string> right = {"", "", "/", "a", "A=1"};
  REQUIRE(Parsed(payload(head(1, 1), right)).ok);
  add([](msb_start&) {}, {"", "", "/", "a"});
  add([](msb_start&) {}, {"", "", "/", "a", "A=1", "B=1"});
  add([](msb_start&) {}, {"", "", "work", "a", "A=1"});
  add([](msb_start&) {}, {"", "", "", "a", "A=1"});
  add([](msb_start&) {}, {"", "", "/", "a", "A"});
  add([](msb_start& start) { start.flags = 32; }, right);
  add([](msb_start& start) { start.flags = MSB_START_TERMINAL | MSB_START_NO_STDIN; }, right);
  add([](msb_start& start) { start.reserved = 1; }, right);
  add([](msb_start& start) { start.umask = 01000; }, right);
  add([](msb_start& start) { start.keep = MSB_KEEP_MAX + 1; }, right);
  add([](msb_start& start) { start.groups = MSB_GROUPS_MAX + 1; }, right);
  add([](msb_start& start) { start.groups = UINT32_MAX; }, right);
  add([](msb_start& start) { start.groups = 1; }, right);
  add([](msb_start& start) { start.limits = MSB_LIMITS_MAX + 1; }, right);
  add([](msb_start& start) { start.limits = UINT32_MAX; }, right);
  add([](msb_start& start) { start.limits = 1; }, right);
  add([](msb_start& start) { start.arguments = 0; }, {"", "", "/", "A=1"});
  for (const Bytes& bytes : wrong) {
    CAPTURE(std::string(bytes.begin(), bytes.end()));
    Parsed parsed(bytes);
    CHECK_FALSE(parsed.ok);
    CHECK(parsed.why.stage == MSB_STAGE_REQUEST);
    CHECK(parsed.why.code == EINVAL);
  }
}

TEST_CASE("start_with_a_limit_that_cannot_be_is_refused") {
  for (const msb_limit& limit : {msb_limit{.resource = 16, .reserved = 0, .soft = 1, .hard = 1},
                                 msb_limit{.resource = 7, .reserved = 1, .soft = 1, .hard = 1},
                                 msb_limit{.resource = 7, .reserved = 0, .soft = 2, .hard = 1}}) {
    msb_start start = head(1, 0);
    start.limits = 1;
    Bytes bytes = payload(start, {"", "", "/", "a"});
    const uint8_t* raw = reinterpret_cast<const uint8_t*>(&limit);
    bytes.insert(bytes.begin() + sizeof start, raw, raw + sizeof limit);
    Parsed parsed(bytes);
    CHECK_FALSE(parsed.ok);
    CHECK(parsed.why.code == EINVAL);
  }
}

TEST_CASE("start_with_more_strings_than_the_kernel_takes_is_refused_before_memory_is_spent") {
  for (auto [arguments, variables] :
       {std::pair{UINT32_MAX, UINT32_MAX}, {START_STRINGS_MAX, 1u}, {1u, START_STRINGS_MAX}}) {
    Parsed parsed(payload(head(arguments, variables), {"", "", "/", "a"}));
    CHECK_FALSE(parsed.ok);
    CHECK(parsed.why.code == E2BIG);
  }
}

TEST_CASE("start_cut_off_anywhere_is_refused") {
  Bytes whole = payload(head(2, 1), {"label", "user", "/work", "sh", "-c", "A=1"});
  REQUIRE(Parsed(whole).ok);
  for (size_t length = 0; length < whole.size(); length++) {
    CAPTURE(length);
    CHECK_FALSE(Parsed(Bytes(whole.begin(), whole.begin() + static_cast<long>(length))).ok);
  }
}

TEST_CASE("start_of_random_bytes_is_parsed_without_harm") {
  std::mt19937 random(1);
  Bytes whole =
      payload(head(3, 3), {"label", "user", "/work", "sh", "-c", "true", "A=1", "B=2", "C="});
  for (int round = 0; round < 20000; round++) {
    Bytes bytes = whole;
    for (auto changes = random() % 4 + 1; changes > 0; changes--) {
      bytes[random() % bytes.size()] =
          static_cast<uint8_t>(random() % 4 == 0 ? random() : random() % 4);
    }
    Parsed parsed(bytes);
    if (!parsed.ok) continue;
    size_t total = std::strlen(parsed.request.directory);
    for (char** s = parsed.request.groups; *s != nullptr; s++) total += std::strlen(*s);
    for (char** s = parsed.request.arguments; *s != nullptr; s++) total += std::strlen(*s);
    for (char** s = parsed.request.variables; *s != nullptr; s++) total += std::strlen(*s);
    CHECK(total < bytes.size());
  }
}
