// SPDX-License-Identifier: Apache-2.0
// Queues and devices before a guest whose memory has changed whenever it is read again: what was
// checked is what is used, and what a request says is read once (hostile-input.md 6).
#include <doctest/doctest.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "virtio/fs/fs_device.hpp"
#include "virtio/queue.hpp"
#include "virtio/rng/rng_device.hpp"
#include "virtio/testing/balloon_guest.hpp"
#include "virtio/testing/blk_guest.hpp"
#include "virtio/testing/changing_pages.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/fake_io.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_notifier.hpp"
#include "virtio/testing/vsock_guest.hpp"

namespace msb::virtio {
namespace {

using testing::BalloonGuest;
using testing::BlkGuest;
using testing::Buffer;
using testing::ChangingPages;
using testing::DriverQueue;
using testing::FakeIo;
using testing::GuestRam;
using testing::kPage;
using testing::RecordingNotifier;
using testing::VsockGuest;
using testing::VsockWorld;

// What a queue reads for a chain: the entry of the available ring, and descriptors.
constexpr std::size_t chain_bytes(std::size_t descriptors) {
  return sizeof(std::uint16_t) + descriptors * sizeof(Descriptor);
}

// Lets the device act on changing pages, on which it must read `expected` bytes, each once.
template <typename Act>
void check_once(ChangingPages& pages, std::size_t expected, Act act) {
  pages.watch(act);
  CHECK(pages.reads() == expected);
  CHECK(pages.second_reads().empty());
}

// From `start` on, only what is in `written` may differ from `before`, which is all of the RAM.
void check_untouched(const GuestRam& ram, std::vector<std::byte> before, GuestAddress start,
                     std::initializer_list<Buffer> written) {
  auto after = ram.snapshot();
  for (const Buffer& buffer : written) {
    const auto at = static_cast<std::ptrdiff_t>(buffer.address - ram.start());
    std::copy_n(after.begin() + at, buffer.length, before.begin() + at);
  }
  const auto skipped = static_cast<std::ptrdiff_t>(start - ram.start());
  CHECK(std::equal(after.begin() + skipped, after.end(), before.begin() + skipped, before.end()));
}

TEST_SUITE_BEGIN("double fetches" * doctest::skip(testing::kAtomicLoadsReadTwice));

struct QueueFixture {
  static constexpr GuestAddress kTable = GuestRam::kStart + kPage;
  static constexpr GuestAddress kData = GuestRam::kStart + 4 * kPage;
  GuestRam ram;
  DriverQueue driver{ram, GuestRam::kStart, 8};
  ChangingPages pages{ram, {{GuestRam::kStart, 2}}};

  QueueFixture() { pages.leave(driver.geometry()); }

