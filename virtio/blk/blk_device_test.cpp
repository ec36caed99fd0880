// SPDX-License-Identifier: Apache-2.0
#include "virtio/blk/blk_device.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "virtio/testing/blk_guest.hpp"

namespace msb::virtio {
namespace {

using testing::BlkGuest;
using testing::FakeIo;
using testing::kDiskSectors;
using testing::kPage;
using testing::make_file;
using testing::pattern;

constexpr std::uint32_t kSector = kBlkSectorSize;

BlkConfig config_of(const BlkDevice& device) {
  BlkConfig config{};
  REQUIRE(device.config().size() == sizeof config);
  std::memcpy(&config, device.config().data(), sizeof config);
  return config;
}

TEST_CASE("a disk says how big it is and what it can do") {
  const BlkGuest guest;
  const BlkConfig config = config_of(guest.device);
  CHECK(guest.device.type() == 2);
  CHECK(std::uint64_t{config.capacity} == kDiskSectors);
  CHECK(std::uint32_t{config.seg_max} == 254);  // and a header and a status: all of the queue
  CHECK(std::uint32_t{config.blk_size} == 512);
  CHECK(config.physical_block_exp == 3);
  CHECK((guest.device.features() & kBlkFeatureFlush) != 0);
  CHECK((guest.device.features() & kBlkFeatureReadOnly) == 0);
  const BlkGuest fixed(true);
  CHECK((fixed.device.features() & kBlkFeatureReadOnly) != 0);
  CHECK((fixed.device.features() & (kBlkFeatureDiscard | kBlkFeatureWriteZeroes)) == 0);
}

TEST_CASE("what is written is in the file, and is read back") {
  BlkGuest guest;
  const auto data = pattern(3 * kSector);
  auto answer = guest.write(5, data);
  CHECK(answer.status == BlkStatus::kOk);
  CHECK(answer.used == 1);
  CHECK(guest.file_bytes(5 * kSector, data.size()) == data);
  answer = guest.read(5, 3 * kSector, BlkGuest::kData + 64 * kPage);
  CHECK(answer.status == BlkStatus::kOk);
  CHECK(answer.used == 3 * kSector + 1);
  CHECK(guest.ram.bytes(BlkGuest::kData + 64 * kPage, data.size()) == data);
  CHECK(guest.device.counters().requests == 2);
  CHECK(guest.device.counters().errors == 0);
  CHECK(guest.device.counters().bytes_written == 3 * kSector);
  CHECK(guest.device.counters().bytes_read == 3 * kSector);
}

TEST_CASE("a request of as many segments as there can be is one transfer") {
  BlkGuest guest;
  const auto data = pattern(kDiskSectors * kSector);
  std::vector<testing::Buffer> pieces;
  for (std::uint32_t i = 0; i < 254; ++i) {
    // Apart from each other, and the last takes the rest.
    const GuestAddress at = BlkGuest::kData + i * 3 * kSector;
    const std::uint32_t size = i < 253 ? kSector : 3 * kSector;
    guest.ram.put_bytes(at, std::span(data).subspan(i * kSector, size));
    pieces.push_back({at, size, false});
  }
  int transfers = 0;
  guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    transfers += request.kind == FakeIo::Kind::kWrite ? 1 : 0;
    return std::nullopt;
  };
  CHECK(guest.request(BlkType::kOut, 0, pieces).status == BlkStatus::kOk);
  CHECK(guest.file_bytes(0, data.size()) == data);
  CHECK(transfers == 1);
}

TEST_CASE("requests that come together are answered with one interrupt") {
  BlkGuest guest;
  for (std::uint64_t i = 0; i < 32; ++i) {
    guest.add(BlkType::kIn, i, {{BlkGuest::kData + i * kSector, kSector, true}});
  }
  guest.kick();
  CHECK(guest.notifier.interrupts == 0);
  guest.io.run();
  CHECK(guest.notifier.interrupts == 1);
  CHECK(guest.queue.used_index() == 32);
}

TEST_CASE("a flush waits for the file and is counted") {
  BlkGuest guest;
  bool synced = false;
  guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    synced = synced || request.kind == FakeIo::Kind::kSync;
    return std::nullopt;
  };
  CHECK(guest.flush().status == BlkStatus::kOk);
  CHECK(synced);
  CHECK(guest.device.flushes() == 1);
}

TEST_CASE("a flush is not answered before the file is done with it") {
  BlkGuest guest;
  guest.io.hold = [](const FakeIo::Request& request) {
    return request.kind == FakeIo::Kind::kSync;
  };
  const std::uint16_t head = guest.add(BlkType::kFlush, 0, {});
  guest.kick();
  guest.io.run();
  CHECK_FALSE(guest.take(head));
  CHECK(guest.read(0, kSector).status == BlkStatus::kOk);  // others go on
  guest.io.hold = nullptr;
  guest.io.run();
  REQUIRE(guest.take(head));
}

