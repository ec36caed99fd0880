// SPDX-License-Identifier: Apache-2.0
// Pages that go back to the host, and no others (hostile-input.md 15, 20).
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <set>
#include <span>
#include <vector>

#include "virtio/testing/balloon_guest.hpp"

namespace msb::virtio {
namespace {

using testing::BalloonGuest;
using testing::Buffer;
using testing::DriverQueue;
using testing::GuestRam;
using testing::kPage;
using testing::RecordingNotifier;

TEST_CASE_FIXTURE(BalloonGuest, "pages of an inflation are lost, and only these") {
  CHECK(inflate({kFree + 3}));
  check_lost({kFree + 3});
  CHECK(inflate({kFree, kEnd - 1, kFree + 7}));
  check_lost({kFree, kFree + 7, kEnd - 1});
  CHECK(device.returned_bytes() == 4 * kPage);
  CHECK(notifier.interrupts == 2);
  CHECK(device.counters().requests == 2);
  CHECK(device.counters().errors == 0);
  CHECK(device.counters().bytes_read == 0);
  CHECK(device.counters().bytes_written == 0);
}

TEST_CASE_FIXTURE(BalloonGuest, "pages are lost in whatever order they are named") {
  CHECK(inflate({kFree + 5, kFree + 6, kFree + 7, kFree + 9}));
  check_lost({kFree + 5, kFree + 6, kFree + 7, kFree + 9});
  CHECK(inflate({kFree + 9, kFree + 7, kFree + 6, kFree + 5}));
  check_lost({kFree + 5, kFree + 6, kFree + 7, kFree + 9});
  CHECK(inflate({kFree + 6, kFree + 9, kFree + 5, kFree + 7}));
  check_lost({kFree + 5, kFree + 6, kFree + 7, kFree + 9});
  CHECK(device.returned_bytes() == 12 * kPage);
}

TEST_CASE_FIXTURE(BalloonGuest, "a page that is named repeatedly is given back once") {
  CHECK(inflate({kFree, kFree, kFree + 1, kFree, kFree + 1, kFree + 1, kFree + 3, kFree + 3}));
  check_lost({kFree, kFree + 1, kFree + 3});
  CHECK(device.returned_bytes() == 3 * kPage);
}

TEST_CASE_FIXTURE(BalloonGuest, "a page that is no RAM is an error, and the others are lost") {
  struct Row {
    std::vector<std::uint32_t> named;
    std::set<std::uint32_t> lost;
  };
  const Row rows[] = {
      {{0}, {}},
      {{kFirst - 1}, {}},
      {{kEnd}, {}},
      {{1 << 20}, {}},
      {{0xffff'ffff}, {}},
      {{0x8000'0000}, {}},
      {{0x000f'ffff, 0x0010'0000, 0x0010'0000 + kFree}, {}},  // 4 GiB around
      {{kEnd - 1, kEnd}, {kEnd - 1}},
      {{kEnd, kEnd - 1, kEnd + 1, kEnd - 2}, {kEnd - 2, kEnd - 1}},
      {{0, kFree, 0xffff'ffff, kFree + 1, kEnd, kFree + 3}, {kFree, kFree + 1, kFree + 3}},
      {{0xffff'ffff, 0, 0xffff'fffe, 1, kFree}, {kFree}},
      {{0, 0, 0, 0xffff'ffff, 0xffff'ffff}, {}},
  };
  std::uint64_t errors = 0;
  std::uint64_t lost = 0;
  for (const Row& row : rows) {
    CAPTURE(row.named[0]);
    CHECK_FALSE(inflate(row.named));
    check_lost(row.lost);
    lost += row.lost.size();
    CHECK(device.counters().errors == ++errors);  // of the request, however many pages
  }
  CHECK(device.returned_bytes() == lost * kPage);
  check_works();
}

TEST_CASE("neighbours in different parts of RAM are both lost, and what lies between is no page") {
  GuestRam ram({{0x10000, 16 * kPage},  // with the next one right behind it
                {0x10000 + 16 * kPage, 8 * kPage},
                {0x1'0000'0000, 8 * kPage}});
  DriverQueue inflation(ram, 0x10000, 16);
  DriverQueue deflation(ram, 0x10000 + kPage, 16);
  RecordingNotifier notifier;
  BalloonDevice device(ram.memory());
  device.activate({inflation.device_side(), deflation.device_side()}, kFeatureVersion1, notifier);
  const std::vector<std::uint32_t> named{
      0x10 + 15, 0x10 + 16, 0x10 + 23, 0x10 + 24,  // the last is none
      0xf'ffff,  0x10'0000, 0x10'0007, 0x10'0008};
  const GuestAddress request = 0x10000 + 2 * kPage;
  ram.put_bytes(request, std::as_bytes(std::span(named)));
  for (const std::uint32_t page : {15U, 14U, 16U, 17U, 22U, 23U}) {
    ram.put((0x10 + page) * kPage, std::uint64_t{1});
  }
  for (std::uint64_t page = 0; page < 8; ++page) {
    ram.put(0x1'0000'0000 + page * kPage, std::uint64_t{1});
  }
  inflation.add({{request, 32, false}});
  device.on_queue(kBalloonInflateQueue);
  CHECK(device.counters().errors == 1);
  CHECK(device.returned_bytes() == 5 * kPage);
  for (const std::uint32_t page : {14U, 17U, 22U}) {
    CHECK(ram.get<std::uint64_t>((0x10 + page) * kPage) == 1);
  }
  for (const std::uint32_t page : {15U, 16U, 23U}) {
    CHECK(ram.get<std::uint64_t>((0x10 + page) * kPage) == 0);
  }
  for (std::uint64_t page = 0; page < 8; ++page) {
    CHECK(ram.get<std::uint64_t>(0x1'0000'0000 + page * kPage) == (page == 0 || page == 7 ? 0 : 1));
  }
}

TEST_CASE_FIXTURE(BalloonGuest, "page numbers may be split over descriptors at any byte") {
  const std::array<std::uint32_t, 3> numbers{kFree + 1, kFree + 8, kFree + 4};
  put_pages(numbers);
  for (std::uint32_t split = 0; split <= 12; ++split) {
    inflation.add({{kRequest, split, false}, {kRequest + split, 12 - split, false}});
    CHECK(serve_well(inflation, kBalloonInflateQueue));
    check_lost({kFree + 1, kFree + 4, kFree + 8});
  }
  std::vector<Buffer> buffers;
  for (std::uint32_t i = 0; i < 12; ++i) {
    buffers.push_back({kRequest + i, 1, false});
  }
  inflation.add(buffers);
  CHECK(serve_well(inflation, kBalloonInflateQueue));
  check_lost({kFree + 1, kFree + 4, kFree + 8});
}

TEST_CASE_FIXTURE(BalloonGuest, "a length that is no array is an error after its whole numbers") {
  put_pages(std::array<std::uint32_t, 3>{kFree + 1, kFree + 3, kFree + 5});
  for (std::uint32_t length = 0; length < 12; ++length) {
    CAPTURE(length);
    inflation.add({{kRequest, length, false}});
    CHECK(serve_well(inflation, kBalloonInflateQueue) == (length > 0 && length % 4 == 0));
    std::set<std::uint32_t> lost;
    for (std::uint32_t i = 0; i < length / 4; ++i) {
      lost.insert(kFree + 1 + 2 * i);
    }
    check_lost(lost);
    deflation.add({{kRequest, length, false}});
    CHECK(serve_well(deflation, kBalloonDeflateQueue) == (length > 0 && length % 4 == 0));
    check_lost({});
  }
}

TEST_CASE("requests of many pages are read in pieces, up to 1024 and no further") {
  constexpr std::uint32_t kPages = 5000;
  GuestRam ram((kPages + 16) * kPage);
  DriverQueue inflation(ram, GuestRam::kStart, 16);
  DriverQueue deflation(ram, GuestRam::kStart + kPage, 16);
  RecordingNotifier notifier;
  BalloonDevice device(ram.memory());
  device.activate({inflation.device_side(), deflation.device_side()}, kFeatureVersion1, notifier);
  constexpr std::uint32_t kFirst = GuestRam::kStart / kPage + 16;
  std::vector<std::uint32_t> numbers(kPages);
  std::iota(numbers.rbegin(), numbers.rend(), kFirst);  // as Linux names them, from the last
  constexpr GuestAddress kRequest = GuestRam::kStart + 8 * kPage;
  ram.put_bytes(kRequest, std::as_bytes(std::span(numbers)));
  const auto lost = [&](std::uint32_t number) {
    return ram.get<std::uint64_t>(number * kPage) == 0;
  };
  std::uint64_t errors = 0;
  for (const std::uint32_t count : {255U, 256U, 257U, 513U, 1023U, 1024U, 1025U, 5000U}) {
    CAPTURE(count);
    for (std::uint32_t page = kFirst; page < kFirst + kPages; ++page) {
      ram.put(page * kPage, std::uint64_t{1});
    }
    const std::uint64_t before = device.returned_bytes();
    inflation.add({{kRequest, 4 * count, false}});
    device.on_queue(kBalloonInflateQueue);
    CHECK(inflation.take_used());
    const std::uint32_t done = std::min(count, 1024U);
    CHECK(device.returned_bytes() - before == done * kPage);
    CHECK(std::ranges::all_of(std::span(numbers).first(done), lost));
    CHECK(std::ranges::none_of(std::span(numbers).subspan(done), lost));
    errors += count > 1024 ? 1 : 0;
    CHECK(device.counters().errors == errors);
    deflation.add({{kRequest, 4 * count, false}});
    device.on_queue(kBalloonDeflateQueue);
    CHECK(deflation.take_used());
    errors += count > 1024 ? 1 : 0;
    CHECK(device.counters().errors == errors);
  }
}

TEST_CASE_FIXTURE(BalloonGuest, "a deflation changes no memory, and pages that are none are seen") {
  CHECK(deflate({kFree, kFree + 1, kFree, kEnd - 1}));
  CHECK_FALSE(deflate({0}));
  CHECK_FALSE(deflate({kEnd}));
  CHECK_FALSE(deflate({kFree, 0xffff'ffff}));
  check_lost({});
  CHECK(device.returned_bytes() == 0);
  CHECK(device.counters().errors == 3);
}

TEST_CASE_FIXTURE(BalloonGuest, "whole pages of a report are lost, and only these") {
  CHECK(report({{(kFree + 2) * kPage, 3 * kPage, true}}));
  check_lost(pages(kFree + 2, 3));
  CHECK(report({{kFree * kPage + 1, 2 * kPage, true},
                {(kFree + 8) * kPage, kPage, true},
                {(kFree + 10) * kPage, kPage - 1, true},
                {(kEnd - 1) * kPage, kPage, true}}));
  check_lost({kFree + 1, kFree + 8, kEnd - 1});
  CHECK(device.returned_bytes() == 6 * kPage);
  CHECK(device.counters().errors == 0);
}

TEST_CASE_FIXTURE(BalloonGuest, "a report of Linux, 32 blocks of 2 MiB, is taken in one") {
  constexpr std::uint32_t kBlock = 2 << 20;
  GuestRam large(33 * std::uint64_t{kBlock});
  DriverQueue first(large, GuestRam::kStart, 16);
  DriverQueue second(large, GuestRam::kStart + kPage, 16);
  DriverQueue reports(large, GuestRam::kStart + 2 * kPage, 64);
  BalloonDevice balloon(large.memory());
  balloon.activate({first.device_side(), second.device_side(), reports.device_side()},
                   kFeatureVersion1 | kBalloonFeatureReporting, notifier);
  std::vector<Buffer> blocks;
  for (std::uint64_t i = 0; i < 32; ++i) {
    const GuestAddress block = GuestRam::kStart + 16 * kPage + i * kBlock;
    large.put(block + 12345, std::uint64_t{1});
    blocks.push_back({block, kBlock, true});
  }
  reports.add(blocks);
  balloon.on_queue(2);
  CHECK(reports.take_used()->length == 0);
  CHECK(balloon.returned_bytes() == 32 * std::uint64_t{kBlock});
  CHECK(balloon.counters().errors == 0);
  for (const Buffer& block : blocks) {
    CHECK(large.get<std::uint64_t>(block.address + 12345) == 0);
  }
}

}  // namespace
}  // namespace msb::virtio
