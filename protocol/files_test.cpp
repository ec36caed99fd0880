// SPDX-License-Identifier: Apache-2.0
#include "protocol/files.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/host_frames.hpp"
#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using namespace std::string_literals;
using testing::bytes_of;
using testing::frame_of;
using testing::text_of;
using testing::Wire;

std::string done(std::uint64_t value = 0) {
  return frame_of(MSB_DONE, msb_done{value});
}

std::string entry(const std::string& name, std::uint32_t mode = S_IFREG,
                  const std::string& target = "") {
  msb_file_entry fields{};
  fields.mode = mode;
  return frame_of(MSB_FILE_ENTRY, fields, name + "\0"s + target + "\0"s);
}

const std::string kOpened = "OK 1\n" + done();

// What an operation came to: a value, or the stage at which it failed.
template <typename T>
struct End {
  std::optional<T> value;
  std::optional<Failure> failure;
  Files::Done<T> done() {
    return [this](const Answer<T>& answer) {
      if (answer) {
        value = *answer;
      } else {
        failure = answer.error();
      }
    };
  }
  [[nodiscard]] bool over() const { return value || failure; }
};

TEST_CASE("a request waits until the file service is there") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  End<FileEntry> end;
  files.stat("/a", true, end.done());
  CHECK(files.busy());
  CHECK(wire.run_until([&] { return wire.hear().size() >= sizeof(msb_frame_header); }));
  CHECK(wire.hear() == frame_of(MSB_FILES));
  wire.say(kOpened);
  const msb_file_request fields{.flags = MSB_FILE_FOLLOW,
                                .mode = 0,
                                .user = kSameOwner,
                                .group = kSameOwner,
                                .offset = 0,
                                .length = 0};
  const std::string request = frame_of(MSB_FILE_STAT, fields, "/a\0"s);
  CHECK(wire.run_until([&] { return wire.hear() == frame_of(MSB_FILES) + request; }));
  wire.say(entry("/a") + done());
  CHECK(wire.run_until([&] { return end.over(); }));
  REQUIRE(end.value);
  CHECK(end.value->name == "/a");
  CHECK_FALSE(files.busy());
}

TEST_CASE("operations follow each other, also after a refusal, and from inside `done`") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  std::vector<std::string> order;
  files.mkdir("/d", 0755, 0, 0, MSB_FILE_PARENTS, [&](const Answer<void>& made) {
    order.push_back(made ? "made" : made.error().error.message);
    files.remove("/d", MSB_FILE_RECURSIVE, [&](const Answer<void>& removed) {
      order.push_back(removed ? "removed" : removed.error().error.message);
    });
  });
  wire.say(kOpened + frame_of(MSB_REFUSED, msb_failure{8, 17}, "it exists"));
  CHECK(wire.run_until([&] { return order.size() == 1; }));
  wire.say(done());
  CHECK(wire.run_until([&] { return order.size() == 2; }));
  CHECK(order == std::vector<std::string>{"it exists", "removed"});
}

TEST_CASE("a file is read piece by piece, as fast as its reader takes it") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  std::string content;
  End<std::uint64_t> end;
  files.read(
      "/f", 0, kWholeFile,
      [&](std::span<const std::byte> bytes) {
        content += text_of(bytes);
        return false;
      },
      end.done());
  wire.say(kOpened + frame_of(MSB_FILE_DATA, "ab") + frame_of(MSB_FILE_DATA, "c") + done(3));
  CHECK(wire.run_until([&] { return content == "ab"; }));
  files.resume();
  CHECK(wire.run_until([&] { return content == "abc"; }));
  CHECK_FALSE(end.over());
  files.resume();
  CHECK(wire.run_until([&] { return end.over(); }));
  CHECK(end.value == 3);
}

TEST_CASE("a file is written piece by piece, as fast as the guest takes it") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  constexpr int kPieces = 50;
  const std::string piece(100'000, 'x');
  int asked = 0;
  End<std::uint64_t> end;
  files.write(
      "/f", {.mode = 0600},
      [&] {
        if (asked++ < kPieces) {
          files.send(bytes_of(piece));
        } else {
          files.end_data();
        }
      },
      end.done());
  wire.say(kOpened);
  const std::string last = frame_of(MSB_FILE_DATA);
  CHECK(wire.run_until([&] { return wire.hear().ends_with(last) && asked > kPieces; }));
  CHECK(asked == kPieces + 1);
  CHECK(wire.hear().size() > kPieces * piece.size());
  wire.say(done(kPieces * piece.size()));
  CHECK(wire.run_until([&] { return end.over(); }));
  CHECK(end.value == kPieces * piece.size());
}

