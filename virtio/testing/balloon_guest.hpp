// SPDX-License-Identifier: Apache-2.0
// A guest in front of a balloon device, in plain memory, every page of which has bytes that a test
// can tell from those of any other, and from zeros.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "virtio/balloon/balloon_device.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_notifier.hpp"

namespace msb::virtio::testing {

struct BalloonGuest {
  static constexpr std::uint64_t kAll =
      kFeatureVersion1 | kBalloonFeatureStats | kBalloonFeatureReporting;
  static constexpr std::uint16_t kReportingQueue = 3;  // when the driver wants statistics too

  static constexpr std::uint64_t kPages = 64;
  // The first pages are the driver's, for rings and requests; the rest is what it may give up.
  static constexpr std::uint32_t kFirst = GuestRam::kStart / kPage;
  static constexpr std::uint32_t kFree = kFirst + 16;
  static constexpr std::uint32_t kEnd = kFirst + kPages;
  static constexpr GuestAddress kRequest = GuestRam::kStart + 8 * kPage;

  BalloonGuest() {
    for (std::uint32_t page = kFree; page < kEnd; ++page) {
      mark(page);
    }
    activate();
  }

  void activate(std::uint64_t features = kAll) {
    std::vector<Queue> queues{inflation.device_side(), deflation.device_side()};
    if ((features & kBalloonFeatureStats) != 0) {
      queues.push_back(stats.device_side());
    }
    if ((features & kBalloonFeatureReporting) != 0) {
      queues.push_back(reporting.device_side());
    }
    REQUIRE(queues.size() == device.queues_needed(features));
    device.activate(std::move(queues), features, notifier);
  }
  void restart(std::uint64_t features = kAll) {
    for (DriverQueue* queue : {&inflation, &deflation, &stats, &reporting}) {
      queue->restart();
    }
    activate(features);
  }

  static std::byte content(std::uint32_t page, std::size_t offset) {
    return static_cast<std::byte>(1 + (page * 31 + offset) % 255);
  }
  void mark(std::uint32_t page) {
    std::vector<std::byte> bytes(kPage);
    for (std::size_t i = 0; i < kPage; ++i) {
      bytes[i] = content(page, i);
    }
    ram.put_bytes(page * kPage, bytes);
  }
  // Exactly the pages `lost` are zeros, every other free one is as it was marked. Marks them again.
  void check_lost(const std::set<std::uint32_t>& lost) {
    for (std::uint32_t page = kFree; page < kEnd; ++page) {
      const auto bytes = ram.bytes(page * kPage, kPage);
      for (std::size_t i = 0; i < kPage; ++i) {
        if (bytes[i] != (lost.contains(page) ? std::byte{0} : content(page, i))) {
          FAIL("byte ", i, " of page ", page, " is ", static_cast<int>(bytes[i]));
        }
      }
    }
    for (const std::uint32_t page : lost) {
      mark(page);
    }
  }
  static std::set<std::uint32_t> pages(std::uint32_t first, std::uint32_t count) {
    std::set<std::uint32_t> all;
    for (std::uint32_t page = first; page < first + count; ++page) {
      all.insert(page);
    }
    return all;
  }

  // Kicks a queue, in which exactly one request must come back, with nothing written.
  void serve(DriverQueue& queue, std::uint16_t index) {
    device.on_queue(index);
    const auto used = queue.take_used();
    REQUIRE(used);
    CHECK(used->length == 0);
    CHECK_FALSE(queue.take_used());
  }
  // Gives whether the request was answered without an error.
  bool serve_well(DriverQueue& queue, std::uint16_t index) {
    const std::uint64_t requests = device.counters().requests;
    const std::uint64_t errors = device.counters().errors;
    serve(queue, index);
    CHECK(device.counters().requests == requests + 1);
    return device.counters().errors == errors;
  }
  void put_pages(std::span<const std::uint32_t> numbers) {
    ram.put_bytes(kRequest, std::as_bytes(numbers));
  }
  bool inflate(std::span<const std::uint32_t> numbers) {
    put_pages(numbers);
    inflation.add({{kRequest, static_cast<std::uint32_t>(numbers.size_bytes()), false}});
    return serve_well(inflation, kBalloonInflateQueue);
  }
  bool inflate(std::initializer_list<std::uint32_t> numbers) {
    return inflate(std::span(numbers.begin(), numbers.size()));
  }
  bool deflate(std::initializer_list<std::uint32_t> numbers) {
    put_pages(std::span(numbers.begin(), numbers.size()));
    deflation.add({{kRequest, static_cast<std::uint32_t>(4 * numbers.size()), false}});
    return serve_well(deflation, kBalloonDeflateQueue);
  }
  bool report(std::initializer_list<Buffer> buffers) {
    reporting.add(buffers);
    return serve_well(reporting, kReportingQueue);
  }
  // Everything works as for a guest that has done nothing yet.
  void check_works() {
    CHECK(inflate({kFree, kFree + 1}));
    check_lost({kFree, kFree + 1});
    CHECK(deflate({kFree, kFree + 1}));
    CHECK(report({{(kFree + 2) * kPage, kPage, true}}));
    check_lost({kFree + 2});
    CHECK(notifier.resets_wanted == 0);
  }

  GuestRam ram{kPages * kPage};
  DriverQueue inflation{ram, GuestRam::kStart, 16};
  DriverQueue deflation{ram, GuestRam::kStart + kPage, 16};
  DriverQueue stats{ram, GuestRam::kStart + 2 * kPage, 64};
  DriverQueue reporting{ram, GuestRam::kStart + 4 * kPage, 64};
  RecordingNotifier notifier;
  BalloonDevice device{ram.memory()};
};

}  // namespace msb::virtio::testing