TEST_CASE("a flush that fails says so") {
  BlkGuest guest;
  guest.io.answer = [](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    return request.kind == FakeIo::Kind::kSync ? std::optional(-EIO) : std::nullopt;
  };
  CHECK(guest.flush().status == BlkStatus::kIoError);
  CHECK(guest.device.flushes() == 0);
}

TEST_CASE("what was lost once is lost for every later flush, and for the driver after a reset") {
  BlkGuest guest;  // the kernel tells of it once
  bool fails = true;
  guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    return request.kind == FakeIo::Kind::kSync && std::exchange(fails, false) ? std::optional(-EIO)
                                                                              : std::nullopt;
  };
  CHECK(guest.write(0, pattern(kSector)).status == BlkStatus::kOk);
  SUBCASE("told to a driver") {
    CHECK(guest.flush().status == BlkStatus::kIoError);
  }
  SUBCASE("told to nobody") {
    guest.add(BlkType::kFlush, 0, {});
    guest.kick();
    guest.device.reset([] {});
    guest.io.run();
    guest.restart();
  }
  CHECK_FALSE(fails);
  CHECK(guest.flush().status == BlkStatus::kIoError);
  CHECK(guest.write(0, pattern(kSector)).status == BlkStatus::kOk);
  CHECK(guest.read(0, kSector).status == BlkStatus::kOk);
}

TEST_CASE("for a driver that knows no flushes, what was answered is durable (5.2.6.2)") {
  BlkGuest guest;
  guest.device.reset([] {});
  guest.queue.restart();
  guest.start(0);
  std::vector<FakeIo::Kind> kinds;
  guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    if (request.kind != FakeIo::Kind::kDefer) {
      kinds.push_back(request.kind);
    }
    return std::nullopt;
  };
  using Kind = FakeIo::Kind;
  CHECK(guest.write(0, pattern(kSector)).status == BlkStatus::kOk);
  CHECK(kinds == std::vector{Kind::kWrite, Kind::kSync});
  CHECK(guest.ranges(BlkType::kDiscard, {{0, 8, 0}, {16, 8, 0}}).status == BlkStatus::kOk);
  CHECK(kinds ==
        std::vector{Kind::kWrite, Kind::kSync, Kind::kAllocate, Kind::kAllocate, Kind::kSync});
  kinds.clear();
  CHECK(guest.read(0, kSector).status == BlkStatus::kOk);
  CHECK(kinds == std::vector{Kind::kRead});
  guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    return request.kind == Kind::kSync ? std::optional(-EIO) : std::nullopt;
  };
  CHECK(guest.write(0, pattern(kSector)).status == BlkStatus::kIoError);
}

TEST_CASE("a large request does not have the loop for as long as it takes") {
  BlkGuest guest([] {
    Disk disk;
    disk.file = make_file(std::uint64_t{8} << 20);
    disk.size = std::uint64_t{8} << 20;
    return disk;
  }());
  std::size_t largest = 0;
  guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    std::size_t size = 0;
    for (const iovec& piece : request.buffers) {
      size += piece.iov_len;
    }
    largest = std::max(largest, size);
    return std::nullopt;
  };
  // The same memory again and again: what one request may name is not bounded by RAM.
  const std::vector<testing::Buffer> data(8, {BlkGuest::kData, 1 << 20, true});
  const auto answer = guest.request(BlkType::kIn, 0, data);
  CHECK(answer.status == BlkStatus::kOk);
  CHECK(answer.used == (8 << 20) + 1);
  CHECK(largest == 1 << 20);
}

TEST_CASE("the disk's id is 20 bytes, and a shorter place for it is an error") {
  BlkGuest guest;
  const auto answer = guest.request(BlkType::kGetId, 0, {{BlkGuest::kData, 20, true}});
  CHECK(answer.status == BlkStatus::kOk);
  CHECK(answer.used == 21);
  std::string id(20, '\0');
  std::memcpy(id.data(), guest.ram.bytes(BlkGuest::kData, 20).data(), 20);
  CHECK(id == std::string("disk-0") + std::string(14, '\0'));
  CHECK(guest.request(BlkType::kGetId, 0, {{BlkGuest::kData, 19, true}}).status ==
        BlkStatus::kIoError);
}

