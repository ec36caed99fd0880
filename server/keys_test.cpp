// SPDX-License-Identifier: Apache-2.0
#include "server/keys.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "sandbox/place_testing.hpp"

namespace msb::server {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using sandbox::Place;

constexpr std::int64_t kNow = 1'000'000;

std::string content_of(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

void write(const std::string& path, const std::string& content, mode_t mode = 0600) {
  std::ofstream(path) << content;
  REQUIRE(::chmod(path.c_str(), mode) == 0);
}

Keys::Created make(Keys& keys, Key key = {}) {
  auto created = keys.create(std::move(key));
  REQUIRE(created);
  return std::move(*created);
}

// An entry as create() writes it.
Json entry(const std::string& id) {
  return {{"id", id},
          {"namespace", "*"},
          {"read_only", false},
          {"created_ms", 1},
          {"hash", std::string(64, 'a')}};
}

Reason reason_of(Keys& keys, std::string_view text) {
  const auto checked = keys.check(text, kNow);
  REQUIRE_FALSE(checked);
  return checked.error().reason;
}

TEST_CASE("a key that was shown is looked at again until it is revoked or over") {
  const Place place;
  Keys keys(place.path + "/keys.json");
  Key wanted;
  wanted.expires_ms = kNow;
  const Key passing = make(keys, wanted).key;
  const Key lasting = make(keys).key;
  REQUIRE(keys.accept("a-key-of-my-own-choice"));
  const auto own = keys.check("a-key-of-my-own-choice", kNow);
  REQUIRE(own);
  CHECK(keys.check_again(passing, kNow - 1));
  const auto over = keys.check_again(passing, kNow);
  REQUIRE_FALSE(over);
  CHECK(over.error().reason == Reason::kExpiredKey);
  CHECK(keys.check_again(lasting, kNow));
  REQUIRE(Keys(place.path + "/keys.json").revoke_all() == 2);
  const auto revoked = keys.check_again(lasting, kNow);
  REQUIRE_FALSE(revoked);
  CHECK(revoked.error().reason == Reason::kBadKey);
  CHECK(keys.check_again(*own, kNow));
}

TEST_CASE("a key that was made is good with all that it may, and is kept as a hash alone") {
  const Place place;
  const std::string path = place.path + "/server/keys.json";
  Keys keys(path);
  CHECK(keys.list()->empty());
  Key wanted;
  wanted.name = "Zoe's \"laptop\" \xc3\xa9";
  wanted.scope = {"team-1", true, 3, 2048, 0};
  wanted.expires_ms = kNow + 1;
  const auto [key, text] = make(keys, wanted);
  CHECK(key.name == wanted.name);
  CHECK(key.scope == wanted.scope);
  CHECK(key.created_ms > kNow);
  CHECK(key.id.size() == 8);
  CHECK(key.id.find_first_not_of("0123456789abcdef") == std::string::npos);
  REQUIRE(text.size() == 4 + 8 + 1 + 43);
  CHECK(text.starts_with("msb_" + key.id + "_"));
  CHECK(
      text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") ==
      std::string::npos);

  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(content_of(path).find(text.substr(13)) == std::string::npos);

  Keys others(path);
  for (Keys* reader : {&keys, &others}) {
    const auto checked = reader->check("Bearer " + text, kNow);
    REQUIRE(checked);
    CHECK(checked->id == key.id);
    CHECK(checked->name == wanted.name);
    CHECK(checked->scope == wanted.scope);
    CHECK(checked->created_ms == key.created_ms);
    CHECK(checked->expires_ms == wanted.expires_ms);
  }
}

TEST_CASE("a key is taken with the scheme in any case, and without") {
  const Place place;
  Keys keys(place.path + "/keys.json");
  const std::string text = make(keys).text;
  for (const char* scheme : {"", "Bearer ", "bearer ", "BEARER\t", "  Bearer   "}) {
    CAPTURE(scheme);
    CHECK(keys.check(scheme + text, kNow));
    CHECK(keys.check(scheme + text + " ", kNow));
  }
  for (const char* scheme : {"Bearer", "Basic ", "Bearer Bearer ", "Bearer:", "\n"}) {
    CAPTURE(scheme);
    CHECK(reason_of(keys, scheme + text) == Reason::kBadKey);
  }
}

TEST_CASE("whatever is no key is refused, and not said back") {
  const Place place;
  Keys keys(place.path + "/keys.json");
  CHECK(reason_of(keys, "msb_00000000_x") == Reason::kBadKey);  // without any key
  const std::string text = make(keys).text;
  std::vector<std::string> bad = {"",
                                  " ",
                                  "Bearer",
                                  "Bearer ",
                                  std::string(1, '\0'),
                                  text + '\0',
                                  text.substr(0, text.size() - 1),
                                  text + "a",
                                  text.substr(4),
                                  "\xff\xfe" + text,
                                  std::string(4096, 'a'),
                                  std::string(4097, 'a'),
                                  std::string(4097, ' ') + text,
                                  std::string(1 << 20, 'a')};
  for (std::size_t i = 0; i < text.size(); ++i) {
    bad.push_back(text);
    bad.back()[i] = static_cast<char>(bad.back()[i] ^ 1);
  }
  for (const std::string& word : bad) {
    CAPTURE(word.substr(0, 100));
    const auto checked = keys.check(word, kNow);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().reason == Reason::kBadKey);
    CHECK(checked.error().message.find("msb_") == std::string::npos);
  }
  CHECK(keys.check(text, kNow));
}

TEST_CASE("what is in the file is not what a client shows") {
  const Place place;
  const std::string path = place.path + "/keys.json";
  Keys keys(path);
  make(keys);
  const Json document = Json::parse(content_of(path));
  CHECK(reason_of(keys, document["keys"][0]["hash"].get<std::string>()) == Reason::kBadKey);
}

TEST_CASE("a key ends when its time does") {
  const Place place;
  Keys keys(place.path + "/keys.json");
  Key wanted;
  wanted.expires_ms = kNow;
  const auto [key, text] = make(keys, wanted);
  CHECK(keys.check(text, kNow - 1));
  const auto checked = keys.check(text, kNow);
  REQUIRE_FALSE(checked);
  CHECK(checked.error().reason == Reason::kExpiredKey);
  CHECK(checked.error().message ==
        "the key " + key.id + " has expired; ask whoever runs this server for a new one");
  CHECK(checked.error().message.find(text) == std::string::npos);
}

TEST_CASE("keys that another process makes or revokes count at once") {
  const Place place;
  const std::string path = place.path + "/keys.json";
  Keys server(path);
  Keys tool(path);
  CHECK(reason_of(server, "x") == Reason::kBadKey);
  auto last = make(tool);
  for (int i = 0; i < 8; ++i) {
    CHECK(server.check(last.text, kNow));
    // As long as before, and soon enough to come by the inode of before.
    CHECK(tool.revoke(last.key.id) == true);
    auto next = make(tool);
    CHECK(reason_of(server, last.text) == Reason::kBadKey);
    last = std::move(next);
  }
  CHECK(server.list()->size() == 1);
  CHECK(tool.revoke("00000000") == false);
  CHECK(tool.revoke("") == false);
  make(tool);
  CHECK(tool.revoke_all() == 2U);
  CHECK(tool.revoke_all() == 0U);
  CHECK(reason_of(server, last.text) == Reason::kBadKey);
  CHECK(server.list()->empty());
  make(tool);
  fs::remove(path);
  CHECK(server.list()->empty());
}

TEST_CASE("keys that are made at the same time are all kept, oldest first") {
  const Place place;
  const std::string path = place.path + "/keys.json";
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&path] {
      Keys keys(path);
      for (int j = 0; j < 4; ++j) {
        CHECK(keys.create({}));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const auto keys = Keys(path).list();
  REQUIRE(keys);
  CHECK(keys->size() == 16);
  CHECK(std::ranges::is_sorted(*keys, {}, &Key::created_ms));
  std::set<std::string> ids;
  for (const Key& key : *keys) {
    ids.insert(key.id);
  }
  CHECK(ids.size() == 16);
}

TEST_CASE("a key that nobody could have is not made") {
  const Place place;
  Keys keys(place.path + "/keys.json");
  for (const std::string& space : {std::string(), std::string("a/b"), std::string(".."),
                                   std::string("**"), std::string(64, 'a')}) {
    CAPTURE(space);
    Key wanted;
    wanted.scope.space = space;
    const auto created = keys.create(wanted);
    REQUIRE_FALSE(created);
    CHECK(created.error().message.find("is no namespace") != std::string::npos);
  }
  for (const std::string& name :
       {std::string("a\nb"), std::string("\x1b[2J"), std::string(129, 'a'), std::string(1, '\0')}) {
    CAPTURE(name);
    Key wanted;
    wanted.name = name;
    const auto created = keys.create(wanted);
    REQUIRE_FALSE(created);
    CHECK(created.error().message.find("the key's name") != std::string::npos);
    CHECK(created.error().message.find('\x1b') == std::string::npos);
  }
}

TEST_CASE("as many keys as there may be can be read again, and no more are made") {
  const Place place;
  const std::string path = place.path + "/keys.json";
  Json document;
  for (std::size_t i = 1; i < kMaxKeys; ++i) {
    Json one = entry(fmt::format("{:08x}", i));
    one["name"] = std::string(128, '"');
    one["namespace"] = std::string(63, 'a');
    one["max_sandboxes"] = one["max_memory_mib"] = one["max_lifetime_s"] = 4294967295U;
    one["created_ms"] = one["expires_ms"] = std::numeric_limits<std::int64_t>::max();
    document["keys"].push_back(one);
  }
  write(path, document.dump());
  Keys keys(path);
  CHECK(keys.check(make(keys).text, kNow));
  CHECK(keys.list()->size() == kMaxKeys);
  const auto created = keys.create({});
  REQUIRE_FALSE(created);
  CHECK(created.error().message ==
        "there are 1000 keys already; revoke those that are not used any more");
}

TEST_CASE("a file that is not in order lets nobody in, and says so to whoever runs the server") {
  const Place place;
  const std::string path = place.path + "/keys.json";
  const auto with = [](const char* name, const Json& value) {
    Json one = entry("0123abcd");
    one[name] = value;
    return Json{{"keys", Json::array({one})}}.dump();
  };
  const auto without = [](const char* name) {
    Json one = entry("0123abcd");
    one.erase(name);
    return Json{{"keys", Json::array({one})}}.dump();
  };
  Keys keys(path);
  const std::string text = make(keys).text;
  const std::string good = content_of(path);
  for (const std::string& bad : {std::string(),
                                 std::string("{"),
                                 std::string("null"),
                                 std::string("[]"),
                                 std::string("{}"),
                                 std::string(R"({"keys": {}})"),
                                 std::string(R"({"keys": [1]})"),
                                 std::string(R"({"keys": [], "more": 1})"),
                                 good.substr(0, good.size() / 2),
                                 std::string(1000, '['),
                                 std::string(2 << 20, ' '),
                                 with("id", 1),
                                 with("id", "0123ABCD"),
                                 with("id", "0123abcd0"),
                                 with("hash", "a"),
                                 with("hash", std::string(64, 'A')),
                                 with("hash", nullptr),
                                 with("namespace", "a/b"),
                                 with("namespace", ""),
                                 with("read_only", 0),
                                 with("read_only", "false"),
                                 with("max_sandboxes", -1),
                                 with("max_sandboxes", 1.5),
                                 with("max_sandboxes", 4294967296),
                                 with("max_memory_mib", "1"),
                                 with("max_lifetime_s", nullptr),
                                 with("expires_ms", "never"),
                                 with("expires_ms", std::numeric_limits<std::uint64_t>::max()),
                                 with("created_ms", true),
                                 with("name", 1),
                                 with("max_cpus", 1),
                                 without("id"),
                                 without("hash"),
                                 without("namespace"),
                                 without("read_only"),
                                 without("created_ms")}) {
    CAPTURE(bad.substr(0, 300));
    write(path, bad);
    const auto checked = keys.check(text, kNow);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().reason == Reason::kInternal);
    CHECK(checked.error().message.find(place.path) == std::string::npos);
    for (const auto& error : {keys.list().error(), keys.revoke("0123abcd").error(),
                              keys.revoke_all().error(), keys.create({}).error()}) {
      CHECK(error.message.find(path) != std::string::npos);
    }
    CHECK(content_of(path) == bad);
  }
  write(path, good);
  CHECK(keys.check(text, kNow));
}

TEST_CASE("a file that others can reach, or that is none, lets nobody in") {
  const Place place;
  const std::string path = place.path + "/keys.json";
  Keys keys(path);
  const std::string text = make(keys).text;
  for (const mode_t mode : {0640, 0604, 0620, 0602, 0610, 0644, 0666}) {
    CAPTURE(mode);
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    CHECK(reason_of(keys, text) == Reason::kInternal);
    CHECK(keys.list().error().message ==
          "'" + path +
              "' is open to other users; make it yours alone with `chmod 600`, and revoke the keys "
              "that you do not know");
  }
  REQUIRE(::chmod(path.c_str(), 0600) == 0);
  CHECK(keys.check(text, kNow));
  if (::geteuid() == 0) {
    REQUIRE(::chown(path.c_str(), 65534, 65534) == 0);
    CHECK(reason_of(keys, text) == Reason::kInternal);
    CHECK(keys.list().error().message.find("belongs to another user") != std::string::npos);
    REQUIRE(::chown(path.c_str(), 0, 0) == 0);
  }
  fs::rename(path, place.path + "/elsewhere");
  fs::create_symlink("elsewhere", path);
  CHECK(reason_of(keys, text) == Reason::kInternal);
  fs::remove(path);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(reason_of(keys, text) == Reason::kInternal);
  fs::remove(path);
  fs::create_directory(path);
  REQUIRE(::chmod(path.c_str(), 0700) == 0);
  CHECK(reason_of(keys, text) == Reason::kInternal);
}

TEST_CASE("an expiry is a number with a unit") {
  CHECK(parse_expiry("1s") == 1);
  CHECK(parse_expiry("2m") == 120);
  CHECK(parse_expiry("3h") == 10800);
  CHECK(parse_expiry("4d") == 345600);
  CHECK(parse_expiry("5w") == 3024000);
  CHECK(parse_expiry("6mo") == 15552000);
  CHECK(parse_expiry("7y") == 220752000);
  CHECK(parse_expiry("100y") == 3153600000);
  for (const char* word : {"", "s", "1", "-1s", "+1s", " 1s", "1s ", "1 s", "1S", "1M", "1.5h",
                           "1h30m", "1mon", "0x1s", "one", "1\x1b[2J"}) {
    CAPTURE(word);
    const auto expiry = parse_expiry(word);
    REQUIRE_FALSE(expiry);
    CHECK(expiry.error().message.find("is no time; write a number with s, m, h, d, w, mo or y") !=
          std::string::npos);
    CHECK(expiry.error().message.find('\x1b') == std::string::npos);
  }
  for (const char* word : {"0s", "0y", "101y", "3153600001s", "9223372036854775807y",
                           "9223372036854775808s", "99999999999999999999999s"}) {
    CAPTURE(word);
    CHECK(parse_expiry(word).error().message == fmt::format("\"{}\" is not from 1s to 100y", word));
  }
  CHECK_FALSE(parse_expiry(std::string_view("1s\0", 3)));
}

}  // namespace
}  // namespace msb::server
