// SPDX-License-Identifier: Apache-2.0
// Locks in shared files: between processes of a guest, and with the host's.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>

#include "base/fd.hpp"
#include "virtio/testing/fuse_client.hpp"
#include "virtio/testing/share_fixture.hpp"

namespace msb::virtio {
namespace {

namespace fs = std::filesystem;

using testing::FuseClient;
using testing::put;

constexpr std::uint64_t kEnd = INT64_MAX;

struct LockFixture : testing::ShareFixture {
  explicit LockFixture(bool read_only = false, const ShareLimits& limits = {})
      : ShareFixture(read_only, limits) {
    put(host() / "file", "content");
    node = guest.walk(work, "file");
    file = open(read_only ? O_RDONLY : O_RDWR);
    other = Fd(::open((host() / "file").c_str(), O_RDWR | O_CLOEXEC));
  }
  std::uint64_t open(std::uint32_t flags) { return guest.open(node, flags).as<fuse_open_out>().fh; }
  FuseClient::Reply ask(std::uint32_t opcode, std::uint64_t owner, std::uint32_t type,
                        std::uint64_t first, std::uint64_t last, std::uint64_t handle = 0,
                        std::uint32_t lk_flags = 0) {
    fuse_lk_in in{};
    in.fh = handle == 0 ? file : handle;
    in.owner = owner;
    in.lk = {first, last, type, 0};
    in.lk_flags = lk_flags;
    return guest.ask_with(opcode, node, in);
  }
  int lock(std::uint64_t owner, std::uint32_t type, std::uint64_t first = 0,
           std::uint64_t last = kEnd) {
    return ask(FUSE_SETLK, owner, type, first, last).error;
  }
  int flock(std::uint64_t handle, std::uint32_t type) {
    return ask(FUSE_SETLK, 1, type, 0, kEnd, handle, FUSE_LK_FLOCK).error;
  }
  // Whether a program of the host could lock bytes.
  [[nodiscard]] bool free_on_host(short type, off_t first = 0, off_t length = 0) const {
    struct flock wanted{};
    wanted.l_type = type;
    wanted.l_start = first;
    wanted.l_len = length;
    REQUIRE(::fcntl(other.get(), F_OFD_GETLK, &wanted) == 0);
    return wanted.l_type == F_UNLCK;
  }
  [[nodiscard]] int lock_on_host(short type, off_t first, off_t length) const {
    struct flock wanted{};
    wanted.l_type = type;
    wanted.l_start = first;
    wanted.l_len = length;
    return ::fcntl(other.get(), F_OFD_SETLK, &wanted);
  }
  [[nodiscard]] const FileLocks& locks() const { return server.files().locks(); }

