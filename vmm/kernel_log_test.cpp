// SPDX-License-Identifier: Apache-2.0
#include "vmm/kernel_log.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <string>

#include "virtio/testing/guest_ram.hpp"
#include "vmm/layout.hpp"

namespace msb::vmm {
namespace {

constexpr std::uint32_t kSignature = 0x43474244;
constexpr std::size_t kCapacity = kKernelLogSize - 12;

struct Log {
  void put(std::uint32_t signature, std::uint32_t start, std::uint32_t size) {
    ram.put(kKernelLogAddress, std::array{signature, start, size});
  }
  void text(std::size_t at, const std::string& text) {
    ram.put_bytes(kKernelLogAddress + 12 + at, std::as_bytes(std::span(text)));
  }
  virtio::testing::GuestRam ram{{{0, kMib}}};
};

TEST_CASE("a log that has not wrapped is read from its start") {
  Log log;
  log.put(kSignature, 12, 12);
  log.text(0, "first\nlast.\nbehind the end");
  CHECK(read_kernel_log(log.ram.memory()) == "first\nlast.\n");
}

TEST_CASE("a log that has wrapped is read from its oldest byte on, and its end is kept") {
  Log log;
  log.put(kSignature, 6, kCapacity);
  log.text(0, "newest");
  log.text(6, std::string(kCapacity - 12, 'x') + "before");
  const std::string text = read_kernel_log(log.ram.memory());
  CHECK(text.size() == kMaxKernelLog);
  CHECK(text.ends_with("xbeforenewest"));
}

TEST_CASE("whatever the guest writes there, no more than the log is read") {
  constexpr std::uint32_t kFull = kCapacity;
  for (const auto& header :
       {std::array{0U, 5U, 5U}, std::array{kSignature, 0U, 0U},
        std::array{kSignature, 0U, kFull + 1}, std::array{kSignature, ~0U, ~0U},
        std::array{kSignature, kFull + 1, kFull}, std::array{kSignature, ~0U, 5U},
        std::array{kSignature, 6U, 5U}}) {
    Log log;
    log.put(header[0], header[1], header[2]);
    CHECK(read_kernel_log(log.ram.memory()).empty());
  }
  Log log;
  log.put(kSignature, kFull, kFull);
  CHECK(read_kernel_log(log.ram.memory()).size() == kMaxKernelLog);
  const virtio::testing::GuestRam elsewhere({{kGib, kMib}});
  CHECK(read_kernel_log(elsewhere.memory()).empty());
}

}  // namespace
}  // namespace msb::vmm
