// SPDX-License-Identifier: Apache-2.0
// A guest and a host that do anything at all, in any order, over a backend that is late
// (hostile-input.md 14, 17, 18).
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "virtio/testing/allocated_bytes.hpp"
#include "virtio/testing/vsock_guest.hpp"

namespace msb::virtio {
namespace {

using testing::allocated_bytes;
using testing::FakeIo;
using testing::VsockGuest;
using testing::VsockWorld;

class RandomWalk {
 public:
  explicit RandomWalk(std::uint32_t seed) : random_(seed) {}

  void step() {
    switch (pick(16)) {
      case 0:
        give_buffers();
        break;
      case 1:
        world_.guest.receive();  // fails when a packet to the guest is malformed
        break;
      case 2:
      case 3:
        host_acts();
        break;
      case 4:
        connect();
        break;
      case 5:
      case 6:
      case 7:
        late_ = pick(4);
        world_.io.run_once();
        break;
      case 8:
        if (pick(200) == 0) {
          reset();
        }
        break;
      default:
        guest_sends();
        break;
    }
    if (world_.guest.notifier.resets_wanted != 0) {
      FAIL("the rings are sound, and the device wants a reset");
    }
  }

  // Everything that is under way comes to its end, and the device is as new.
  void reset() {
    late_ = 0;
    bool done = false;
    world_.guest.device.reset([&] { done = true; });
    world_.io.run();
    CHECK(done);
    CHECK(world_.io.pending() == 0);
    hosts_.clear();
    world_.accepted.clear();
    world_.guest.restart();
  }

  void check_alive() {
    const Fd host = world_.open_from_guest({VsockWorld::kOpenPort, 99});
    world_.guest.send_text({VsockWorld::kOpenPort, 99}, "alive");
    world_.io.run();
    CHECK(VsockWorld::read_all(host) == "alive");
  }

 private:
  std::uint32_t pick(std::uint32_t below) { return static_cast<std::uint32_t>(random_() % below); }

  VsockConnectionKey pick_key() {
    const std::uint32_t guest_port = pick(4);
    if (!host_keys_.empty() && pick(3) == 0) {
      return host_keys_[pick(static_cast<std::uint32_t>(host_keys_.size()))];
    }
    return {pick(8) == 0 ? 1 : VsockWorld::kOpenPort + pick(2), guest_port};
  }

  void guest_sends() {
    constexpr std::uint32_t kAllocations[] = {0, 1, 10, 4096, 1 << 20, 0x8000'0000, 0xffff'ffff};
    constexpr std::uint32_t kLengths[] = {0, 1, 43, 100, 4096, 60'000};
    VsockGuest& guest = world_.guest;
    guest.reclaim();
    if (guest.send_queue.free() < 4) {
      give_buffers();  // the guest has stalled itself
      return;
    }
    guest.allocation = kAllocations[pick(7)];
    guest.forwarded = pick(3) == 0 ? static_cast<std::uint32_t>(random_()) : pick(100);
    const std::vector<std::byte> payload(kLengths[pick(6)], std::byte{'g'});
    VsockHeader header =
        guest.header_of(static_cast<VsockOp>(pick(16) == 0 ? pick(65536) : 1 + pick(7)), pick_key(),
                        static_cast<std::uint32_t>(payload.size()), pick(4));
    if (pick(16) == 0) {
      header.length = static_cast<std::uint32_t>(random_());
    }
    if (pick(64) == 0) {
      header.type = static_cast<std::uint16_t>(pick(4));
    }
    if (pick(64) == 0) {
      header.dst_cid = pick(5);
    }
    const std::uint32_t pieces[] = {pick(64)};
    guest.add_packet(header, payload, std::span(pieces).first(pick(2)));
    if (pick(4) != 0) {
      guest.kick();
    }
  }

  void give_buffers() {
    constexpr std::uint32_t kSizes[] = {0, 10, 44, 45, 100, 4096, 4096, 60'000};
    world_.guest.receive();
    const auto free = static_cast<std::uint32_t>(world_.guest.receive_queue.free());
    if (free > 0) {
      world_.guest.give_buffers(1 + pick(free) % 8, kSizes[pick(8)]);
    }
  }

  void host_acts() {
    for (Fd& host : world_.accepted) {
      hosts_.push_back(std::move(host));
    }
    world_.accepted.clear();
    if (hosts_.empty()) {
      return;
    }
    const std::size_t which = pick(static_cast<std::uint32_t>(hosts_.size()));
    Fd& host = hosts_[which];
    switch (pick(8)) {
      case 0:
        hosts_.erase(hosts_.begin() + static_cast<std::ptrdiff_t>(which));
        break;
      case 1:
        ::shutdown(host.get(), SHUT_WR);
        break;
      case 2:
        ::shutdown(host.get(), SHUT_RD);
        break;
      case 3:
      case 4: {
        const std::string text(1 + pick(20'000), 'h');
        ::send(host.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
      }
      default:
        VsockWorld::read_all(host);
        break;
    }
    if (hosts_.size() > 32) {
      hosts_.erase(hosts_.begin());
    }
  }

  void connect() {
    auto [device_end, host] = VsockWorld::make_pair();
    world_.guest.device.connect(std::move(device_end), pick(4));
    hosts_.push_back(std::move(host));
    // The device counts its ports up from 2^30; stale ones are as good to be hostile with.
    host_keys_.push_back({(1U << 30) + static_cast<std::uint32_t>(connects_++), pick(4)});
    if (host_keys_.size() > 8) {
      host_keys_.erase(host_keys_.begin());
    }
  }

  std::mt19937 random_;
  std::uint32_t late_ = 0;  // which requests the backend does not complete for now
  VsockWorld world_;
  std::vector<Fd> hosts_;
  std::vector<VsockConnectionKey> host_keys_;
  std::size_t connects_ = 0;

 public:
  void be_late() {
    world_.io.hold = [this](const FakeIo::Request& request) {
      return late_ != 0 && static_cast<std::uint32_t>(request.fd) % 4 == late_;
    };
  }
};

TEST_CASE("whatever guest and host do, the device stays sound, bounded and can be reset") {
  for (const std::uint32_t seed : {1U, 2U, 3U, 4U}) {
    CAPTURE(seed);
    RandomWalk walk(seed);
    walk.be_late();
    std::size_t early = 0;
    for (int i = 0; i < 10'000; ++i) {
      walk.step();
      if (i == 2'000) {
        walk.reset();
        early = allocated_bytes();
      }
    }
    walk.reset();
    walk.check_alive();
    CHECK(allocated_bytes() < early + (1 << 20));
  }
}

}  // namespace
}  // namespace msb::virtio
