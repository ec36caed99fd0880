// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: an entropy device between any guest and a source that answers late, short and
// with errors. The input is how its queue is set up, and steps. Whatever was done, no request takes
// more than its share of the source, the device comes to rest, and it works after a reset
// (hostile-input.md 9, 10, 13, 14, 21). Seeds: tests/corpus/virtio-rng.
#include <fcntl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/fd.hpp"
#include "virtio/rng/rng_device.hpp"
#include "virtio/testing/fuzz_driver.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

constexpr GuestAddress kData = FuzzRam::kStart + 5 * kPage;
constexpr std::byte kOld{0x5a};           // what is not from the source
constexpr std::size_t kMostEntries = 16;  // of the rings that FuzzDriver makes

class World {
 public:
  explicit World(FuzzInput& input)
      : device_(open_source(), backend_.io), driver_(device_, ram_, backend_) {
    backend_.check = [this](const FakeIo::Request& request) {
      require(request.kind == FakeIo::Kind::kRead && request.fd == source_ &&
                  request.offset == AsyncIo::kNoOffset,
              "the source is only read, as the stream that it is");
      const std::size_t length = size_of(request);
      require(length > 0 && length <= RngDevice::kMaxRequest, "a request has its share");
    };
    driver_.activate(input);
  }

  void step(FuzzInput& input) {
    const std::size_t action = input.below(FuzzDriver::kActions + 1);
    if (action < FuzzDriver::kActions) {
      driver_.act(static_cast<FuzzDriver::Action>(action), input);
    } else {
      const std::vector<Buffer> buffers = FuzzDriver::take_buffers(input, true);
      driver_.offer(kEntropyRequestQueue, buffers, input.byte());
    }
    require(backend_.io.pending() <= kMostEntries, "no more is under way than a ring has entries");
  }

  void finish() {
    driver_.settle();
    driver_.reset();
    check_works();
    driver_.reset();
  }

 private:
  // Always the same bytes: what an input does must not depend on chance.
  Fd open_source() {
    Fd source(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    require(source.valid(), "the host has zeros");
    source_ = source.get();
    return source;
  }

  static std::size_t size_of(const FakeIo::Request& request) {
    std::size_t size = 0;
    for (const iovec& piece : request.buffers) {
      size += piece.iov_len;
    }
    return size;
  }

  // More requests than there are entries: none of them may be lost (hostile-input.md 9).
  void check_works() {
    auto queues = driver_.start_well();
    DriverQueue& queue = queues.front();
    const std::vector<std::byte> old(2 * kPage, kOld);
    for (std::uint32_t i = 1; i <= FuzzDriver::kGoodSize + 1; ++i) {
      ram_.ram().put_bytes(kData, old);
      queue.add({{kData, i, true}, {kData + kPage, 100, true}});
      driver_.kick(kEntropyRequestQueue);
      backend_.run(8);
      const auto used = queue.take_used();
      require(used.has_value() && used->length == i + 100,
              "a good request is filled after a reset");
      auto expected = old;
      std::fill_n(expected.begin(), i, std::byte{0});
      std::fill_n(expected.begin() + kPage, 100, std::byte{0});
      const auto now = ram_.ram().bytes(kData, expected.size());
      require(std::memcmp(now.data(), expected.data(), now.size()) == 0,
              "exactly the buffers are filled from the source");
    }
    require(driver_.notifier().resets_wanted == 0 && driver_.notifier().interrupts > 0,
            "a driver is told of its answers");
  }

  int source_ = -1;  // the device's own descriptor
  FuzzRam ram_;
  FuzzBackend backend_{ram_};
  RngDevice device_;
  FuzzDriver driver_;
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return msb::virtio::testing::run_world<msb::virtio::World>(data, size);
}