  std::uint64_t node = 0;
  std::uint64_t file = 0;
  Fd other;
};

TEST_CASE_FIXTURE(LockFixture, "locks keep out other owners and the host, and it them") {
  CHECK(lock(1, F_WRLCK, 0, 9) == 0);
  CHECK(lock(2, F_WRLCK, 5, 20) == -EAGAIN);
  CHECK(lock(2, F_RDLCK, 10, 20) == 0);
  CHECK(!free_on_host(F_RDLCK, 0, 10));
  CHECK(free_on_host(F_RDLCK, 10, 0));
  CHECK(!free_on_host(F_WRLCK, 10, 0));
  CHECK(lock_on_host(F_WRLCK, 100, 10) == 0);
  CHECK(lock(1, F_RDLCK) == -EAGAIN);
  const auto found = ask(FUSE_GETLK, 1, F_RDLCK, 21, kEnd).as<fuse_lk_out>().lk;
  CHECK(found.start == 100);
  CHECK(found.end == 109);
  CHECK(found.type == F_WRLCK);
  CHECK(ask(FUSE_GETLK, 1, F_WRLCK, 0, 9).as<fuse_lk_out>().lk.type == F_UNLCK);
  // There is no waiting for one: this guest's kernel does it.
  CHECK(ask(FUSE_SETLKW, 1, F_RDLCK, 100, 100).error == -EOPNOTSUPP);
  CHECK(ask(FUSE_SETLKW, 1, F_RDLCK, 50, 60).error == 0);
}

TEST_CASE_FIXTURE(LockFixture, "an owner with nothing locked holds nothing open") {
  CHECK(lock(1, F_UNLCK) == 0);
  CHECK(lock(1, F_WRLCK, 0, 9) == 0);
  CHECK(lock(1, F_UNLCK, 3, 4) == 0);
  CHECK(locks().owners() == 1);
  CHECK(locks().ranges() == 2);
  CHECK(lock(1, F_UNLCK, 5, 100) == 0);
  CHECK(lock(1, F_UNLCK, 0, 2) == 0);
  CHECK(locks().owners() == 0);
  CHECK(lock(1, F_WRLCK, 0, 9) == 0);
  CHECK(lock(2, F_WRLCK, 5, 6) == -EAGAIN);
  CHECK(locks().owners() == 1);
  CHECK(free_on_host(F_WRLCK, 10, 0));
}

TEST_CASE_FIXTURE(LockFixture, "locks end with a flush of their owner, the node, and the guest") {
  CHECK(lock(1, F_WRLCK, 0, 0) == 0);
  CHECK(lock(2, F_WRLCK, 1, 1) == 0);
  CHECK(guest.ask_with(FUSE_FLUSH, node, fuse_flush_in{file, 0, 0, 1}).error == 0);
  CHECK(free_on_host(F_WRLCK, 0, 1));
  CHECK(!free_on_host(F_WRLCK, 1, 1));
  CHECK(guest.release(node, file).error == 0);
  guest.forget(node, 1);
  CHECK(free_on_host(F_WRLCK));
  node = guest.walk(work, "file");
  file = open(O_RDWR);
  CHECK(lock(1, F_WRLCK) == 0);
  server.reset();
  CHECK(free_on_host(F_WRLCK));
}

TEST_CASE_FIXTURE(LockFixture, "flock belongs to the open file") {
  const std::uint64_t second = open(O_RDONLY);
  CHECK(flock(file, F_WRLCK) == 0);
  CHECK(flock(second, F_RDLCK) == -EAGAIN);
  CHECK(::flock(other.get(), LOCK_SH | LOCK_NB) != 0);
  CHECK(flock(file, F_RDLCK) == 0);
  CHECK(flock(second, F_RDLCK) == 0);
  CHECK(flock(file, F_UNLCK) == 0);
  CHECK(guest.release(node, second).error == 0);
  CHECK(::flock(other.get(), LOCK_EX | LOCK_NB) == 0);
  CHECK(flock(file, F_RDLCK) == -EAGAIN);
}

TEST_CASE("locks of a share that is only read do not reach the host") {
  LockFixture share(true);
  CHECK(share.lock(1, F_RDLCK) == -EOPNOTSUPP);
  CHECK(share.flock(share.file, F_WRLCK) == -EOPNOTSUPP);
  CHECK(share.ask(FUSE_GETLK, 1, F_RDLCK, 0, 1).error == -EOPNOTSUPP);
  CHECK(share.free_on_host(F_WRLCK));
}

TEST_CASE("a guest has so many locks and no more, and can always unlock a file") {
  LockFixture share(false, {.locks = 8, .lock_owners = 2});
  CHECK(share.lock(1, F_WRLCK, 0, 99) == 0);
  int refused = 0;
  for (std::uint64_t at = 1; at < 99; at += 2) {
    refused += share.lock(1, F_UNLCK, at, at) == -ENOLCK ? 1 : 0;
  }
  CHECK(refused > 0);
  CHECK(share.locks().ranges() <= 8);
  CHECK(share.lock(2, F_RDLCK, 200, 200) == -ENOLCK);
  CHECK(share.lock(1, F_UNLCK) == 0);
  CHECK(share.free_on_host(F_WRLCK));
  CHECK(share.lock(1, F_RDLCK, 0, 0) == 0);
  CHECK(share.lock(2, F_RDLCK, 0, 0) == 0);
  CHECK(share.lock(3, F_RDLCK, 0, 0) == -ENOLCK);
  CHECK(share.locks().owners() == 2);
}

TEST_CASE_FIXTURE(LockFixture, "a file is open for writing on the host only for locks to write") {
  const fs::path program = host() / "program";
  fs::copy_file("/bin/true", program);
  const std::uint64_t running = guest.walk(work, "program");
  const std::uint64_t handle = guest.open(running, O_RDONLY).as<fuse_open_out>().fh;
  fuse_lk_in in{};
  in.fh = handle;
  in.owner = 1;
  in.lk = {0, 9, F_RDLCK, 0};
  CHECK(guest.ask_with(FUSE_SETLK, running, in).error == 0);
  CHECK(std::system(program.c_str()) == 0);
  in.lk.type = F_WRLCK;
  CHECK(guest.ask_with(FUSE_GETLK, running, in).as<fuse_lk_out>().lk.type == F_UNLCK);
  CHECK(guest.ask_with(FUSE_SETLK, running, in).error == -EBADF);

  // What is locked to read stays so while more is locked to write.
  CHECK(lock(1, F_RDLCK, 0, 9) == 0);
  CHECK(lock(2, F_RDLCK, 0, 4) == 0);
  CHECK(lock(1, F_WRLCK, 20, 29) == 0);
  CHECK(lock(1, F_WRLCK, 0, 9) == -EAGAIN);
  CHECK(!free_on_host(F_WRLCK, 5, 5));
  CHECK(free_on_host(F_RDLCK, 0, 10));
  CHECK(lock(2, F_UNLCK) == 0);
  CHECK(lock(1, F_WRLCK, 0, 9) == 0);
  CHECK(!free_on_host(F_RDLCK, 0, 10));
}

TEST_CASE_FIXTURE(LockFixture, "impossible locks are refused") {
  CHECK(lock(1, F_WRLCK, 5, 4) == -EINVAL);
  CHECK(lock(1, F_WRLCK, 0, kEnd + 1) == -EINVAL);
  CHECK(lock(1, F_WRLCK, ~std::uint64_t{0}, ~std::uint64_t{0}) == -EINVAL);
  CHECK(lock(1, 3) == -EINVAL);
  CHECK(lock(1, 65536) == -EINVAL);
  CHECK(lock(1, F_WRLCK, kEnd, kEnd) == 0);
  CHECK(!free_on_host(F_WRLCK, static_cast<off_t>(kEnd), 1));
  CHECK(lock(1, F_UNLCK, kEnd, kEnd) == 0);
  CHECK(ask(FUSE_SETLK, 1, F_WRLCK, 0, 1, open(O_RDONLY)).error == -EBADF);
  CHECK(ask(FUSE_SETLK, 1, F_WRLCK, 0, 1, 999).error == -EBADF);
  CHECK(flock(file, 3) == -EINVAL);
}

}  // namespace
}  // namespace msb::virtio
