// SPDX-License-Identifier: Apache-2.0
// Indirect tables (2.7.5.3), well-formed and hostile (hostile-input.md 5).
#include <doctest/doctest.h>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "virtio/queue.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"

namespace msb::virtio {
namespace {

using testing::Buffer;
using testing::DriverQueue;
using testing::GuestRam;
using testing::kPage;

constexpr GuestAddress kBase = GuestRam::kStart;
constexpr GuestAddress kTable = GuestRam::kStart + 4 * kPage;
constexpr GuestAddress kData = GuestRam::kStart + 8 * kPage;
constexpr std::uint16_t kSize = 4;

struct Fixture {
  GuestRam ram;
  DriverQueue driver{ram, kBase, kSize};
  Queue queue = driver.device_side(kFeatureIndirectDescriptors);

  void put(std::uint16_t slot, const Descriptor& descriptor) {
    ram.put(kTable + slot * sizeof(Descriptor), descriptor);
  }
  // Makes a chain available whose only descriptor names a table of `size` bytes.
  void offer_table(std::uint32_t size, GuestAddress table = kTable,
                   std::uint16_t flags = kDescriptorIndirect) {
    driver.set_descriptor(0, {table, size, flags, 1});
    driver.offer(0);
  }
  DescriptorChain pop() {
    auto chain = queue.pop();
    REQUIRE(chain);
    REQUIRE(*chain);
    return std::move(**chain);
  }
  void check_broken(std::string_view message) {
    auto chain = queue.pop();
    REQUIRE_FALSE(chain);
    CHECK(chain.error().message == message);
    CHECK_FALSE(queue.pop());
    CHECK(driver.used_index() == 0);
  }
  void check_returned() {
    auto chain = queue.pop();
    REQUIRE(chain);
    REQUIRE(*chain);
    CHECK_FALSE((*chain)->servable());
    CHECK((*chain)->readable_size() + (*chain)->writable_size() == 0);
    chain->reset();
    const auto used = driver.take_used();
    REQUIRE(used);
    CHECK(used->length == 0);
  }
};

TEST_CASE_FIXTURE(Fixture, "a table's buffers are the chain's") {
  ram.put_bytes(kData, std::as_bytes(std::span("0123456789abcdef", 16)));
  const std::uint16_t head = driver.add_indirect(
      kTable, {{kData, 8, false}, {kData + 8, 8, false}, {kData + 64, 4, true}});
  DescriptorChain chain = pop();
  CHECK(chain.readable_size() == 16);
  CHECK(chain.writable_size() == 4);
  std::vector<std::byte> bytes(16);
  CHECK(chain.read(0, bytes) == 16);
  CHECK(bytes == ram.bytes(kData, 16));
  queue.push(std::move(chain), 4);
  const auto used = driver.take_used();
  REQUIRE(used);
  CHECK(used->id == head);
  CHECK(used->length == 4);
}

TEST_CASE_FIXTURE(Fixture,
                  "a table may stand behind other descriptors, and its write flag says nothing") {
  // 2.7.5.3.2
  driver.set_descriptor(2, {kData, 8, kDescriptorNext, 3});
  driver.set_descriptor(3, {kTable, 32, kDescriptorIndirect | kDescriptorWrite, 0});
  put(0, {kData, 16, kDescriptorNext, 1});
  put(1, {kData, 32, kDescriptorWrite, 0});
  driver.offer(2);
  const DescriptorChain chain = pop();
  CHECK(chain.readable_size() == 24);
  CHECK(chain.writable_size() == 32);
}

TEST_CASE_FIXTURE(Fixture, "a table's order is that of its next fields, from its first on") {
  put(0, {kData, 1, kDescriptorNext, 2});
  put(2, {kData, 2, kDescriptorNext, 1});
  put(1, {kData, 4, kDescriptorWrite, 0xffff});
  offer_table(48);
  const DescriptorChain chain = pop();
  CHECK(chain.readable_size() == 3);
  CHECK(chain.writable_size() == 4);
}

TEST_CASE_FIXTURE(Fixture, "a table need not be aligned") {
  const Descriptor descriptor{kData, 8, kDescriptorWrite, 0};
  ram.put_bytes(kTable + 3, std::as_bytes(std::span(&descriptor, 1)));
  offer_table(16, kTable + 3);
  CHECK(pop().writable_size() == 8);
}

TEST_CASE_FIXTURE(Fixture, "tables of impossible lengths break the queue") {
  struct Row {
    std::uint32_t length;
    std::string_view message;
  };
  for (const Row& row : {
           Row{0, "an indirect table of 0 bytes is not one of 1 to 4 descriptors"},
           Row{15, "an indirect table of 15 bytes is not one of 1 to 4 descriptors"},
           Row{17, "an indirect table of 17 bytes is not one of 1 to 4 descriptors"},
           Row{80, "an indirect table of 80 bytes is not one of 1 to 4 descriptors"},
           Row{0xffff'fff0,
               "an indirect table of 4294967280 bytes is not one of 1 to 4 descriptors"},
       }) {
    Fixture fresh;
    fresh.offer_table(row.length);
    fresh.check_broken(row.message);
  }
}

TEST_CASE_FIXTURE(Fixture, "a table inside a table breaks the queue") {
  put(0, {kTable, 16, kDescriptorIndirect, 0});
  offer_table(16);
  check_broken("descriptor 0 is indirect, which it must not be inside an indirect table");
}

TEST_CASE_FIXTURE(Fixture, "a table with a next descriptor breaks the queue") {
  put(0, {kData, 8, 0, 0});
  offer_table(16, kTable, kDescriptorIndirect | kDescriptorNext);
  check_broken("descriptor 0 is indirect, which it must not be when another follows");
}

TEST_CASE_FIXTURE(Fixture, "a next field beyond the table breaks the queue") {
  put(0, {kData, 8, kDescriptorNext, 2});
  offer_table(32);
  check_broken("descriptor 0 continues at 2, beyond the indirect table's 2");
}

TEST_CASE_FIXTURE(Fixture, "a loop within a table breaks the queue") {
  put(0, {kData, 8, kDescriptorNext, 1});
  put(1, {kData, 8, kDescriptorNext, 0});
  offer_table(32);
  check_broken("the chain at descriptor 0 is longer than the queue");
}

TEST_CASE_FIXTURE(Fixture, "what stands before a table counts towards the chain's length") {
  driver.set_descriptor(0, {kData, 8, kDescriptorNext, 1});
  driver.set_descriptor(1, {kTable, 4 * 16, kDescriptorIndirect, 0});
  for (std::uint16_t i = 0; i < 4; ++i) {
    put(i, {kData, 8, static_cast<std::uint16_t>(i < 3 ? kDescriptorNext : 0),
            static_cast<std::uint16_t>(i + 1)});
  }
  driver.offer(0);
  check_broken("the chain at descriptor 0 is longer than the queue");
}

TEST_CASE_FIXTURE(Fixture,
                  "tables and buffers outside of RAM send the chain back, and the queue goes on") {
  for (const GuestAddress table :
       {ram.end() - 8, ram.end(), GuestAddress{0}, ~GuestAddress{0} - 7}) {
    offer_table(16, table);
    check_returned();
  }
  put(0, {ram.end() - 4, 8, 0, 0});
  offer_table(16);
  check_returned();
  put(0, {kData, 8, kDescriptorWrite | kDescriptorNext, 1});
  put(1, {kData, 8, 0, 0});
  offer_table(32);
  check_returned();
  put(0, {kData, 8, 0, 0});
  offer_table(16);
  CHECK(pop().readable_size() == 8);
}

}  // namespace
}  // namespace msb::virtio
