// SPDX-License-Identifier: Apache-2.0
// The memory of double_fetch_test.cpp: it changes for whom it should, when it should.
#include "virtio/testing/changing_pages.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "virtio/spec.hpp"
#include "virtio/testing/guest_ram.hpp"

namespace msb::virtio {
namespace {

using testing::ChangingPages;
using testing::GuestRam;
using testing::kPage;

constexpr GuestAddress kFirst = GuestRam::kStart;

struct Harness {
  GuestRam ram;
  ChangingPages pages{ram, {{kFirst, 2}}};
  const std::byte* host = ram.memory().mappings().front().host;

  Harness() {
    std::vector<std::byte> bytes(2 * kPage);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>(1 + i % 251);
    }
    ram.put_bytes(kFirst, bytes);
  }
  template <typename T>
  T load(std::size_t offset) const {
    return *reinterpret_cast<const volatile T*>(host + offset);
  }
  template <typename T>
  void check_width() {
    T first{}, second{};
    pages.watch([&] { first = load<T>(64); });
    CHECK(first == ram.get<T>(kFirst + 64));
    CHECK(pages.reads() == sizeof(T));
    CHECK(pages.second_reads().empty());
    pages.watch([&] {
      first = load<T>(64);
      second = load<T>(64);
    });
    CHECK(first == ram.get<T>(kFirst + 64));
    CHECK(second == static_cast<T>(~first));
    CHECK(pages.reads() == sizeof(T));
    CHECK(pages.second_reads().size() == sizeof(T));
  }
};

TEST_CASE_FIXTURE(Harness, "what a load reads changes, and nothing beside it") {
  check_width<std::uint8_t>();
  check_width<std::uint16_t>();
  check_width<std::uint32_t>();
  check_width<std::uint64_t>();
}

TEST_CASE_FIXTURE(Harness, "what memcpy() reads changes when it returns, whatever the length") {
  std::vector<std::byte> copy(2 * kPage);
  for (std::size_t length = 1; length < 2 * kPage - 128; length += length < 300 ? 1 : 333) {
    CAPTURE(length);
    pages.watch([&] { std::memcpy(copy.data(), host + 100, length); });
    CHECK(std::memcmp(copy.data(), ram.bytes(kFirst + 100, length).data(), length) == 0);
    CHECK(pages.reads() == length);
    CHECK(pages.second_reads().empty());
  }
}

TEST_CASE_FIXTURE(Harness, "who checks one value and uses another is caught") {
  constexpr std::uint32_t kRoom = 16;
  ram.put(kFirst + 32, std::uint32_t{8});
  std::uint32_t used = 0;
  pages.watch([&] {
    if (load<std::uint32_t>(32) <= kRoom) {
      used = load<std::uint32_t>(32);
    }
  });
  CHECK(used > kRoom);
  CHECK(pages.second_reads() ==
        std::vector<GuestAddress>{kFirst + 32, kFirst + 33, kFirst + 34, kFirst + 35});
  CHECK(ram.get<std::uint32_t>(kFirst + 32) == 8);
}

TEST_CASE_FIXTURE(Harness, "who copies a structure and reads a field of it again is caught") {
  ram.put(kFirst + 48, Descriptor{1, 2, 3, 4});
  Descriptor copy{};
  std::uint16_t again = 0;
  pages.watch([&] {
    std::memcpy(&copy, host + 48, sizeof copy);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // in this order
    again = load<std::uint16_t>(48 + offsetof(Descriptor, flags));
  });
  CHECK(copy.flags == 3);
  CHECK(again == 0xfffc);
  CHECK(pages.second_reads() == std::vector<GuestAddress>{kFirst + 60, kFirst + 61});
}

TEST_CASE_FIXTURE(Harness, "what is left may be read again, and writes stay") {
  ram.put(kFirst + 2, std::uint16_t{7});
  pages.leave(kFirst + 2, 2);
  pages.watch([&] {
    CHECK(load<std::uint16_t>(2) == 7);
    CHECK(load<std::uint16_t>(2) == 7);
    *reinterpret_cast<volatile std::uint32_t*>(ram.memory().mappings().front().host + kPage) = 9;
  });
  CHECK(pages.reads() == 0);
  CHECK(pages.second_reads().empty());
  CHECK(ram.get<std::uint32_t>(kFirst + kPage) == 9);
}

}  // namespace
}  // namespace msb::virtio
