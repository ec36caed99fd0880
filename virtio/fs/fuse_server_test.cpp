// SPDX-License-Identifier: Apache-2.0
// Requests as a guest may write them (hostile-input.md 22, 30).
#include "virtio/fs/fuse_server.hpp"

#include <dirent.h>
#include <doctest/doctest.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace msb::virtio {
namespace {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kRoom = 1 << 20;
constexpr std::uint64_t kFileSize = 10000;

// /text ("hello world"), /empty, /dir/file (10000 bytes), /dir/n0 to /dir/n99
struct Fixture {
  SharedTree tree;
  std::uint64_t text, empty, dir, file;

  Fixture() {
    REQUIRE(tree.add_text("text", "hello world"));
    REQUIRE(tree.add_text("empty", ""));
    Fd data(::memfd_create("shared", MFD_CLOEXEC));
    REQUIRE(::ftruncate(data.get(), kFileSize) == 0);
    REQUIRE(tree.add_file("dir/file", std::move(data)));
    for (int i = 0; i < 100; ++i) {
      REQUIRE(tree.add_text("dir/n" + std::to_string(i), ""));
    }
    const SharedTree::Node& root = *tree.find(SharedTree::kRoot);
    text = tree.lookup(root, "text");
    empty = tree.lookup(root, "empty");
    dir = tree.lookup(root, "dir");
    file = tree.lookup(*tree.find(dir), "file");
  }

  // From the first request on the tree is the server's.
  FuseServer& server() {
    if (!server_) {
      server_.emplace(std::move(tree), OwnerRule(0, 0), ShareLimits{});
    }
    return *server_;
  }
  FuseAnswer ask(std::uint32_t opcode, std::uint64_t node, std::span<const std::byte> body = {},
                 std::size_t room = kRoom) {
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.opcode = opcode;
    header.unique = 77;
    header.nodeid = node;
    std::vector<std::byte> request(sizeof header);
    std::memcpy(request.data(), &header, sizeof header);
    request.insert(request.end(), body.begin(), body.end());
    return server().serve(request, request.size(), room);
  }
  template <typename T>
  FuseAnswer ask_with(std::uint32_t opcode, std::uint64_t node, const T& body,
                      std::size_t room = kRoom) {
    return ask(opcode, node, std::as_bytes(std::span(&body, 1)), room);
  }
  FuseAnswer ask_name(std::uint64_t node, std::string_view name) {
    return ask(FUSE_LOOKUP, node, std::as_bytes(std::span(name)));
  }
  FuseAnswer read(std::uint64_t node, std::uint64_t offset, std::uint32_t size,
                  std::size_t room = kRoom) {
    fuse_read_in in{};
    in.offset = offset;
    in.size = size;
    return ask_with(FUSE_READ, node, in, room);
  }
  FuseAnswer list(std::uint64_t node, std::uint64_t offset, std::uint32_t size,
                  std::size_t room = kRoom) {
    fuse_read_in in{};
    in.offset = offset;
    in.size = size;
    return ask_with(FUSE_READDIR, node, in, room);
  }