TEST_CASE("lists and walks give every entry, and what they say of their number is checked") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  std::vector<std::string> names;
  End<std::uint64_t> listed;
  files.list("/d", [&](const FileEntry& file) { names.push_back(file.name); }, listed.done());
  wire.say(kOpened + entry("a") + entry("l", S_IFLNK, "/target") + done(2));
  CHECK(wire.run_until([&] { return listed.over(); }));
  CHECK(listed.value == 2);
  End<std::uint64_t> walked;
  files.walk("/d", 0, [&](const FileEntry& file) { names.push_back(file.name); }, walked.done());
  wire.say(entry("s", S_IFDIR) + entry("s/..x") + done(3));
  CHECK(wire.run_until([&] { return walked.over(); }));
  CHECK(names == std::vector<std::string>{"a", "l", "s", "s/..x"});
  REQUIRE(walked.failure);
  CHECK(walked.failure->stage == 0);
}

TEST_CASE("names that lead out of their directory break the connection") {
  bool walk = false;
  std::string name;
  SUBCASE("list: slash") {
    name = "a/b";
  }
  SUBCASE("list: parent") {
    name = "..";
  }
  SUBCASE("list: itself") {
    name = ".";
  }
  SUBCASE("walk: absolute") {
    name = "/etc", walk = true;
  }
  SUBCASE("walk: parent") {
    name = "..", walk = true;
  }
  SUBCASE("walk: parent on the way") {
    name = "a/../../b", walk = true;
  }
  SUBCASE("walk: empty part") {
    name = "a//b", walk = true;
  }
  SUBCASE("walk: empty end") {
    name = "a/", walk = true;
  }
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  int entries = 0;
  End<std::uint64_t> end;
  const auto each = [&](const FileEntry&) { ++entries; };
  if (walk) {
    files.walk("/d", 0, each, end.done());
  } else {
    files.list("/d", each, end.done());
  }
  wire.say(kOpened + entry(name) + done(1));
  CHECK(wire.run_until([&] { return end.over(); }));
  CHECK(end.failure);
  CHECK(entries == 0);
  CHECK_FALSE(files.open());
}

TEST_CASE("a guest that sends what was not asked for breaks the connection") {
  std::string answer;
  SUBCASE("an entry") {
    answer = entry("a");
  }
  SUBCASE("too much") {
    answer = frame_of(MSB_FILE_DATA, "12345");
  }
  SUBCASE("another number of bytes") {
    answer = frame_of(MSB_FILE_DATA, "1234") + done(3);
  }
  SUBCASE("no number of bytes") {
    answer = frame_of(MSB_FILE_DATA, "1234") + done();
  }
  SUBCASE("another frame") {
    answer = frame_of(MSB_PONG);
  }
  SUBCASE("a stage that does not exist") {
    answer = frame_of(MSB_REFUSED, msb_failure{0, 0}, "");
  }
  SUBCASE("nothing more") {
    answer = "x";
  }
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  End<std::uint64_t> end;
  files.read("/f", 0, 4, [](std::span<const std::byte>) { return true; }, end.done());
  wire.say(kOpened + answer);
  if (answer == "x") {
    ::shutdown(wire.guest.get(), SHUT_WR);
  }
  CHECK(wire.run_until([&] { return end.over(); }));
  REQUIRE(end.failure);
  CHECK(end.failure->stage == 0);
  CHECK_FALSE(files.open());
  std::optional<std::uint32_t> stage;
  files.chmod("/f", 0600, 0, [&](const Answer<void>& changed) { stage = changed.error().stage; });
  CHECK(stage == 0U);
}

TEST_CASE("an answer to a write that has not ended breaks the connection") {
  std::string answer;
  SUBCASE("done") {
    answer = done(0);
  }
  SUBCASE("refused") {
    answer = frame_of(MSB_REFUSED, msb_failure{8, 28}, "full");
  }
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  End<std::uint64_t> end;
  files.write("/f", {}, [] {}, end.done());
  wire.say(kOpened + answer);
  CHECK(wire.run_until([&] { return end.over(); }));
  REQUIRE(end.failure);
  CHECK(end.failure->stage == 0);
}

