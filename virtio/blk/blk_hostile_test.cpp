// SPDX-License-Identifier: Apache-2.0
// A driver that attacks the disk (hostile-input.md 9 to 15 and 28).
#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "virtio/blk/blk_device.hpp"
#include "virtio/testing/allocated_bytes.hpp"
#include "virtio/testing/blk_guest.hpp"
#include "virtio/testing/racing_guest.hpp"

namespace msb::virtio {
namespace {

using testing::BlkGuest;
using testing::Buffer;
using testing::FakeIo;
using testing::kDiskSectors;
using testing::kPage;
using testing::pattern;

constexpr std::uint32_t kSector = kBlkSectorSize;

void check_works(BlkGuest& guest) {
  const auto data = pattern(kSector, 77);
  CHECK(guest.write(3, data).status == BlkStatus::kOk);
  CHECK(guest.read(3, kSector, BlkGuest::kData + kPage).status == BlkStatus::kOk);
  CHECK(guest.ram.bytes(BlkGuest::kData + kPage, kSector) == data);
}

TEST_CASE("sectors and lengths up to the disk's end are served, and none beyond") {
  struct Row {
    std::uint64_t sector;
    std::uint32_t bytes;
    bool ok;
  };
  constexpr std::uint64_t kCap = kDiskSectors;
  for (const Row& row : {
           Row{0, kSector, true},
           Row{kCap - 1, kSector, true},
           Row{kCap - 1, 2 * kSector, false},
           Row{kCap, kSector, false},
           Row{kCap + 1, kSector, false},
           Row{kCap, 0, true},
           Row{kCap + 1, 0, false},
           Row{0, kCap * kSector, true},
           Row{1, kCap * kSector, false},
           Row{0, 1, false},
           Row{0, kSector - 1, false},
           Row{0, kSector + 1, false},
           Row{std::uint64_t{1} << 54, kSector, false},
           Row{std::uint64_t{1} << 55, kSector, false},
           Row{(std::uint64_t{1} << 55) + 1, kSector, false},
           Row{~std::uint64_t{0}, kSector, false},
           Row{~std::uint64_t{0} - 1, 2 * kSector, false},
       }) {
    CAPTURE(row.sector);
    CAPTURE(row.bytes);
    BlkGuest guest;
    const auto before = guest.file_bytes(0, kCap * kSector);
    const auto wanted = row.ok ? BlkStatus::kOk : BlkStatus::kIoError;
    CHECK(guest.read(row.sector, row.bytes).status == wanted);
    CHECK(guest.write(row.sector, std::vector<std::byte>(row.bytes)).status == wanted);
    CHECK(guest.file_bytes(0, kCap * kSector) == before);
  }
}

TEST_CASE("ranges beyond the disk, too many, too long or with unknown flags touch nothing") {
  struct Row {
    std::uint64_t sector;
    std::uint32_t sectors;
    std::uint32_t flags;
    BlkStatus discard;
    BlkStatus zeroes;
  };
  constexpr auto kOk = BlkStatus::kOk;
  constexpr auto kBad = BlkStatus::kIoError;
  constexpr auto kUnknown = BlkStatus::kUnsupported;
  for (const Row& row : {
           Row{0, 8, 0, kOk, kOk},
           Row{0, 8, 1, kUnknown, kOk},
           Row{0, 8, 2, kUnknown, kUnknown},
           Row{0, 8, 0xffff'ffff, kUnknown, kUnknown},
           Row{kDiskSectors, 0, 0, kOk, kOk},
           Row{kDiskSectors, 1, 0, kBad, kBad},
           Row{kDiskSectors - 1, 2, 0, kBad, kBad},
           Row{0, 0xffff'ffff, 0, kBad, kBad},
           Row{~std::uint64_t{0}, 1, 0, kBad, kBad},
           Row{~std::uint64_t{0}, 0xffff'ffff, 0, kBad, kBad},
           Row{std::uint64_t{1} << 55, 8, 0, kBad, kBad},
       }) {
    CAPTURE(row.sector);
    CAPTURE(row.sectors);
    BlkGuest guest;
    const auto data = pattern(kDiskSectors * kSector);
    guest.write(0, data);
    // Behind a good one, which must not be done either.
    const std::vector<BlkRange> list{{100, 8, 0}, {row.sector, row.sectors, row.flags}};
    CHECK(guest.ranges(BlkType::kDiscard, list).status == row.discard);
    if (row.discard != kOk) {
      CHECK(guest.file_bytes(0, data.size()) == data);
    }
    CHECK(guest.ranges(BlkType::kWriteZeroes, list).status == row.zeroes);
  }
  BlkGuest guest;
  CHECK(guest.ranges(BlkType::kDiscard, std::vector<BlkRange>(64, {0, 1, 0})).status == kOk);
  CHECK(guest.ranges(BlkType::kDiscard, std::vector<BlkRange>(65, {0, 1, 0})).status == kBad);
  CHECK(guest.ranges(BlkType::kDiscard, std::vector<BlkRange>{}).status == kBad);
  for (const std::uint32_t bytes : {1U, 15U, 17U, 31U}) {
    CHECK(guest.request(BlkType::kDiscard, 0, {{BlkGuest::kData, bytes, false}}).status == kBad);
  }
  check_works(guest);
}

TEST_CASE("requests of unknown types are unsupported") {
  BlkGuest guest;
  for (const std::uint32_t type :
       {2U, 3U, 5U, 6U, 7U, 9U, 10U, 12U, 14U, 255U, 0x8000'0000U, ~0U}) {
    CHECK(guest.request(static_cast<BlkType>(type), 0, {{BlkGuest::kData, kSector, true}}).status ==
          BlkStatus::kUnsupported);
  }
  check_works(guest);
}

// A request of descriptors made by hand, all of its bytes in a row of memory each.
std::optional<std::uint32_t> raw(BlkGuest& guest, const std::vector<Buffer>& buffers) {
  const std::uint16_t head = guest.queue.add(buffers);
  guest.kick();
  guest.io.run();
  const auto used = guest.queue.take_used();
  REQUIRE(used);
  CHECK(used->id == head);
  return used->length;
}

TEST_CASE("header, data and status are the same wherever they are split over descriptors") {
  const auto data = pattern(kSector);
  constexpr GuestAddress kRequest = BlkGuest::kData;
  constexpr GuestAddress kAnswer = BlkGuest::kData + 4 * kPage;
  for (std::uint32_t cut = 1; cut < 16 + kSector; cut += cut < 20 ? 1 : 37) {
    BlkGuest guest;
    guest.ram.put(kRequest, BlkRequestHeader{BlkType::kOut, 0, 9});
    guest.ram.put_bytes(kRequest + 16, data);
    guest.ram.put(kAnswer, std::uint8_t{0xa5});
    CHECK(raw(guest, {{kRequest, cut, false},
                      {kRequest + cut, 16 + kSector - cut, false},
                      {kAnswer, 1, true}}) == 1);
    CHECK(guest.ram.get<std::uint8_t>(kAnswer) == 0);
    CHECK(guest.file_bytes(9 * kSector, kSector) == data);

    guest.ram.put(kRequest, BlkRequestHeader{BlkType::kIn, 0, 9});
    CHECK(raw(guest, {{kRequest, std::min(cut, 15U), false},
                      {kRequest + std::min(cut, 15U), 16 - std::min(cut, 15U), false},
                      {kAnswer, cut, true},
                      {kAnswer + cut, kSector + 1 - std::min(cut, kSector), true}})
              .has_value());
  }
  // In single bytes, status and all.
  BlkGuest guest;
  guest.ram.put(kRequest, BlkRequestHeader{BlkType::kGetId, 0, 0});
  std::vector<Buffer> bytes;
  for (std::uint32_t i = 0; i < 16; ++i) {
    bytes.push_back({kRequest + i, 1, false});
  }
  for (std::uint32_t i = 0; i < 21; ++i) {
    bytes.push_back({kAnswer + 2 * i, 1, true});
  }
  CHECK(raw(guest, bytes) == 21);
  CHECK(guest.ram.get<char>(kAnswer) == 'd');
  CHECK(guest.ram.get<char>(kAnswer + 2) == 'i');
  CHECK(guest.ram.get<std::uint8_t>(kAnswer + 40) == 0);
}

TEST_CASE("three descriptors with any lengths and directions are answered, and the disk goes on") {
  // Status missing, read-only, empty, not last; header too short, missing, writable.
  BlkGuest guest;
  const std::uint32_t lengths[] = {0, 1, 15, 16, 17, kSector, kSector + 1};
  std::size_t cases = 0;
  for (int directions = 0; directions < 8; ++directions) {
    for (const std::uint32_t a : lengths) {
      for (const std::uint32_t b : lengths) {
        for (const std::uint32_t c : lengths) {
          for (const BlkType type : {BlkType::kIn, BlkType::kOut, BlkType::kFlush, BlkType::kGetId,
                                     BlkType::kDiscard, BlkType::kWriteZeroes}) {
            guest.ram.put(BlkGuest::kData, BlkRequestHeader{type, 0, 0});
            guest.ram.put(BlkGuest::kData + 16, BlkRange{0, 1, 0});
            raw(guest, {{BlkGuest::kData, a, (directions & 1) != 0},
                        {BlkGuest::kData + a, b, (directions & 2) != 0},
                        {BlkGuest::kData + a + b, c, (directions & 4) != 0}});
            ++cases;
          }
        }
      }
    }
  }
  MESSAGE(cases, " cases");
  CHECK(guest.notifier.resets_wanted == 0);
  check_works(guest);
}

TEST_CASE("bad requests, more than the queue has entries, all come back") {
  BlkGuest guest;
  for (int i = 0; i < 3 * 256; ++i) {
    raw(guest, {{BlkGuest::kData, 8, false}});
    raw(guest, {{BlkGuest::kData, 8, false}, {guest.ram.end() - 4, 8, true}});
  }
  check_works(guest);
  CHECK(guest.queue.free() == 256);
}

TEST_CASE("buffers outside of RAM are never the file's business") {
  BlkGuest guest;
  for (const GuestAddress address :
       {guest.ram.end() - 256, guest.ram.end(), GuestAddress{0}, ~GuestAddress{0} - 255}) {
    const std::uint16_t head = guest.add(BlkType::kIn, 0, {{address, kSector, true}});
    const std::size_t started = guest.io.started();
    guest.kick();
    CHECK(guest.io.pending(FakeIo::Kind::kRead) == 0);
    CHECK(guest.io.started() <= started + 1);
    guest.io.run();
    const auto answer = guest.take(head);
    REQUIRE(answer);
    CHECK(answer->used == 0);
  }
  check_works(guest);
}

TEST_CASE("a reset waits for what the file still works on, and nothing is touched after it") {
  BlkGuest guest;
  guest.io.hold = [](const FakeIo::Request& request) {
    return request.kind != FakeIo::Kind::kDefer;
  };
  for (std::uint64_t i = 0; i < 20; ++i) {
    guest.add(BlkType::kIn, i, {{BlkGuest::kData + i * kPage, kSector, true}});
    guest.add(BlkType::kOut, 100 + i, {{BlkGuest::kData + i * kPage, kSector, false}});
  }
  guest.add(BlkType::kFlush, 0, {});
  const BlkRange range{0, 8, 0};
  guest.ram.put(BlkGuest::kData + 100 * kPage, range);
  guest.add(BlkType::kDiscard, 0, {{BlkGuest::kData + 100 * kPage, sizeof range, false}});
  guest.kick();
  CHECK(guest.io.pending() == 43);  // and the interrupt
  bool done = false;
  guest.device.reset([&] { done = true; });
  guest.io.run();
  CHECK_FALSE(done);
  guest.io.hold = nullptr;
  guest.io.run();
  CHECK(done);
  CHECK(guest.notifier.interrupts == 0);
  CHECK(guest.queue.used_index() == 0);
  const auto before = guest.ram.snapshot();
  guest.io.run();
  CHECK(guest.ram.snapshot() == before);
  guest.restart();
  check_works(guest);
}

TEST_CASE("completions that come late, after cancellation, harm nothing") {
  for (const std::int32_t late : {0, static_cast<int>(kSector), -EIO, -EINTR, -ECANCELED}) {
    CAPTURE(late);
    BlkGuest guest;
    guest.io.hold = [](const FakeIo::Request& request) {
      return request.kind != FakeIo::Kind::kDefer;
    };
    guest.add(BlkType::kIn, 0, {{BlkGuest::kData, kSector, true}});
    guest.add(BlkType::kFlush, 0, {});
    guest.kick();
    bool done = false;
    guest.device.reset([&] { done = true; });
    guest.io.hold = nullptr;
    guest.io.answer = [&](const FakeIo::Request&) { return std::optional(late); };
    guest.io.run();
    CHECK(done);
    guest.io.answer = nullptr;
    guest.restart();
    check_works(guest);
  }
}

TEST_CASE("a driver that breaks the ring is told to reset, and works again after it") {
  BlkGuest guest;
  guest.add(BlkType::kIn, 0, {{BlkGuest::kData, kSector, true}});
  guest.kick();
  guest.queue.set_available_index(static_cast<std::uint16_t>(guest.queue.available_index() + 300));
  guest.kick();
  CHECK(guest.notifier.resets_wanted == 1);
  guest.io.run();
  guest.device.reset([] {});
  guest.restart();
  check_works(guest);
}

TEST_CASE("what a disk holds never decides how it is read") {
  BlkGuest guest;
  for (const std::string& magic :
       {std::string("QFI\xfb\0\0\0\3", 8), std::string("KDMV\1\0\0\0", 8), std::string("conectix"),
        std::string("vhdxfile"), std::string("<<< QEMU VM Virtual Disk Image >>>")}) {
    std::vector<std::byte> data(kSector);
    std::memcpy(data.data(), magic.data(), magic.size());
    CHECK(guest.write(0, data).status == BlkStatus::kOk);
    CHECK(guest.read(0, kSector, BlkGuest::kData + kPage).status == BlkStatus::kOk);
    CHECK(guest.ram.bytes(BlkGuest::kData + kPage, kSector) == data);
    CHECK(guest.file_bytes(0, kSector) == data);
    CHECK(guest.device.size() == kDiskSectors * kSector);
  }
}

TEST_CASE("memory does not grow with requests, good or bad") {
  BlkGuest guest;
  const auto round = [&] {
    for (int i = 0; i < 300; ++i) {
      guest.read(static_cast<std::uint64_t>(i) % kDiskSectors, kSector);
      raw(guest, {{BlkGuest::kData, 3, false}, {BlkGuest::kData, 1, true}});
      guest.ranges(BlkType::kDiscard, std::vector<BlkRange>(64, {0, 0, 0}));
    }
  };
  round();
  const std::size_t before = testing::allocated_bytes();
  for (int i = 0; i < 5; ++i) {
    round();
  }
  CHECK(testing::allocated_bytes() < before + 64 * 1024);
}

TEST_CASE("a driver that adds requests while they are answered does not keep the loop") {
  BlkGuest guest;
  int answered = 0;
  // Refused requests are answered within the kick, and this driver adds one for each.
  for (int i = 0; i < 256; ++i) {
    guest.queue.add({{BlkGuest::kData, 8, false}});
  }
  guest.kick();
  const auto used = [&] { return guest.queue.used_index(); };
  CHECK(used() == 256);
  CHECK(guest.notifier.kicked_again == std::vector<std::uint16_t>{0});
  while (guest.queue.take_used()) {
    ++answered;
  }
  guest.io.run();
  CHECK(answered == 256);
  check_works(guest);
}

TEST_CASE("a guest that flips everything while the disk works stays within disk and RAM" *
          doctest::skip(testing::kRacingGuestsAreReported)) {
  BlkGuest guest;
  std::atomic<bool> stop = false;
  std::thread flipper([&] {
    std::minstd_rand random(5);
    const auto table = *guest.ram.memory().slice(BlkGuest::kQueue, 64 * sizeof(Descriptor));
    const auto headers = *guest.ram.memory().slice(BlkGuest::kHeaders, kPage);
    while (!stop.load(std::memory_order_relaxed)) {
      const std::size_t slot = random() % 64 * sizeof(Descriptor);
      table.store(slot, static_cast<std::uint64_t>(random() % 2 == 0 ? BlkGuest::kData
                                                                     : guest.ram.end() - 64));
      table.store(slot + 8, static_cast<std::uint32_t>(random() % 4 == 0 ? 0xffff'ffff : 512));
      table.store(slot + 12, static_cast<std::uint16_t>(random() % 4));
      headers.store(random() % 64 * 16, static_cast<std::uint32_t>(random() % 16));
      headers.store(random() % 64 * 16 + 8, static_cast<std::uint64_t>(random() % 300));
    }
  });
  for (int round = 0; round < 300; ++round) {
    guest.device.reset([] {});
    guest.restart();
    for (std::uint64_t i = 0; i < 20; ++i) {
      guest.add(i % 2 == 0 ? BlkType::kIn : BlkType::kOut, i,
                {{BlkGuest::kData, kSector, i % 2 == 0}});
    }
    guest.kick();
    guest.io.run();
  }
  stop = true;
  flipper.join();
  guest.device.reset([] {});
  guest.restart();
  check_works(guest);
}

}  // namespace
}  // namespace msb::virtio
