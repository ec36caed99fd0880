// SPDX-License-Identifier: Apache-2.0
// Shared directories as a guest uses them.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <linux/posix_acl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "virtio/fs/fuse_server.hpp"
#include "virtio/fs/posix_acl.hpp"
#include "virtio/fs/xattr_names.hpp"
#include "virtio/testing/acl_bytes.hpp"
#include "virtio/testing/fuse_client.hpp"
#include "virtio/testing/share_fixture.hpp"

namespace msb::virtio {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::FuseClient;
using testing::kUnknown;
using testing::put;
using Fixture = testing::ShareFixture;

TEST_CASE_FIXTURE(Fixture, "a file is made, written, read, renamed and removed") {
  const auto created = guest.create(work, "file", 0644);
  const std::uint64_t node = FuseClient::entry(created).nodeid;
  const std::uint64_t file = FuseClient::handle(created);
  CHECK(guest.write(node, file, 0, "hello world").as<fuse_write_out>().size == 11);
  CHECK(content_of(host() / "file") == "hello world");
  CHECK(guest.read(node, file, 6, 100).text() == "world");
  CHECK(guest.attr(node).size == 11);
  CHECK(guest.rename(work, "file", work, "other").error == 0);
  CHECK(guest.lookup(work, "file").as<fuse_entry_out>().nodeid == 0);
  CHECK(guest.lookup(work, "other").as<fuse_entry_out>().nodeid == node);
  CHECK(guest.unlink(work, "other").error == 0);
  CHECK(guest.attr(node).nlink == 0);
  CHECK(guest.read(node, file, 0, 5).text() == "hello");
  CHECK(guest.release(node, file).error == 0);
  CHECK(fs::is_empty(host()));
}

TEST_CASE_FIXTURE(Fixture,
                  "names of one file are one node, and a new file at an old name is another") {
  put(host() / "one", "1");
  fs::create_hard_link(host() / "one", host() / "two");
  const std::uint64_t node = guest.walk(work, "one");
  CHECK(guest.walk(work, "two") == node);
  fs::remove(host() / "one");
  put(host() / "one", "new");
  const std::uint64_t other = guest.walk(work, "one");
  CHECK(other != node);
  CHECK(guest.attr(other).size == 3);
  CHECK(guest.attr(node).size == 1);  // by its other name
}

TEST_CASE_FIXTURE(Fixture,
                  "a directory is listed whole in pieces of any size, also while it shrinks") {
  std::set<std::string> expected{".", ".."};
  for (int i = 0; i < 300; ++i) {
    const std::string name = "entry-" + std::to_string(i);
    put(host() / name, "");
    expected.insert(name);
  }
  for (const bool plus : {false, true}) {
    for (const std::uint32_t size : {300U, 1000U, 4096U, 65536U, 1U << 20}) {
      CAPTURE(size);
      std::set<std::string> names;
      for (const auto& entry : guest.list(work, plus, size)) {
        CHECK(names.insert(entry.name).second);
        CHECK((entry.node != 0) == (plus && entry.name.size() > 2));
      }
      CHECK(names == expected);
    }
  }
}

TEST_CASE_FIXTURE(Fixture, "a directory is listed from any offset that a guest invents") {
  put(host() / "file", "");
  const auto opened = guest.ask_with(FUSE_OPENDIR, work, fuse_open_in{}).as<fuse_open_out>();
  for (const std::uint64_t offset :
       {std::uint64_t{1}, std::uint64_t{77}, kUnknown >> 1, kUnknown}) {
    fuse_read_in in{};
    in.fh = opened.fh;
    in.offset = offset;
    in.size = 4096;
    const auto reply = guest.ask_with(FUSE_READDIR, work, in);
    CHECK((reply.error == 0 || reply.error == -EINVAL));
  }
}

TEST_CASE_FIXTURE(Fixture, "a rename leaves a whiteout, which can be told from a device") {
  put(host() / "file", "content");
  const std::uint64_t node = guest.walk(work, "file");
  REQUIRE(guest.rename(work, "file", work, "other", RENAME_WHITEOUT).error == 0);
  CHECK(guest.walk(work, "other") == node);
  const fuse_attr whiteout = guest.attr(guest.walk(work, "file"));
  CHECK(S_ISCHR(whiteout.mode));
  CHECK(whiteout.rdev == 0);
  CHECK(guest.open(guest.walk(work, "file"), O_RDONLY).error == -ENXIO);
  CHECK(guest.unlink(work, "file").error == 0);
  CHECK(content_of(host() / "other") == "content");
}

TEST_CASE_FIXTURE(Fixture, "a share that ends takes what is open there with it, and no other") {
  fs::create_directory(host() / "other");
  put(host() / "file", "content");
  Fd root(::open((host() / "other").c_str(), O_PATH | O_CLOEXEC));
  const auto opened = server.open_share(std::move(root), false, ShareCache::kAuto);
  REQUIRE(opened);
  REQUIRE(server.show_share("second", *opened));
  const std::uint64_t second = guest.walk(1, "second");
  const std::uint64_t file = guest.walk(work, "file");
  const auto handle = guest.open(file, O_RDWR).as<fuse_open_out>().fh;
  const auto made = guest.create(second, "made", 0644);
  fuse_lk_in lock{};
  lock.fh = handle;
  lock.owner = 1;
  lock.lk = {0, 10, F_WRLCK, 0};
  CHECK(guest.ask_with(FUSE_SETLK, file, lock).error == 0);

  const auto first = server.hide_share("work");
  REQUIRE(first != nullptr);
  CHECK(server.hide_share("work") == nullptr);
  CHECK(guest.walk(1, "work") == 0);
  // Already before it is closed.
  CHECK(guest.read(file, handle, 0, 10).error == -EBADF);
  CHECK(guest.getattr(file).error == -ESTALE);
  server.close_share(*first);
  CHECK(guest.read(file, handle, 0, 10).error == -EBADF);
  CHECK(guest.getattr(file).error == -ESTALE);
  CHECK(guest.getattr(work).error == -ESTALE);
  CHECK(guest.create(work, "new", 0644).error == -ESTALE);
  CHECK(guest.link(FuseClient::entry(made).nodeid, work, "linked").error == -ESTALE);
  CHECK(server.files().locks().owners() == 0);
  CHECK(guest.write(FuseClient::entry(made).nodeid, FuseClient::handle(made), 0, "on").error == 0);
  CHECK(content_of(host() / "other/made") == "on");
  server.close_share(*first);  // again is nothing
  CHECK(server.files().open_handles() == 1);
}

TEST_CASE_FIXTURE(Fixture, "names beside a file that was locked are not kept in the guest") {
  fs::create_directory(host() / "elsewhere");
  for (const char* name : {"database", "journal", "elsewhere/file"}) {
    put(host() / name, "content");
  }
  const std::uint64_t database = guest.walk(work, "database");
  const auto valid = [&](std::uint64_t directory, const char* name) {
    const auto found = guest.lookup(directory, name).as<fuse_entry_out>();
    CHECK(found.attr_valid == found.entry_valid);
    return found.entry_valid;
  };
  fuse_lk_in lock{};
  lock.fh = guest.open(database, O_RDWR).as<fuse_open_out>().fh;
  lock.owner = 1;
  lock.lk = {0, 10, F_UNLCK, 0};
  CHECK(guest.ask_with(FUSE_SETLK, database, lock).error == 0);
  CHECK(valid(work, "journal") == 1);
  lock.lk.type = F_RDLCK;
  CHECK(guest.ask_with(FUSE_SETLK, database, lock).error == 0);
  CHECK(valid(work, "journal") == 0);
  CHECK(valid(work, "database") == 0);
  CHECK(valid(guest.walk(work, "elsewhere"), "file") == 1);
}

TEST_CASE_FIXTURE(Fixture, "an append goes where the end is by then") {
  put(host() / "log", "one\n");
  const std::uint64_t node = guest.walk(work, "log");
  const auto file = guest.open(node, O_WRONLY | O_APPEND).as<fuse_open_out>().fh;
  std::ofstream(host() / "log", std::ios::app) << "two\n";
  CHECK(guest.write(node, file, 4, "three\n", 0, O_WRONLY | O_APPEND).error == 0);
  CHECK(content_of(host() / "log") == "one\ntwo\nthree\n");
}

}  // namespace
}  // namespace msb::virtio
