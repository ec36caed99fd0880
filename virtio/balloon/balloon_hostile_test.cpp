// SPDX-License-Identifier: Apache-2.0
// Drivers that ask the balloon for what cannot be, or for far too much (hostile-input.md 6, 7, 9,
// 11, 15, 20).
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <set>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "virtio/rng/rng_device.hpp"
#include "virtio/testing/allocated_bytes.hpp"
#include "virtio/testing/balloon_guest.hpp"
#include "virtio/testing/fake_io.hpp"
#include "virtio/testing/racing_guest.hpp"

namespace msb::virtio {
namespace {

using testing::allocated_bytes;
using testing::BalloonGuest;
using testing::Buffer;
using testing::DriverQueue;
using testing::FakeIo;
using testing::GuestRam;
using testing::kPage;

TEST_CASE_FIXTURE(BalloonGuest, "buffers of the wrong direction come back at once, as errors") {
  put_pages(std::array<std::uint32_t, 2>{kFree + 1, kFree + 2});
  inflation.add({{kRequest, 8, true}});
  CHECK_FALSE(serve_well(inflation, kBalloonInflateQueue));
  deflation.add({{kRequest, 8, true}});
  CHECK_FALSE(serve_well(deflation, kBalloonDeflateQueue));
  stats.add({{kRequest, 20, true}});
  CHECK_FALSE(serve_well(stats, kBalloonStatsQueue));
  stats.add({{kRequest, 20, false}, {kRequest, 20, true}});
  CHECK_FALSE(serve_well(stats, kBalloonStatsQueue));
  reporting.add({{(kFree + 1) * kPage, kPage, false}});
  CHECK_FALSE(serve_well(reporting, kReportingQueue));
  check_lost({});
  CHECK_FALSE(device.request_stats());
  CHECK(device.counters().errors == 5);
  check_works();
}

TEST_CASE_FIXTURE(BalloonGuest, "what else a request carries is left alone") {
  put_pages(std::array<std::uint32_t, 1>{kFree + 1});
  inflation.add({{kRequest, 4, false}, {(kFree + 5) * kPage, kPage, true}});
  CHECK(serve_well(inflation, kBalloonInflateQueue));
  check_lost({kFree + 1});
  reporting.add({{(kFree + 5) * kPage, kPage, false}, {(kFree + 6) * kPage, kPage, true}});
  CHECK(serve_well(reporting, kReportingQueue));
  check_lost({kFree + 6});
}

TEST_CASE_FIXTURE(BalloonGuest,
                  "more bad chains than rings have entries, and a good one is served") {
  const std::vector<std::vector<Buffer>> bad{
      {{kRequest, 0, false}},
      {{kRequest, 0, true}},
      {{0, 4, false}},                                                //  no RAM
      {{ram.end() - 2, 4, false}},                                    //
      {{(kEnd - 1) * kPage, 2 * kPage, true}},                        //
      {{~GuestAddress{0}, 0xffff'ffff, true}},                        // and around
      {{(kFree + 1) * kPage, kPage, true}, {kRequest, 4, false}},     // readable after writable
      {{(kFree + 1) * kPage, kPage, true}, {ram.end(), kPage, true}}  // the second no RAM
  };
  for (int round = 0; round < 100; ++round) {
    for (const auto& buffers : bad) {
      inflation.add(buffers);
      serve(inflation, kBalloonInflateQueue);
      deflation.add(buffers);
      serve(deflation, kBalloonDeflateQueue);
      reporting.add(buffers);
      serve(reporting, kReportingQueue);
    }
    for (std::size_t i = 2; i < bad.size(); ++i) {
      stats.add(bad[i]);
      serve(stats, kBalloonStatsQueue);
    }
  }
  check_lost({});
  CHECK(device.returned_bytes() == 0);
  check_works();
}

TEST_CASE_FIXTURE(BalloonGuest, "a broken ring of any queue needs a reset, and then all works") {
  const std::array<DriverQueue*, 4> queues{&inflation, &deflation, &stats, &reporting};
  for (std::uint16_t index = 0; index < queues.size(); ++index) {
    CAPTURE(index);
    queues[index]->offer(0xffff);
    device.on_queue(index);
    CHECK(notifier.resets_wanted == 1);
    device.reset([] {});
    notifier.resets_wanted = 0;
    restart();
    check_works();
  }
}

TEST_CASE_FIXTURE(BalloonGuest, "reports that come to more than all RAM are turned away") {
  // All heads lead to one chain, of as many descriptors as there are, each naming all the RAM that
  // the driver does not use itself.
  constexpr std::uint32_t kSize = (kEnd - kFree) * kPage;
  for (std::uint16_t i = 0; i < 64; ++i) {
    const std::uint16_t flags = i < 63 ? kDescriptorWrite | kDescriptorNext : kDescriptorWrite;
    reporting.set_descriptor(i, {kFree * kPage, kSize, flags, static_cast<std::uint16_t>(i + 1)});
  }
  reporting.offer(0);
  device.on_queue(kReportingQueue);
  CHECK(device.counters().errors == 1);
  CHECK(device.returned_bytes() == 0);
  // 64 heads of one descriptor each: the first is all that can be free.
  for (std::uint16_t i = 0; i < 64; ++i) {
    reporting.offer(63);
  }
  device.on_queue(kReportingQueue);
  CHECK(reporting.used_index() == 65);
  CHECK(device.counters().errors == 1 + 63);
  CHECK(device.returned_bytes() == kSize);
  check_lost(pages(kFree, kEnd - kFree));
  // Another kick is another round.
  reporting.offer(63);
  device.on_queue(kReportingQueue);
  CHECK(device.counters().errors == 1 + 63);
  check_lost(pages(kFree, kEnd - kFree));
  CHECK(notifier.resets_wanted == 0);
}

TEST_CASE_FIXTURE(BalloonGuest, "a request as long as RAM is read no further than 4096 pages") {
  const std::size_t allocated = allocated_bytes();
  for (std::uint16_t i = 0; i < 16; ++i) {
    const std::uint16_t flags = i < 15 ? kDescriptorNext : std::uint16_t{0};
    inflation.set_descriptor(
        i, {GuestRam::kStart, kPages * kPage, flags, static_cast<std::uint16_t>(i + 1)});
  }
  // The numbers are whatever the rings and pages of the driver hold; those of its own are lost too.
  inflation.offer(0);
  device.on_queue(kBalloonInflateQueue);
  CHECK(device.counters().errors + static_cast<std::uint64_t>(notifier.resets_wanted) > 0);
  CHECK(allocated_bytes() - allocated < 64 * 1024);
  device.reset([] {});
  for (std::uint32_t page = kFree; page < kEnd; ++page) {
    mark(page);
  }
  notifier.resets_wanted = 0;
  restart();
  check_works();
}

TEST_CASE_FIXTURE(BalloonGuest, "a driver may give away its rings and the request itself") {
  for (const std::uint32_t page :
       {kFirst, kFirst + 4, kFirst + 8}) {  // inflation, reports, request
    CAPTURE(page);
    put_pages(std::array<std::uint32_t, 2>{page, kFree});
    inflation.add({{kRequest, 8, false}});
    device.on_queue(kBalloonInflateQueue);
    check_lost({kFree});
    reporting.add({{page * kPage, kPage, true}});
    device.on_queue(kReportingQueue);
    device.on_queue(kBalloonInflateQueue);
    device.on_queue(kReportingQueue);
    device.reset([] {});
    notifier.resets_wanted = 0;
    restart();
    check_works();
  }
}

TEST_CASE_FIXTURE(BalloonGuest, "a page that another device is filling may be given away") {
  std::array<int, 2> ends{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  const Fd host(ends[0]);
  DriverQueue requests(ram, GuestRam::kStart + 6 * kPage, 64);
  FakeIo io;
  RngDevice rng(Fd(ends[1]), io);
  rng.activate({requests.device_side()}, kFeatureVersion1, notifier);
  requests.add({{kFree * kPage, 2 * kPage, true}});
  rng.on_queue(kEntropyRequestQueue);
  CHECK(inflate({kFree}));
  CHECK(report({{(kFree + 1) * kPage, kPage, true}}));
  check_lost({kFree, kFree + 1});
  CHECK(inflate({kFree, kFree + 1}));
  REQUIRE(::send(host.get(), "random", 6, 0) == 6);
  io.run();
  CHECK(requests.take_used()->length == 6);
  CHECK(ram.get<char>(kFree * kPage + 5) == 'm');
  CHECK(ram.get<char>(kFree * kPage + 6) == 0);
  CHECK(ram.get<char>((kFree + 1) * kPage) == 0);
  mark(kFree);
  mark(kFree + 1);
  check_works();
}

TEST_CASE_FIXTURE(BalloonGuest, "random requests lose what they name and break nothing") {
  std::minstd_rand random(7);
  std::vector<std::uint32_t> numbers;
  for (int round = 0; round < 300; ++round) {
    numbers.resize(1 + random() % 40);
    std::set<std::uint32_t> lost;
    bool good = true;
    for (std::uint32_t& number : numbers) {
      number = random() % 8 == 0
                   ? static_cast<std::uint32_t>(random() * 5)
                   : kFree + static_cast<std::uint32_t>(random()) % (kEnd - kFree + 1);
      if (number < kFirst || number >= kEnd) {
        good = false;
      } else if (number < kFree) {
        number = kFree;
        lost.insert(number);
      } else {
        lost.insert(number);
      }
    }
    const std::uint64_t before = device.returned_bytes();
    CHECK(inflate(numbers) == good);
    CHECK(device.returned_bytes() - before == lost.size() * kPage);
    check_lost(lost);
  }
}

// Without a lock between the two: the numbers change between reading and using them, if anything
// reads them twice.
TEST_CASE_FIXTURE(BalloonGuest, "numbers that change while they are read never lead out of RAM" *
                                    doctest::skip(testing::kRacingGuestsAreReported)) {
  std::vector<std::uint32_t> numbers(1000, kFree);
  put_pages(numbers);
  std::jthread flipper([&](const std::stop_token& stop) {
    for (std::uint32_t i = 0; !stop.stop_requested(); ++i) {
      ram.put(kRequest + 4 * (i % 1000), i % 2 == 0 ? kFree + 1 : 0xffff'0000 + i % 1000);
    }
  });
  for (int round = 0; round < 300; ++round) {
    inflation.add({{kRequest, 4000, false}});
    serve(inflation, kBalloonInflateQueue);
  }
  flipper = {};
  for (std::uint32_t page = kFree + 2; page < kEnd; ++page) {
    CHECK(ram.get<std::byte>(page * kPage) == content(page, 0));
  }
  CHECK(notifier.resets_wanted == 0);
}

TEST_CASE_FIXTURE(BalloonGuest, "a kick ends although the driver adds chains as they come back" *
                                    doctest::skip(testing::kRacingGuestsAreReported)) {
  // As many pages as there may be: slower to look at than to add.
  std::vector<std::uint32_t> numbers;
  for (std::uint32_t i = 0; i < 1024; ++i) {
    numbers.push_back(kFree + i % 7);
  }
  put_pages(numbers);
  inflation.set_descriptor(0, {kRequest, 4 * 1024, 0, 0});
  std::jthread driver([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto ahead =
          static_cast<std::uint16_t>(inflation.available_index() - inflation.used_index());
      if (ahead < 16) {
        inflation.offer(0);
      }
    }
  });
  std::uint64_t most = 0;
  while (device.counters().requests < 1000) {
    const std::uint64_t before = device.counters().requests;
    device.on_queue(kBalloonInflateQueue);
    most = std::max(most, device.counters().requests - before);
  }
  CHECK(most <= 16);
  CHECK(notifier.resets_wanted == 0);
}

}  // namespace
}  // namespace msb::virtio
