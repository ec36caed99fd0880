// SPDX-License-Identifier: Apache-2.0
#include "virtio/guest_memory.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "virtio/testing/guest_ram.hpp"

namespace msb::virtio {
namespace {

using testing::GuestRam;
using testing::kPage;

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

// RAM as a machine has it: a low part, a hole for devices, and a high part.
constexpr GuestAddress kLow = 0;
constexpr GuestAddress kLowEnd = 4 * kPage;
constexpr GuestAddress kHigh = 0x1'0000'0000;
constexpr GuestAddress kHighEnd = kHigh + 2 * kPage;

TEST_CASE("a slice exists exactly for ranges that lie wholly in one part of guest RAM") {
  const GuestRam ram({{kLow, kLowEnd - kLow}, {kHigh, kHighEnd - kHigh}});
  struct Row {
    GuestAddress address;
    std::uint64_t length;
    bool ok;
  };
  const Row rows[] = {
      // the low part and its borders
      {kLow, 0, true},
      {kLow, 1, true},
      {kLow, kLowEnd, true},
      {kLow, kLowEnd + 1, false},
      {kLowEnd - 1, 1, true},
      {kLowEnd - 1, 2, false},
      {kLowEnd, 0, true},  // nothing, at the end
      {kLowEnd, 1, false},
      // the hole
      {kLowEnd + 1, 0, false},
      {kLowEnd + 1, 1, false},
      {kHigh - 1, 0, false},
      {kHigh - 1, 1, false},
      {kHigh - 1, 2, false},
      {kLow, kHighEnd, false},  // from one part to the end of the other
      {kLowEnd - 1, kHigh - kLowEnd + 2, false},
      // the high part and its borders
      {kHigh, 0, true},
      {kHigh, kHighEnd - kHigh, true},
      {kHigh, kHighEnd - kHigh + 1, false},
      {kHighEnd - 1, 1, true},
      {kHighEnd - 1, 2, false},
      {kHighEnd, 0, true},
      {kHighEnd, 1, false},
      {kHighEnd + 1, 0, false},
      // lengths and sums that wrap
      {kLow, kMax, false},
      {kLow + 1, kMax, false},
      {kHigh, kMax, false},
      {kHigh, 0 - kHigh, false},
      {kHigh, 0 - kHigh + 1, false},
      {kHigh + 1, kMax - kHigh, false},
      {kMax, 0, false},
      {kMax, 1, false},
      {kMax, 2, false},
      {kMax, kMax, false},
      {kMax - kPage + 1, kPage, false},
      {kMax - kPage + 1, 2 * kPage, false},  // wraps into the low part
      {0 - kPage, kPage + 16, false},
  };
  for (const Row& row : rows) {
    CAPTURE(row.address);
    CAPTURE(row.length);
    const auto slice = ram.memory().slice(row.address, row.length);
    CHECK(slice.has_value() == row.ok);
    if (slice) {
      CHECK(slice->size() == row.length);
    }
  }
}

TEST_CASE("a range over two adjacent parts of guest RAM is no slice") {
  const GuestRam ram({{0, kPage}, {kPage, kPage}});
  CHECK(ram.memory().slice(kPage - 8, 8));
  CHECK(ram.memory().slice(kPage, 8));
  CHECK(ram.memory().slice(kPage, 0));
  CHECK_FALSE(ram.memory().slice(kPage - 8, 16));
}

TEST_CASE("RAM that ends at the top of the address space has borders like any other") {
  const GuestRam ram({{0 - kPage, kPage}});
  CHECK(ram.memory().slice(0 - kPage, kPage));
  CHECK(ram.memory().slice(kMax, 1));
  CHECK_FALSE(ram.memory().slice(kMax, 2));
  CHECK_FALSE(ram.memory().slice(0, 0));
  CHECK_FALSE(ram.memory().slice(0 - kPage, kPage + 1));
}

TEST_CASE("memory without ranges has no slice, not even an empty one") {
  const GuestRam ram({{0x1000, kPage}});
  const auto none = GuestMemory::create({});
  REQUIRE(none);
  CHECK_FALSE((*none)->slice(0, 0));
  CHECK_FALSE((*none)->slice(0, 1));
}

TEST_CASE("the error of a slice names the range") {
  const GuestRam ram;
  const auto slice = ram.memory().slice(0x1234, 0x56);
  REQUIRE_FALSE(slice);
  CHECK(slice.error().message == "guest-physical range 0x1234 with 0x56 bytes is not guest memory");
}

TEST_CASE("what is written through a slice is read back at the same guest address") {
  const GuestRam ram;
  const auto slice = ram.memory().slice(GuestRam::kStart + 1, 9);  // unaligned on purpose
  REQUIRE(slice);
  slice->store(1, std::uint64_t{0x1122334455667788});
  CHECK(ram.get<std::uint64_t>(GuestRam::kStart + 2) == 0x1122334455667788);
  CHECK(slice->load<std::uint64_t>(1) == 0x1122334455667788);
  CHECK(slice->subslice(1, 4).load<std::uint32_t>(0) == 0x55667788);
  slice->subslice(9, 0).read(0, {});
  slice->fill(std::byte{0xaa});
  CHECK(ram.get<std::uint8_t>(GuestRam::kStart) == 0);
  CHECK(ram.get<std::uint8_t>(GuestRam::kStart + 1) == 0xaa);
  CHECK(ram.get<std::uint8_t>(GuestRam::kStart + 9) == 0xaa);
  CHECK(ram.get<std::uint8_t>(GuestRam::kStart + 10) == 0);
  CHECK(slice->as_iovec().iov_len == 9);
}

// Found by this test: memcpy() got null pointers.
TEST_CASE("nothing can be copied to and from anywhere, also a slice of nothing") {
  const GuestRam ram;
  const auto end = ram.memory().slice(ram.end(), 0);
  REQUIRE(end);
  for (const GuestSlice& slice : {*end, GuestSlice()}) {
    slice.read(0, {});
    slice.write(0, {});
    slice.fill(std::byte{1});
    CHECK(slice.subslice(0, 0).size() == 0);
  }
}

TEST_CASE("atomic accesses see and change the same bytes as plain ones") {
  const GuestRam ram;
  const auto slice = ram.memory().slice(GuestRam::kStart, 4);
  REQUIRE(slice);
  slice->store_atomic(2, 0xbeef, std::memory_order_release);
  CHECK(ram.get<std::uint32_t>(GuestRam::kStart) == 0xbeef0000);
  CHECK(slice->load_atomic(2, std::memory_order_acquire) == 0xbeef);
}

TEST_CASE("discarding a slice empties the whole pages inside it and touches nothing else") {
  constexpr std::uint64_t kPages = 6;
  struct Row {
    std::uint64_t offset;
    std::uint64_t length;
    std::uint64_t first;  // page that gets lost
    std::uint64_t count;
  };
  const Row rows[] = {
      {0, 0, 0, 0},
      {0, 1, 0, 0},
      {0, kPage - 1, 0, 0},
      {0, kPage, 0, 1},
      {0, kPage + 1, 0, 1},
      {0, 2 * kPage - 1, 0, 1},
      {0, kPages * kPage, 0, kPages},
      {1, kPage - 1, 0, 0},
      {1, kPage, 0, 0},
      {1, 2 * kPage - 2, 0, 0},
      {1, 2 * kPage - 1, 1, 1},
      {1, kPages * kPage - 1, 1, kPages - 1},
      {1, kPages * kPage - 2, 1, kPages - 2},
      {kPage - 1, kPage, 0, 0},
      {kPage - 1, kPage + 1, 1, 1},
      {kPage, 3 * kPage, 1, 3},
      {5 * kPage - 1, 1, 0, 0},
      {5 * kPage, kPage, 5, 1},
      {5 * kPage + 1, kPage - 1, 0, 0},
      {kPages * kPage, 0, 0, 0},
      {kPages * kPage - 1, 1, 0, 0},
  };
  const GuestRam ram(kPages * kPage);
  const auto all = ram.memory().slice(GuestRam::kStart, kPages * kPage);
  REQUIRE(all);
  for (const Row& row : rows) {
    CAPTURE(row.offset);
    CAPTURE(row.length);
    all->fill(std::byte{0xaa});
    CHECK(all->subslice(row.offset, row.length).discard() == row.count * kPage);
    for (std::uint64_t page = 0; page < kPages; ++page) {
      const bool lost = page >= row.first && page < row.first + row.count;
      const std::vector<std::byte> expected(kPage, lost ? std::byte{0} : std::byte{0xaa});
      CHECK(ram.bytes(GuestRam::kStart + page * kPage, kPage) == expected);
    }
  }
  CHECK(GuestSlice().discard() == 0);
}

TEST_CASE("a discarded page can be written again") {
  GuestRam ram;
  ram.put(GuestRam::kStart, std::uint64_t{1});
  CHECK(ram.memory().slice(GuestRam::kStart, kPage)->discard() == kPage);
  ram.put(GuestRam::kStart + 8, std::uint64_t{2});
  CHECK(ram.get<std::uint64_t>(GuestRam::kStart) == 0);
  CHECK(ram.get<std::uint64_t>(GuestRam::kStart + 8) == 2);
}

TEST_CASE("guest memory that the host cannot give is an error") {
  const std::array ranges{GuestMemory::Range{0, std::uint64_t{1} << 60}};
  const auto memory = GuestMemory::create(ranges);
  REQUIRE_FALSE(memory);
  CHECK(memory.error().message.find("give the sandbox less") != std::string::npos);
}

}  // namespace
}  // namespace msb::virtio