 private:
  std::optional<FuseServer> server_;
};

int error_of(const FuseAnswer& answer) {
  const auto* reply = std::get_if<FuseReply>(&answer);
  REQUIRE(reply != nullptr);
  return reply->error;
}

bool silent(const FuseAnswer& answer) {
  return std::holds_alternative<FuseSilence>(answer);
}

template <typename T>
T payload_of(const FuseAnswer& answer) {
  const auto* reply = std::get_if<FuseReply>(&answer);
  REQUIRE(reply != nullptr);
  CHECK(reply->error == 0);
  REQUIRE(reply->payload.size() == sizeof(T));
  T value;
  std::memcpy(&value, reply->payload.data(), sizeof value);
  return value;
}

struct Entry {
  std::string name;
  std::uint64_t offset, node;
  std::uint32_t type;
};

std::vector<Entry> entries_of(const FuseAnswer& answer) {
  const auto* reply = std::get_if<FuseReply>(&answer);
  REQUIRE(reply != nullptr);
  CHECK(reply->error == 0);
  std::vector<Entry> entries;
  std::size_t at = 0;
  while (at < reply->payload.size()) {
    fuse_dirent entry{};
    REQUIRE(reply->payload.size() - at >= FUSE_NAME_OFFSET);
    std::memcpy(&entry, &reply->payload[at], FUSE_NAME_OFFSET);
    REQUIRE(reply->payload.size() - at >= FUSE_DIRENT_SIZE(&entry));
    const auto* name = reinterpret_cast<const char*>(&reply->payload[at + FUSE_NAME_OFFSET]);
    entries.push_back({std::string(name, entry.namelen), entry.off, entry.ino, entry.type});
    at += FUSE_DIRENT_SIZE(&entry);
  }
  return entries;
}

TEST_CASE_FIXTURE(Fixture,
                  "INIT answers with this protocol's version and only flags that were offered") {
  fuse_init_in in{};
  in.major = FUSE_KERNEL_VERSION;
  in.minor = 39;
  in.max_readahead = 0x12345;
  in.flags = 0xffff'ffff;
  auto out = payload_of<fuse_init_out>(ask_with(FUSE_INIT, 0, in));
  CHECK(out.major == FUSE_KERNEL_VERSION);
  CHECK(out.minor == 39);
  CHECK(out.max_readahead == 0x12345);
  CHECK(out.max_pages == kFuseMaxPages);
  CHECK((out.flags & FUSE_WRITEBACK_CACHE) == 0);
  CHECK((out.flags & FUSE_MAX_PAGES) != 0);

  in.flags = 0;
  in.minor = 12;
  out = payload_of<fuse_init_out>(ask_with(FUSE_INIT, kMax, in));
  CHECK(out.minor == 12);
  CHECK(out.flags == 0);
  in.major = 8;
  CHECK(payload_of<fuse_init_out>(ask_with(FUSE_INIT, 0, in)).major == FUSE_KERNEL_VERSION);
  in.major = 0;
  CHECK(payload_of<fuse_init_out>(ask_with(FUSE_INIT, 0, in)).major == FUSE_KERNEL_VERSION);
}

TEST_CASE_FIXTURE(Fixture, "LOOKUP finds what is there, for good") {
  const auto root = SharedTree::kRoot;
  const auto found = payload_of<fuse_entry_out>(ask_name(root, {"text\0", 5}));
  CHECK(found.nodeid == text);
  CHECK(found.attr.ino % (std::uint64_t{1} << 48) == text);
  CHECK(found.attr.size == 11);
  CHECK(found.attr.mode == (S_IFREG | 0444));
  CHECK(found.attr_valid > 0);
  const auto directory = payload_of<fuse_entry_out>(ask_name(root, {"dir\0", 4}));
  CHECK(directory.nodeid == dir);
  CHECK(directory.attr.mode == (S_IFDIR | 0555));
  for (const std::string_view name :
       {std::string_view("\0", 1), std::string_view(".\0", 2), std::string_view("..\0", 3),
        std::string_view("dir/file\0", 9), std::string_view("../etc\0", 7),
        std::string_view("tex\0t\0", 6), std::string_view("\xff\xfe\0", 3)}) {
    const auto none = payload_of<fuse_entry_out>(ask_name(root, name));
    CHECK(none.nodeid == 0);
    CHECK(none.entry_valid == 0);  // a share may be added
  }
  CHECK(payload_of<fuse_entry_out>(ask_name(root, {"text\0rubbish", 12})).nodeid == text);
  CHECK(error_of(ask_name(text, {"x\0", 2})) == -ENOTDIR);
}

TEST_CASE_FIXTURE(Fixture, "a name without an end is refused") {
  CHECK(error_of(ask_name(SharedTree::kRoot, "")) == -EINVAL);
  CHECK(error_of(ask_name(SharedTree::kRoot, "text")) == -EINVAL);
  CHECK(error_of(ask_name(SharedTree::kRoot, std::string(255, 'x'))) == -EINVAL);
  CHECK(error_of(ask_name(SharedTree::kRoot, std::string(256, 'x'))) == -ENAMETOOLONG);
  CHECK(error_of(ask_name(SharedTree::kRoot, std::string(4000, 'x'))) == -ENAMETOOLONG);
}

TEST_CASE_FIXTURE(Fixture, "GETATTR describes files and directories") {
  const auto out = payload_of<fuse_attr_out>(ask_with(FUSE_GETATTR, file, fuse_getattr_in{}));
  CHECK(out.attr.size == kFileSize);
  CHECK(out.attr.blocks == 20);
  CHECK(out.attr.ino % (std::uint64_t{1} << 48) == file);
  CHECK(payload_of<fuse_attr_out>(ask(FUSE_GETATTR, SharedTree::kRoot)).attr.mode ==
        (S_IFDIR | 0555));
}

TEST_CASE_FIXTURE(Fixture, "READ is cut at the end of the file and at the room for the reply") {
  struct Row {
    std::uint64_t offset;
    std::uint32_t size;
    std::size_t room;
    std::uint64_t expected;
  };
  constexpr std::uint32_t kBig = 0xffff'ffff;
  const Row rows[] = {
      {0, 1, kRoom, 1},
      {0, kFileSize, kRoom, kFileSize},
      {0, kFileSize + 1, kRoom, kFileSize},
      {0, kBig, kRoom, kFileSize},
      {0, kBig, 4096, 4096},
      {0, kBig, 1, 1},
      {0, kBig, 0, 0},
      {0, 0, kRoom, 0},
      {1, kBig, kRoom, kFileSize - 1},
      {kFileSize - 1, 1, kRoom, 1},
      {kFileSize - 1, 2, kRoom, 1},
      {kFileSize, 1, kRoom, 0},
      {kFileSize + 1, 1, kRoom, 0},
      {std::uint64_t{1} << 63, kBig, kRoom, 0},
      {kMax, kBig, kRoom, 0},
      {kMax - kFileSize, kBig, kRoom, 0},
      {0, kBig, ~std::size_t{0}, kFileSize},
  };
  for (const Row& row : rows) {
    CAPTURE(row.offset);
    CAPTURE(row.size);
    const FuseAnswer answer = read(file, row.offset, row.size, row.room);
    if (row.expected == 0) {
      CHECK(error_of(answer) == 0);
      CHECK(std::get<FuseReply>(answer).payload.empty());
      continue;
    }
    const auto* fetch = std::get_if<FuseRead>(&answer);
    REQUIRE(fetch != nullptr);
    CHECK(fetch->file >= 0);
    CHECK(fetch->offset == row.offset);
    CHECK(fetch->size == row.expected);
  }
  CHECK(error_of(read(empty, 0, 100)) == 0);
  CHECK(error_of(read(dir, 0, 100)) == -EISDIR);
  CHECK(std::get<FuseReply>(read(text, 6, 100)).payload.size() == 5);
}

TEST_CASE_FIXTURE(
    Fixture,
    "READ gives no more at a time than INIT allows, so that the reply's length fits its field") {
  Fd data(::memfd_create("shared", MFD_CLOEXEC));
  REQUIRE(::ftruncate(data.get(), std::int64_t{8} << 30) == 0);
  REQUIRE(tree.add_file("huge", std::move(data)));
  const std::uint64_t huge = tree.lookup(*tree.find(SharedTree::kRoot), "huge");
  constexpr std::uint64_t kAllowed = kFuseMaxPages * 4096;
  CHECK(std::get<FuseRead>(read(huge, 0, kAllowed, ~std::size_t{0})).size == kAllowed);
  CHECK(std::get<FuseRead>(read(huge, 0, 0xffff'ffff, ~std::size_t{0})).size == kAllowed);
  const auto last =
      std::get<FuseRead>(read(huge, (std::uint64_t{8} << 30) - 5, 0xffff'ffff, ~std::size_t{0}));
  CHECK(last.size == 5);
}

TEST_CASE_FIXTURE(Fixture, "READDIR in pieces of any size gives each entry exactly once") {
  for (const std::uint32_t size :
       {32U, 33U, 40U, 56U, 64U, 100U, 200U, 1000U, 4096U, 65536U, 0xffff'ffffU}) {
    for (const bool by_room : {false, true}) {
      CAPTURE(size);
      std::set<std::string> names;
      std::uint64_t offset = 0;
      int rounds = 0;
      while (true) {
        const FuseAnswer answer =
            by_room ? list(dir, offset, 0xffff'ffff, size) : list(dir, offset, size);
        REQUIRE(std::get<FuseReply>(answer).payload.size() <= size);
        const auto entries = entries_of(answer);
        if (entries.empty()) {
          break;
        }
        for (const Entry& entry : entries) {
          CHECK(names.insert(entry.name).second);
          CHECK(entry.offset > offset);
          CHECK(entry.type == (entry.name == "." || entry.name == ".." ? DT_DIR : DT_REG));
          offset = entry.offset;
        }
        REQUIRE(++rounds <= 103);
      }
      CHECK(names.size() == 103);  // ".", "..", "file" and a hundred more
      CHECK(names.contains(".."));
      CHECK(names.contains("n99"));
    }
  }
}

TEST_CASE_FIXTURE(Fixture,
                  "READDIR from an offset that is no entry's ends, and needs a directory") {
  for (const std::uint64_t offset :
       {std::uint64_t{103}, std::uint64_t{104}, std::uint64_t{1} << 32, kMax - 1, kMax}) {
    CHECK(entries_of(list(dir, offset, 4096)).empty());
  }
  CHECK(entries_of(list(dir, 102, 4096)).size() == 1);
  CHECK(error_of(list(text, 0, 4096)) == -ENOTDIR);
  CHECK(entries_of(list(SharedTree::kRoot, 0, 4096)).size() == 5);
}

TEST_CASE_FIXTURE(Fixture, "a READDIR reply is bounded whatever is asked for") {
  SharedTree large;
  for (int i = 0; i < 3000; ++i) {
    REQUIRE(large.add_text("a-rather-long-name-to-fill-the-reply-" + std::to_string(i), ""));
  }
  tree = std::move(large);
  const FuseAnswer answer = list(SharedTree::kRoot, 0, 0xffff'ffff, ~std::size_t{0});
  CHECK(std::get<FuseReply>(answer).payload.size() <= 64 * 1024);
  CHECK(entries_of(answer).size() > 500);
}

TEST_CASE_FIXTURE(Fixture, "what changes something is refused as on a read-only file system") {
  const std::array<std::byte, 128> body{};
  for (const std::uint32_t opcode :
       {FUSE_SETATTR, FUSE_MKNOD, FUSE_MKDIR, FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME, FUSE_RENAME2,
        FUSE_LINK, FUSE_SYMLINK, FUSE_WRITE, FUSE_CREATE, FUSE_TMPFILE, FUSE_SETXATTR,
        FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE}) {
    CAPTURE(opcode);
    CHECK(error_of(ask(opcode, text, body)) == -EROFS);
    CHECK(error_of(ask(opcode, text)) == -EROFS);
    CHECK(error_of(ask(opcode, 12345, body)) == -ENOENT);
  }
}

TEST_CASE_FIXTURE(Fixture,
                  "FORGET, BATCH_FORGET and INTERRUPT get no answer, however wrong they are") {
  const std::array<std::byte, 16> body{};
  fuse_forget_in forget{};
  forget.nlookup = kMax;
  for (const std::uint64_t node : {std::uint64_t{0}, SharedTree::kRoot, text, kMax}) {
    CHECK(silent(ask_with(FUSE_FORGET, node, forget)));
    CHECK(silent(ask_with(FUSE_FORGET, node, forget)));  // more than was ever looked up
    CHECK(silent(ask(FUSE_FORGET, node)));
    CHECK(silent(ask(FUSE_BATCH_FORGET, node, body)));
    CHECK(silent(ask(FUSE_INTERRUPT, node, body)));
  }
  CHECK(error_of(ask(FUSE_GETATTR, text)) == 0);
  CHECK(error_of(ask(FUSE_DESTROY, 0)) == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "operations that the tree does not have say so, and unknown nodes come first") {
  const std::array<std::byte, 64> body{};
  for (const std::uint32_t opcode :
       {0U, 7U, 19U, 53U, 100U, 4096U, 0x7fff'ffffU, 0xffff'ffffU,
        std::uint32_t{CUSE_INIT_BSWAP_RESERVED}, std::uint32_t{FUSE_INIT_BSWAP_RESERVED},
        std::uint32_t{FUSE_ACCESS}, std::uint32_t{FUSE_IOCTL}, std::uint32_t{FUSE_POLL},
        std::uint32_t{FUSE_SETUPMAPPING}}) {
    CAPTURE(opcode);
    CHECK(error_of(ask(opcode, text, body)) == -ENOSYS);
    CHECK(error_of(ask(opcode, 12345, body)) == -ENOENT);
  }
  CHECK(error_of(ask(FUSE_READLINK, text)) == -EINVAL);
  CHECK(payload_of<fuse_statfs_out>(ask(FUSE_STATFS, SharedTree::kRoot)).st.namelen == 255);
}

TEST_CASE_FIXTURE(Fixture,
                  "every operation on every kind of node, cut at every length, is answered") {
  std::size_t answers = 0;
  for (std::uint32_t opcode = 0; opcode < 60; ++opcode) {
    for (const std::uint64_t node : {std::uint64_t{0}, SharedTree::kRoot, dir, file, text, kMax}) {
      for (const std::byte filler : {std::byte{0}, std::byte{0xff}}) {
        std::vector<std::byte> whole(sizeof(fuse_in_header) + 96, filler);
        for (std::size_t size = 0; size <= whole.size(); ++size) {
          fuse_in_header header{};
          header.len = static_cast<std::uint32_t>(size);
          header.opcode = opcode;
          header.nodeid = node;
          std::memcpy(whole.data(), &header, sizeof header);
          // A vector of exactly this size: what reads beyond it is found.
          const std::vector<std::byte> request(whole.begin(),
                                               whole.begin() + static_cast<std::ptrdiff_t>(size));
          const FuseAnswer answer = server().serve(request, size, 4096);
          if (silent(answer) != (size < sizeof header || opcode == FUSE_FORGET ||
                                 opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT)) {
            FAIL("opcode ", opcode, " with ", size, " bytes was answered by silence, or was not");
          }
          if (const auto* reply = std::get_if<FuseReply>(&answer)) {
            if (reply->error > 0 || reply->error < -200 || reply->payload.size() > 4096) {
              FAIL("opcode ", opcode, " with ", size, " bytes: error ", reply->error);
            }
          }
          ++answers;
        }
      }
    }
  }
  MESSAGE(answers, " requests");
}

TEST_CASE_FIXTURE(Fixture, "a length in the header that is not the request's is refused") {
  fuse_in_header header{};
  header.opcode = FUSE_GETATTR;
  header.nodeid = text;
  for (const std::uint32_t length : {0U, 1U, 39U, 41U, 56U, 4096U, 0x7fff'ffffU, 0xffff'ffffU}) {
    header.len = length;
    CHECK(error_of(server().serve(std::as_bytes(std::span(&header, 1)), sizeof header, kRoom)) ==
          -EINVAL);
  }
  // Also when only the cut request has that length.
  header.len = sizeof header;
  CHECK(error_of(server().serve(std::as_bytes(std::span(&header, 1)), sizeof header + 1, kRoom)) ==
        -EINVAL);
  CHECK(error_of(server().serve(std::as_bytes(std::span(&header, 1)),
                                (std::size_t{1} << 32) + sizeof header, kRoom)) == -EINVAL);
}

TEST_CASE_FIXTURE(Fixture, "random requests are answered within the room that they have") {
  std::mt19937_64 random(30);
  for (int i = 0; i < 200'000; ++i) {
    std::array<std::uint64_t, 14> words{};
    for (std::uint64_t& word : words) {
      word = random() % 4 == 0 ? random() : random() % 16;
    }
    const std::size_t size = random() % 2 == 0 ? sizeof words : random() % sizeof words;
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(size);
    header.opcode = static_cast<std::uint32_t>(random() % 56);
    header.nodeid = random() % 8;
    std::memcpy(words.data(), &header, sizeof header);
    const auto request = std::as_bytes(std::span(words)).first(size);
    const std::size_t room = random() % 256;
    const FuseAnswer answer = server().serve(request, size, room);
    if (const auto* fetch = std::get_if<FuseRead>(&answer)) {
      if (fetch->size == 0 || fetch->size > room || fetch->offset > kFileSize ||
          fetch->size > kFileSize - fetch->offset) {
        FAIL("a read of ", fetch->size, " bytes at ", fetch->offset);
      }
    }
  }
}

}  // namespace
}  // namespace msb::virtio
