// SPDX-License-Identifier: Apache-2.0
// The device on the real event loop, whose other thread answers for the shares by itself.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/loop.hpp"
#include "virtio/fs/fs_device.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"

namespace msb::virtio {
namespace {

using testing::DriverQueue;
using testing::GuestRam;
using testing::kPage;

struct CountingNotifier final : DriverNotifier {
  void used_buffers() override { ++interrupts; }
  void kick_again(std::uint16_t /*index*/) override { ++kicks; }
  void config_changed() override {}
  void needs_reset() override { ++broken; }
  std::atomic<int> interrupts = 0;
  std::atomic<int> kicks = 0;
  std::atomic<int> broken = 0;
};

struct LoopFixture {
  static constexpr std::uint16_t kRequests = 16;  // at a time
  static constexpr GuestAddress kIn = GuestRam::kStart + 8 * kPage;
  static constexpr GuestAddress kOut = GuestRam::kStart + 16 * kPage;

  LoopFixture() {
    auto created = Loop::create();
    REQUIRE(created);
    loop = std::move(*created);
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    device = std::make_unique<FsDevice>(
        "share", FuseServer(SharedTree(), OwnerRule(::geteuid(), ::getegid()), ShareLimits{}),
        *loop);
    activate();
    bool added = false;
    device->add_share("share", Fd(::open(name.c_str(), O_PATH | O_CLOEXEC)), false,
                      ShareCache::kAuto, [&](const Result<void>& done) {
                        added = done.has_value();
                        loop->stop();
                      });
    REQUIRE(loop->run());
    REQUIRE(added);
    offer(0, FUSE_LOOKUP, 1, std::to_array("share"));
    serve(1);
    node = ram.get<fuse_entry_out>(kOut + sizeof(fuse_out_header)).nodeid;
    REQUIRE(node != 0);
  }
  ~LoopFixture() {
    loop->drain();
    ::rmdir(name.c_str());
  }
  LoopFixture(const LoopFixture&) = delete;
  LoopFixture& operator=(const LoopFixture&) = delete;

  void activate() {
    device->activate({priority.device_side(), requests.device_side()}, kFeatureVersion1, notifier);
  }
  template <typename T>
  void offer(std::uint16_t place, std::uint32_t opcode, std::uint64_t at, const T& body) {
    fuse_in_header header{};
    header.len = sizeof header + sizeof body;
    header.opcode = opcode;
    header.unique = 100U + place;
    header.nodeid = at;
    ram.put(kIn + 256 * place, header);
    ram.put(kIn + 256 * place + sizeof header, body);
    requests.add({{kIn + 256 * place, header.len, false}, {kOut + 256 * place, 256, true}});
  }
  void offer_all() {
    for (std::uint16_t place = 0; place < kRequests; ++place) {
      offer(place, FUSE_GETATTR, node, fuse_getattr_in{});
    }
  }
  void tick(const std::function<bool()>& until) {
    Operation* again = nullptr;
    Operation timer([&](std::int32_t) {
      if (until()) {
        loop->stop();
      } else {
        loop->timeout(100'000, *again);
      }
    });
    again = &timer;
    loop->timeout(1, timer);
    REQUIRE(loop->run());
  }
  // Gives so many requests to the device, and waits for the answers.
  void serve(int count) {
    device->on_queue(kFsFirstRequestQueue);
    int used = 0;
    tick([&] {
      while (const auto element = requests.take_used()) {
        CHECK(element->length >= sizeof(fuse_out_header));
        ++used;
      }
      return used == count;
    });
  }

  GuestRam ram{64 * kPage};
  DriverQueue priority{ram, GuestRam::kStart, 8};
  DriverQueue requests{ram, GuestRam::kStart + kPage, 64};
  CountingNotifier notifier;
  std::string name = "/tmp/msb-fs-loop-XXXXXX";
  std::unique_ptr<Loop> loop;
  std::unique_ptr<FsDevice> device;
  std::uint64_t node = 0;
};

TEST_CASE_FIXTURE(LoopFixture, "requests are answered from the other thread, and counted") {
  for (int round = 0; round < 50; ++round) {
    offer_all();
    serve(kRequests);
  }
  bool paused = false;
  device->pause([&] { paused = true; });
  tick([&] { return paused; });
  CHECK(device->counters().requests == 1 + 50 * kRequests);  // the first was a lookup
  CHECK(notifier.interrupts > 0);
  CHECK(notifier.broken == 0);
}

TEST_CASE_FIXTURE(LoopFixture, "a pause or reset finds the end of what the other thread does") {
  for (int round = 0; round < 100; ++round) {
    offer_all();
    device->on_queue(kFsFirstRequestQueue);
    bool paused = false;
    // No timer: what wakes the loop up is the device's own.
    device->pause([&] {
      paused = true;
      loop->post([&] { loop->stop(); });
    });
    REQUIRE(loop->run());
    CHECK(paused);
    int used = 0;
    while (requests.take_used()) {
      ++used;
    }
    CHECK(used == kRequests);
    offer_all();
    device->on_queue(kFsFirstRequestQueue);
    device->reset([&] { loop->post([&] { loop->stop(); }); });
    REQUIRE(loop->run());
    requests.restart();
    priority.restart();
    activate();
    offer(0, FUSE_LOOKUP, 1, std::to_array("share"));
    serve(1);
    node = ram.get<fuse_entry_out>(kOut + sizeof(fuse_out_header)).nodeid;
  }
}

}  // namespace
}  // namespace msb::virtio