TEST_CASE("an id that is longer than there is place is cut") {
  Disk disk;
  disk.file = make_file(8 * kSector);
  disk.size = 8 * kSector;
  disk.id = "0123456789abcdefghijKLMN";
  BlkGuest guest(std::move(disk));
  CHECK(guest.request(BlkType::kGetId, 0, {{BlkGuest::kData, 20, true}}).status == BlkStatus::kOk);
  CHECK(guest.ram.get<char>(BlkGuest::kData + 19) == 'j');
}

TEST_CASE("discarded ranges are holes, and the rest stays") {
  BlkGuest guest;
  const auto data = pattern(kDiskSectors * kSector);
  guest.write(0, data);
  const std::uint64_t before = guest.blocks();
  CHECK(guest.ranges(BlkType::kDiscard, {{16, 64, 0}, {128, 0, 0}, {192, 16, 0}}).status ==
        BlkStatus::kOk);
  CHECK(guest.blocks() < before);
  auto expected = data;
  std::fill_n(expected.begin() + 16 * kSector, 64 * kSector, std::byte{0});
  std::fill_n(expected.begin() + 192 * kSector, 16 * kSector, std::byte{0});
  CHECK(guest.file_bytes(0, data.size()) == expected);
}

TEST_CASE(
    "zeroes are written with and without freeing the blocks, also where a file system cannot") {
  for (const bool unmap : {false, true}) {
    for (const bool supported : {false, true}) {
      CAPTURE(unmap);
      CAPTURE(supported);
      BlkGuest guest;
      if (!supported) {
        guest.io.answer = [](const FakeIo::Request& request) -> std::optional<std::int32_t> {
          return request.kind == FakeIo::Kind::kAllocate ? std::optional(-EOPNOTSUPP)
                                                         : std::nullopt;
        };
      }
      const auto data = pattern(kDiskSectors * kSector);
      guest.write(0, data);
      const std::uint32_t flags = unmap ? kBlkRangeUnmap : 0;
      CHECK(guest.ranges(BlkType::kWriteZeroes, {{1, 200, flags}, {250, 6, flags}}).status ==
            BlkStatus::kOk);
      auto expected = data;
      std::fill_n(expected.begin() + kSector, 200 * kSector, std::byte{0});
      std::fill_n(expected.begin() + 250 * kSector, 6 * kSector, std::byte{0});
      CHECK(guest.file_bytes(0, data.size()) == expected);
    }
  }
}

TEST_CASE("a discard that a file system cannot do is unsupported, and harms nothing") {
  BlkGuest guest;
  guest.io.answer = [](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    return request.kind == FakeIo::Kind::kAllocate ? std::optional(-EOPNOTSUPP) : std::nullopt;
  };
  const auto data = pattern(8 * kSector);
  guest.write(0, data);
  CHECK(guest.ranges(BlkType::kDiscard, {{0, 8, 0}}).status == BlkStatus::kUnsupported);
  CHECK(guest.file_bytes(0, data.size()) == data);
}

TEST_CASE("zeroes that can be neither made nor written are an error, and are not tried for ever") {
  BlkGuest guest;
  guest.io.answer = [](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    return request.kind == FakeIo::Kind::kDefer ? std::nullopt : std::optional(-EOPNOTSUPP);
  };
  CHECK(guest.ranges(BlkType::kWriteZeroes, {{0, 8, 0}}).status == BlkStatus::kIoError);
}

TEST_CASE("a disk grows and shrinks while it runs, and says so") {
  BlkGuest guest;
  REQUIRE(::ftruncate(guest.file, 512 * kSector) == 0);
  CHECK(guest.read(kDiskSectors, kSector).status == BlkStatus::kIoError);
  guest.device.resize(512 * kSector);
  CHECK(guest.notifier.config_changes == 1);
  CHECK(std::uint64_t{config_of(guest.device).capacity} == 512);
  CHECK(guest.read(511, kSector).status == BlkStatus::kOk);
  guest.device.resize(10 * kSector + 100);
  CHECK(guest.device.size() == 10 * kSector);
  CHECK(guest.read(10, kSector).status == BlkStatus::kIoError);
  CHECK(guest.read(9, kSector).status == BlkStatus::kOk);
}

TEST_CASE("without a driver a new size is only remembered") {
  BlkGuest guest;
  guest.device.reset([] {});
  guest.device.resize(8 * kSector);
  CHECK(guest.notifier.config_changes == 0);
  CHECK(std::uint64_t{config_of(guest.device).capacity} == 8);
}