  void check_chain(std::uint64_t features, std::size_t descriptors) {
    Queue queue = driver.device_side(features);
    ram.put(kData, std::uint64_t{0x1122'3344'5566'7788});
    check_once(pages, chain_bytes(descriptors), [&] {
      auto chain = queue.pop();
      REQUIRE(chain);
      REQUIRE(*chain);
      CHECK((*chain)->readable_size() == 8);
      CHECK((*chain)->writable_size() == 24);
      std::uint64_t value = 0;
      CHECK((*chain)->read(0, std::as_writable_bytes(std::span(&value, 1))) == 8);
      CHECK(value == 0x1122'3344'5566'7788);
      CHECK((*chain)->write(0, std::vector<std::byte>(100, std::byte{0x5a})) == 24);
      queue.push(std::move(**chain), 24);
      CHECK(queue.take_interrupt());
      CHECK_FALSE(queue.pop()->has_value());
    });
    CHECK(driver.take_used()->length == 24);
    CHECK(ram.bytes(kData + 8, 24) == std::vector<std::byte>(24, std::byte{0x5a}));
    CHECK(ram.get<std::byte>(kData + 32) == std::byte{0});
  }
};

TEST_CASE_FIXTURE(QueueFixture, "a descriptor is read once") {
  driver.add({{kData, 8, false}, {kData + 8, 16, true}, {kData + 24, 8, true}});
  check_chain(0, 3);
}

TEST_CASE_FIXTURE(QueueFixture, "a descriptor of an indirect table, and that which names it, too") {
  driver.add_indirect(kTable, {{kData, 8, false}, {kData + 8, 16, true}, {kData + 24, 8, true}});
  check_chain(kFeatureIndirectDescriptors, 4);
}

TEST_CASE_FIXTURE(QueueFixture, "and with event indexes") {
  driver.add({{kData, 8, false}, {kData + 8, 24, true}});
  check_chain(kFeatureEventIndex, 2);
}

TEST_CASE_FIXTURE(QueueFixture, "a chain that cannot be served is read once as well") {
  driver.add({{kData, 8, true}, {ram.end(), 8, true}});
  driver.add({{kData, 8, true}, {kData, 8, false}, {kData, 8, true}});
  Queue queue = driver.device_side();
  check_once(pages, chain_bytes(2) + chain_bytes(3), [&] {
    CHECK_FALSE((*queue.pop())->servable());
    CHECK_FALSE((*queue.pop())->servable());
  });
  CHECK(driver.used_index() == 2);
}

struct BlkFixture {
  static constexpr GuestAddress kRanges = BlkGuest::kHeaders + kPage;
  BlkGuest guest;
  std::vector<std::byte> content = testing::pattern(testing::kDiskSectors * kBlkSectorSize);
  std::vector<std::byte> before;
  ChangingPages pages{guest.ram, {{BlkGuest::kQueue, 2}, {BlkGuest::kHeaders, 2}}};

  BlkFixture() {
    pages.leave(guest.queue.geometry());
    REQUIRE(::pwrite(guest.file, content.data(), content.size(), 0) ==
            static_cast<ssize_t>(content.size()));
  }
  // The device reads the header and `more` bytes of request.
  void serve(BlkType type, std::uint64_t sector, std::vector<Buffer> data, std::size_t more = 0) {
    const std::size_t descriptors = data.size() + 2;
    const std::uint16_t head = guest.add(type, sector, std::move(data));
    before = guest.ram.snapshot();
    check_once(pages, chain_bytes(descriptors) + sizeof(BlkRequestHeader) + more, [&] {
      guest.kick();
      guest.io.run();
    });
    const auto answer = guest.take(head);
    REQUIRE(answer);
    CHECK(answer->status == BlkStatus::kOk);
  }
  std::span<std::byte> sectors(std::uint64_t first, std::uint64_t count) {
    return std::span(content).subspan(first * kBlkSectorSize, count * kBlkSectorSize);
  }
};

TEST_CASE_FIXTURE(BlkFixture, "a disk reads the sectors that were checked") {
  serve(BlkType::kIn, 3, {{BlkGuest::kData, 512, true}, {BlkGuest::kData + kPage, 512, true}});
  check_untouched(guest.ram, before, BlkGuest::kData,
                  {{BlkGuest::kData, 512, true}, {BlkGuest::kData + kPage, 512, true}});
  CHECK(std::ranges::equal(guest.ram.bytes(BlkGuest::kData, 512), sectors(3, 1)));
  CHECK(std::ranges::equal(guest.ram.bytes(BlkGuest::kData + kPage, 512), sectors(4, 1)));
}

TEST_CASE_FIXTURE(BlkFixture, "a disk writes the sectors that were checked") {
  const auto data = testing::pattern(1024, 7);
  guest.ram.put_bytes(BlkGuest::kData, data);
  serve(BlkType::kOut, 3, {{BlkGuest::kData, 1024, false}});
  std::ranges::copy(data, sectors(3, 2).begin());
  CHECK(guest.file_bytes(0, content.size()) == content);
  check_untouched(guest.ram, before, BlkGuest::kData, {});
}

TEST_CASE_FIXTURE(BlkFixture, "a disk discards and zeroes the ranges that were checked") {
  for (const BlkType type : {BlkType::kDiscard, BlkType::kWriteZeroes}) {
    const std::array<BlkRange, 2> ranges{{{8, 8, 0}, {32, 8, 0}}};
    guest.ram.put_bytes(kRanges, std::as_bytes(std::span(ranges)));
    serve(type, 0, {{kRanges, sizeof ranges, false}}, sizeof ranges);
    std::ranges::fill(sectors(8, 8), std::byte{0});
    std::ranges::fill(sectors(32, 8), std::byte{0});
    CHECK(guest.file_bytes(0, content.size()) == content);
    content = testing::pattern(content.size(), 9);
    REQUIRE(::pwrite(guest.file, content.data(), content.size(), 0) ==
            static_cast<ssize_t>(content.size()));
  }
}

TEST_CASE("a socket device serves the packet that was checked") {
  constexpr VsockConnectionKey kKey{VsockWorld::kOpenPort, VsockWorld::kGuestPort};
  constexpr std::string_view kText = "as many bytes as were checked";
  VsockWorld world;
  VsockGuest& guest = world.guest;
  // The rings, and where the guest has its first and only packet at a time.
  ChangingPages pages{guest.ram,
                      {{GuestRam::kStart, 16}, {guest.ram.end() - VsockGuest::kSlot, 1}}};
  for (const DriverQueue* queue : {&guest.receive_queue, &guest.send_queue, &guest.event_queue}) {
    pages.leave(queue->geometry());
  }
  const auto serve = [&] {
    guest.device.on_queue(kVsockTxQueue);
    guest.device.on_queue(kVsockRxQueue);
    world.io.run();
  };

  guest.add_buffers(1);
  guest.add_packet(guest.header_of(VsockOp::kRequest, kKey));
  check_once(pages, 2 * chain_bytes(1) + sizeof(VsockHeader), serve);
  CHECK(guest.reclaim() == 1);
  const auto response = guest.receive_one(VsockOp::kResponse);
  CHECK(response.host_port == kKey.host_port);
  CHECK(response.guest_port == kKey.guest_port);
  REQUIRE(world.accepted.size() == 1);

  guest.add_packet(guest.header_of(VsockOp::kReadWrite, kKey, kText.size()),
                   std::as_bytes(std::span(kText)), std::array<std::uint32_t, 2>{10, 50});
  check_once(pages, chain_bytes(3) + sizeof(VsockHeader) + kText.size(), serve);
  CHECK(guest.reclaim() == 1);
  CHECK(VsockWorld::read_all(world.accepted.front()) == kText);

  guest.add_buffers(1, sizeof(VsockHeader) + 8);
  VsockWorld::write_text(world.accepted.front(), "eight bytes and more");
  check_once(pages, chain_bytes(1), serve);
  CHECK(testing::text_of(guest.receive_one(VsockOp::kReadWrite)) == "eight by");
}

struct FsFixture {
  static constexpr GuestAddress kRequest = GuestRam::kStart + 2 * kPage;
  static constexpr GuestAddress kReply = GuestRam::kStart + 4 * kPage;
  static constexpr std::uint64_t kUnique = 0x1122'3344'5566'7788;
  const std::vector<std::byte> content = testing::pattern(2 * kPage);
  GuestRam ram;
  DriverQueue priority{ram, GuestRam::kStart, 8};
  DriverQueue requests{ram, GuestRam::kStart + kPage, 8};
  RecordingNotifier notifier;
  FakeIo io;
  FsDevice device{"share", make_server(), io};
  ChangingPages pages{ram, {{GuestRam::kStart, 3}}};

  FsFixture() {
    device.activate({priority.device_side(), requests.device_side()}, kFeatureVersion1, notifier);
    pages.leave(priority.geometry());
    pages.leave(requests.geometry());
  }
  ~FsFixture() { io.drain(); }
  FsFixture(const FsFixture&) = delete;
  FsFixture& operator=(const FsFixture&) = delete;

  [[nodiscard]] FuseServer make_server() const {
    Fd file(::memfd_create("shared", MFD_CLOEXEC));
    REQUIRE(::write(file.get(), content.data(), content.size()) ==
            static_cast<ssize_t>(content.size()));
    SharedTree tree;
    REQUIRE(tree.add_file("file", std::move(file)));
    return {std::move(tree), OwnerRule(0, 0), ShareLimits{}};
  }
  // Gives the answer's payload; there is room for one of `room` bytes.
  std::vector<std::byte> serve(std::uint32_t operation, std::uint64_t node,
                               std::span<const std::byte> body, std::uint32_t room) {
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.opcode = operation;
    header.unique = kUnique;
    header.nodeid = node;
    ram.put(kRequest, header);
    ram.put_bytes(kRequest + sizeof header, body);
    const auto size = static_cast<std::uint32_t>(sizeof(fuse_out_header) + room);
    requests.add(
        {{kRequest, 7, false}, {kRequest + 7, header.len - 7, false}, {kReply, size, true}});
    const auto before = ram.snapshot();
    check_once(pages, chain_bytes(3) + header.len, [&] {
      device.on_queue(kFsFirstRequestQueue);
      io.run();
    });
    check_untouched(ram, before, kReply, {{kReply, size, true}});
    const auto used = requests.take_used();
    REQUIRE(used);
    const auto out = ram.get<fuse_out_header>(kReply);
    CHECK(out.error == 0);
    CHECK(out.unique == kUnique);
    CHECK(out.len == used->length);
    return ram.bytes(kReply + sizeof out, used->length - sizeof out);
  }
};

TEST_CASE_FIXTURE(FsFixture, "a shared tree gives the bytes of a file that were checked") {
  const std::string name("file\0", 5);
  const auto found =
      serve(FUSE_LOOKUP, SharedTree::kRoot, std::as_bytes(std::span(name)), sizeof(fuse_entry_out));
  REQUIRE(found.size() == sizeof(fuse_entry_out));
  fuse_entry_out entry{};
  std::memcpy(&entry, found.data(), sizeof entry);
  fuse_read_in read{};
  read.offset = 100;
  read.size = 1000;
  const auto got = serve(FUSE_READ, entry.nodeid, std::as_bytes(std::span(&read, 1)), 2000);
  CHECK(std::ranges::equal(got, std::span(content).subspan(100, 1000)));
}

TEST_CASE("a balloon discards the pages that were checked") {
  BalloonGuest guest;
  ChangingPages pages(guest.ram, {{GuestRam::kStart, 6}, {BalloonGuest::kRequest, 2}});
  for (const DriverQueue* queue :
       {&guest.inflation, &guest.deflation, &guest.stats, &guest.reporting}) {
    pages.leave(queue->geometry());
  }

  // More than what is looked at together.
  std::vector<std::uint32_t> numbers;
  for (std::uint32_t i = 0; i < 300; ++i) {
    numbers.push_back(BalloonGuest::kFree + i % 3 * 2);
  }
  const auto size = static_cast<std::uint32_t>(numbers.size() * sizeof(std::uint32_t));
  guest.put_pages(numbers);
  guest.inflation.add({{BalloonGuest::kRequest, size, false}});
  check_once(pages, chain_bytes(1) + size, [&] { guest.device.on_queue(kBalloonInflateQueue); });
  guest.check_lost({BalloonGuest::kFree, BalloonGuest::kFree + 2, BalloonGuest::kFree + 4});

  guest.deflation.add({{BalloonGuest::kRequest, size, false}});
  check_once(pages, chain_bytes(1) + size, [&] { guest.device.on_queue(kBalloonDeflateQueue); });

  guest.reporting.add({{BalloonGuest::kFree * kPage, 2 * kPage, true}});
  check_once(pages, chain_bytes(1), [&] { guest.device.on_queue(BalloonGuest::kReportingQueue); });
  guest.check_lost({BalloonGuest::kFree, BalloonGuest::kFree + 1});

  const std::array<BalloonStat, 2> stats{
      {{BalloonStatTag::kFreeMemory, 1000}, {BalloonStatTag::kTotalMemory, 2000}}};
  guest.ram.put_bytes(BalloonGuest::kRequest, std::as_bytes(std::span(stats)));
  guest.stats.add({{BalloonGuest::kRequest, sizeof stats, false}});
  check_once(pages, chain_bytes(1) + sizeof stats,
             [&] { guest.device.on_queue(kBalloonStatsQueue); });
  REQUIRE(guest.device.stats());
  CHECK(guest.device.stats()->free_memory == 1000);
  CHECK(guest.device.stats()->total_memory == 2000);
  CHECK(guest.device.counters().errors == 0);
}

TEST_CASE("an entropy device fills the buffers that were checked") {
  constexpr GuestAddress kData = GuestRam::kStart + 4 * kPage;
  GuestRam ram;
  DriverQueue requests(ram, GuestRam::kStart, 8);
  RecordingNotifier notifier;
  FakeIo io;
  io.answer = [](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    std::size_t filled = 0;
    for (const iovec& piece : request.buffers) {
      std::memset(piece.iov_base, 0x5a, piece.iov_len);
      filled += piece.iov_len;
    }
    return static_cast<std::int32_t>(filled);
  };
  RngDevice device(Fd(), io);
  device.activate({requests.device_side()}, kFeatureVersion1, notifier);
  ChangingPages pages(ram, {{GuestRam::kStart, 1}});
  pages.leave(requests.geometry());
  requests.add({{kData, 100, true}, {kData + kPage, 28, true}});
  const auto before = ram.snapshot();
  check_once(pages, chain_bytes(2), [&] {
    device.on_queue(kEntropyRequestQueue);
    io.run();
  });
  CHECK(requests.take_used()->length == 128);
  check_untouched(ram, before, kData, {{kData, 100, true}, {kData + kPage, 28, true}});
  CHECK(ram.bytes(kData, 100) == std::vector<std::byte>(100, std::byte{0x5a}));
  CHECK(ram.bytes(kData + kPage, 28) == std::vector<std::byte>(28, std::byte{0x5a}));
}

TEST_SUITE_END();

}  // namespace
}  // namespace msb::virtio