TEST_CASE("a write that the guest cannot do fails after its end") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  End<std::uint64_t> end;
  files.unpack("/d", {}, [&] { files.end_data(); }, end.done());
  wire.say(kOpened);
  CHECK(wire.run_until([&] { return wire.hear().ends_with(frame_of(MSB_FILE_DATA)); }));
  wire.say(frame_of(MSB_REFUSED, msb_failure{8, 28}, "full"));
  CHECK(wire.run_until([&] { return end.over(); }));
  REQUIRE(end.failure);
  CHECK(end.failure->stage == MSB_STAGE_FILE);
  CHECK(end.failure->error.code == 28);
  CHECK(files.open());
}

TEST_CASE("a link's target is read whole, and not without end") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  End<std::string> end;
  files.readlink("/l", end.done());
  wire.say(kOpened + frame_of(MSB_FILE_DATA, "/target") + done());
  CHECK(wire.run_until([&] { return end.over(); }));
  CHECK(end.value == "/target");
  End<std::string> endless;
  files.readlink("/l", endless.done());
  wire.say(frame_of(MSB_FILE_DATA, std::string(4096, 'x')));
  CHECK(wire.run_until([&] { return endless.over(); }));
  CHECK(endless.failure);
}

TEST_CASE("a file service that is refused fails what waits for it") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  End<std::string> end;
  files.readlink("/l", end.done());
  wire.say("OK 1\n" + frame_of(MSB_REFUSED, msb_failure{3, 12}, "no memory"));
  CHECK(wire.run_until([&] { return end.over(); }));
  CHECK(end.failure->error.message == "no memory");
}

TEST_CASE("a path that the agent would not take fails in the call") {
  Wire wire;
  Files files(*wire.loop, std::move(wire.host));
  End<std::string> end;
  files.readlink("relative", end.done());
  REQUIRE(end.failure);
  CHECK(end.failure->stage == MSB_STAGE_REQUEST);
  CHECK_FALSE(files.busy());
}

TEST_CASE("files may be dropped from inside their own callbacks") {
  Wire wire;
  std::optional<Files> files(std::in_place, *wire.loop, std::move(wire.host));
  End<std::uint64_t> end;
  files->read(
      "/f", 0, kWholeFile,
      [&](std::span<const std::byte>) {
        files.reset();
        return true;
      },
      end.done());
  wire.say(kOpened + frame_of(MSB_FILE_DATA, "a") + frame_of(MSB_FILE_DATA, "b"));
  CHECK(wire.run_until([&] { return wire.closed(); }));
  CHECK_FALSE(end.over());
}

TEST_CASE("changes come with their kind, and nothing else does") {
  const auto ask = [](const std::string& answer, bool diff) {
    Wire wire;
    Files files(*wire.loop, std::move(wire.host));
    wire.say(kOpened + answer);
    End<std::uint64_t> end;
    std::string told;
    const auto each = [&](const FileEntry& found) {
      told += fmt::format("{}{} ", found.fields.change, found.name);
    };
    diff ? files.diff(each, end.done()) : files.walk("/", 0, each, end.done());
    CHECK(wire.run_until([&] { return end.over(); }));
    return end.value ? told : "refused: " + end.failure->error.message;
  };
  const auto change = [](const std::string& name, std::uint32_t kind) {
    msb_file_entry fields{};
    fields.mode = S_IFREG;
    fields.change = kind;
    return frame_of(MSB_FILE_ENTRY, fields, name + "\0\0"s);
  };
  CHECK(ask(change("etc", MSB_FILE_CHANGED) + change("etc/a", MSB_FILE_DELETED) + done(2), true) ==
        "2etc 3etc/a ");
  CHECK(ask(entry("etc") + done(1), true).starts_with("refused"));
  CHECK(ask(change("../etc", MSB_FILE_ADDED) + done(1), true).starts_with("refused"));
  CHECK(ask(change("etc", MSB_FILE_ADDED) + done(1), false).starts_with("refused"));
  CHECK(ask(done(1), true).starts_with("refused"));
}

}  // namespace
}  // namespace msb::protocol