TEST_CASE("a disk that cannot be written reads, and takes nothing else") {
  BlkGuest guest(true);
  CHECK(guest.read(0, kSector).status == BlkStatus::kOk);
  CHECK(guest.write(0, pattern(kSector)).status == BlkStatus::kIoError);
  CHECK(guest.ranges(BlkType::kDiscard, {{0, 8, 0}}).status == BlkStatus::kIoError);
  CHECK(guest.ranges(BlkType::kWriteZeroes, {{0, 8, 0}}).status == BlkStatus::kIoError);
  CHECK(guest.flush().status == BlkStatus::kOk);
  CHECK(guest.file_bytes(0, kSector) == std::vector<std::byte>(kSector));
}

TEST_CASE("a transfer that the file does piece by piece is whole at the end") {
  std::minstd_rand random(3);
  BlkGuest guest;
  guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    if (request.kind != FakeIo::Kind::kRead && request.kind != FakeIo::Kind::kWrite) {
      return std::nullopt;
    }
    if (random() % 3 == 0) {
      return -EINTR;
    }
    iovec first = request.buffers.front();
    first.iov_len = std::min<std::size_t>(first.iov_len, 1 + random() % 700);
    FakeIo::Request less = request;
    less.buffers = {&first, 1};
    return FakeIo::perform(less);
  };
  const auto data = pattern(64 * kSector, 9);
  CHECK(guest.write(7, data).used == 1);
  CHECK(guest.file_bytes(7 * kSector, data.size()) == data);
  const auto answer = guest.read(7, 64 * kSector, BlkGuest::kData + 128 * kPage);
  CHECK(answer.status == BlkStatus::kOk);
  CHECK(answer.used == 64 * kSector + 1);
  CHECK(guest.ram.bytes(BlkGuest::kData + 128 * kPage, data.size()) == data);
}

TEST_CASE("errors of the file are the request's, and used says what was really written") {
  for (const std::int32_t error : {-EIO, -ENOSPC, -EDQUOT, -EFBIG, -EBADF, 0}) {
    CAPTURE(error);
    BlkGuest guest;
    int calls = 0;
    guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
      if (request.kind != FakeIo::Kind::kRead && request.kind != FakeIo::Kind::kWrite) {
        return std::nullopt;
      }
      if (++calls > 1) {
        return error;
      }
      iovec first = request.buffers.front();
      first.iov_len = kSector;
      FakeIo::Request less = request;
      less.buffers = {&first, 1};
      return FakeIo::perform(less);
    };
    auto answer = guest.read(0, 4 * kSector);
    CHECK(answer.status == BlkStatus::kIoError);
    CHECK(answer.used == kSector + 1);
    calls = 0;
    answer = guest.write(0, pattern(4 * kSector));
    CHECK(answer.status == BlkStatus::kIoError);
    CHECK(answer.used == 1);
    CHECK(guest.device.counters().errors == 2);
    guest.io.answer = nullptr;
    CHECK(guest.read(0, kSector).status == BlkStatus::kOk);
  }
}

TEST_CASE("a file cut short under the disk gives errors behind its end, and the disk goes on") {
  BlkGuest guest;  // hostile-input.md 27
  REQUIRE(::ftruncate(guest.file, 4 * kSector) == 0);
  CHECK(guest.read(2, 4 * kSector).status == BlkStatus::kIoError);
  CHECK(guest.read(0, 4 * kSector).status == BlkStatus::kOk);
}

TEST_CASE("with a direct file all data goes there, in whole blocks, from and to any memory") {
  Disk disk;
  disk.file = make_file(kDiskSectors * kSector);
  disk.direct = Fd(::fcntl(disk.file.get(), F_DUPFD_CLOEXEC, 0));
  disk.alignment = 4096;
  disk.size = kDiskSectors * kSector;
  const int direct = disk.direct.get();
  BlkGuest guest(std::move(disk));
  CHECK(std::uint32_t{config_of(guest.device).blk_size} == 4096);
  CHECK(config_of(guest.device).physical_block_exp == 0);
  guest.io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    if (request.kind == FakeIo::Kind::kRead || request.kind == FakeIo::Kind::kWrite) {
      CHECK(request.fd == direct);
      CHECK(request.offset % 4096 == 0);
      for (const iovec& piece : request.buffers) {
        CHECK((reinterpret_cast<std::uintptr_t>(piece.iov_base) | piece.iov_len) % 4096 == 0);
      }
    }
    return std::nullopt;
  };
  // Aligned; in another place; longer than is copied at a time; in pieces.
  const auto data = pattern(40 * kSector * 4);
  for (const GuestAddress at : {BlkGuest::kData, BlkGuest::kData + 512, BlkGuest::kData + 1}) {
    CHECK(guest.write(8, data, at).status == BlkStatus::kOk);
    CHECK(guest.file_bytes(8 * kSector, data.size()) == data);
    guest.ram.put_bytes(at, std::vector<std::byte>(data.size()));
    const auto answer = guest.read(8, static_cast<std::uint32_t>(data.size()), at);
    CHECK(answer.status == BlkStatus::kOk);
    CHECK(answer.used == data.size() + 1);
    CHECK(guest.ram.bytes(at, data.size()) == data);
  }
  const auto split = guest.request(
      BlkType::kIn, 8, {{BlkGuest::kData, 1000, true}, {BlkGuest::kData + 2000, 3096, true}});
  CHECK(split.status == BlkStatus::kOk);
  auto read = guest.ram.bytes(BlkGuest::kData, 1000);
  const auto rest = guest.ram.bytes(BlkGuest::kData + 2000, 3096);
  read.insert(read.end(), rest.begin(), rest.end());
  CHECK(std::ranges::equal(read, std::span(data).first(4096)));
  // No whole blocks.
  CHECK(guest.read(9, 4096).status == BlkStatus::kIoError);
  CHECK(guest.read(8, 512).status == BlkStatus::kIoError);
  CHECK(guest.ranges(BlkType::kWriteZeroes, {{8, 4, 0}}).status == BlkStatus::kIoError);
}

TEST_CASE("many requests at a time, in any order of completion, are each answered once") {
  std::minstd_rand random(11);
  BlkGuest guest;
  std::vector<std::byte> model(kDiskSectors * kSector);
  for (int round = 0; round < 200; ++round) {
    guest.io.hold = [&](const FakeIo::Request& request) {
      return request.kind != FakeIo::Kind::kDefer && random() % 3 != 0;
    };
    std::vector<std::uint16_t> heads;
    // Each of its own sector: no order is promised otherwise.
    for (std::uint64_t slot = 0; slot < 40; ++slot) {
      const std::uint64_t sector = slot * 6 + random() % 6;
      const GuestAddress at = BlkGuest::kData + slot * kPage;
      if (random() % 2 == 0) {
        const auto data = pattern(kSector, static_cast<std::uint32_t>(random()));
        guest.ram.put_bytes(at, data);
        std::copy(data.begin(), data.end(),
                  model.begin() + static_cast<std::ptrdiff_t>(sector * kSector));
        heads.push_back(guest.add(BlkType::kOut, sector, {{at, kSector, false}}));
      } else {
        heads.push_back(guest.add(BlkType::kIn, sector, {{at, kSector, true}}));
      }
    }
    guest.kick();
    for (int turn = 0; turn < 50; ++turn) {
      guest.io.run_once();
    }
    guest.io.hold = nullptr;
    guest.io.run();
    for (const std::uint16_t head : heads) {
      const auto answer = guest.take(head);
      REQUIRE(answer);
      CHECK(answer->status == BlkStatus::kOk);
    }
  }
  CHECK(guest.file_bytes(0, model.size()) == model);
}

TEST_CASE(
    "a disk is at rest once the file is done with what was under way, and goes on where it was") {
  BlkGuest guest;
  guest.io.hold = [](const FakeIo::Request& request) {
    return request.kind != FakeIo::Kind::kDefer;
  };
  const auto data = pattern(kSector);
  guest.ram.put_bytes(BlkGuest::kData, data);
  const std::uint16_t written = guest.add(BlkType::kOut, 3, {{BlkGuest::kData, kSector, false}});
  guest.kick();
  bool quiet = false;
  guest.device.pause([&] { quiet = true; });
  guest.io.run();
  CHECK_FALSE(quiet);
  const std::uint16_t later =
      guest.add(BlkType::kIn, 3, {{BlkGuest::kData + kPage, kSector, true}});
  guest.io.hold = nullptr;
  guest.io.run();
  CHECK(quiet);
  CHECK(guest.notifier.interrupts == 1);
  CHECK(guest.take(written));
  const auto before = guest.ram.snapshot();
  guest.io.run();
  CHECK(guest.ram.snapshot() == before);
  CHECK(guest.io.pending() == 0);
  guest.device.resume();
  guest.kick();
  guest.io.run();
  REQUIRE(guest.take(later));
  CHECK(guest.ram.bytes(BlkGuest::kData + kPage, kSector) == data);
}

TEST_CASE("a disk with nothing to do is at rest at once, active or not") {
  BlkGuest guest;
  int quiet = 0;
  guest.device.pause([&] { ++quiet; });
  CHECK(quiet == 1);
  guest.device.resume();
  guest.device.reset([] {});
  guest.device.pause([&] { ++quiet; });
  CHECK(quiet == 2);
}

}  // namespace
}  // namespace msb::virtio
