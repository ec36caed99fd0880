// SPDX-License-Identifier: Apache-2.0
#include "virtio/queue.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"

namespace msb::virtio {
namespace {

using testing::DriverQueue;
using testing::GuestRam;
using testing::kPage;

constexpr GuestAddress kBase = GuestRam::kStart;
constexpr GuestAddress kData = GuestRam::kStart + 8 * kPage;

static_assert(!std::is_copy_constructible_v<DescriptorChain>);
static_assert(!std::is_copy_assignable_v<DescriptorChain>);
static_assert(std::is_nothrow_move_constructible_v<DescriptorChain>);
static_assert(std::is_nothrow_move_assignable_v<DescriptorChain>);

// The next chain, of which there must be one.
DescriptorChain pop(Queue& queue) {
  auto chain = queue.pop();
  REQUIRE(chain);
  REQUIRE(*chain);
  return std::move(**chain);
}

bool none(Queue& queue) {
  const auto chain = queue.pop();
  REQUIRE(chain);
  return !*chain;
}

TEST_CASE("a queue is created exactly from a geometry that fits guest RAM") {
  // 2.7: table 16 bytes per entry, available ring 6 + 2 per entry, used ring 6 + 8 per entry.
  const GuestRam ram({{kBase, 16 * kPage}, {0x4'0000'0000, 512 * kPage}});
  const GuestAddress end = kBase + 16 * kPage;
  const GuestAddress big = 0x4'0000'0000;
  const GuestAddress a = kBase;
  const GuestAddress b = kBase + kPage;
  const GuestAddress c = kBase + 2 * kPage;
  struct Row {
    std::string_view what;
    QueueGeometry geometry;
    bool ok;
  };
  const Row rows[] = {
      {"plain", {4, a, b, c}, true},
      {"one entry", {1, a, b, c}, true},
      {"size 0", {0, a, b, c}, false},
      {"size 3", {3, a, b, c}, false},
      {"size 6", {6, a, b, c}, false},
      {"size 32767", {32767, big, big, big}, false},
      {"size 32768", {32768, big, big + 128 * kPage, big + 160 * kPage}, true},
      {"size 32769", {32769, big, big, big}, false},
      {"size 65535", {65535, big, big, big}, false},
      {"table at 8", {4, a + 8, b, c}, false},
      {"table at 1", {4, a + 1, b, c}, false},
      {"available ring at 1", {4, a, b + 1, c}, false},
      {"available ring at 2", {4, a, b + 2, c}, true},
      {"used ring at 2", {4, a, b, c + 2}, false},
      {"used ring at 4", {4, a, b, c + 4}, true},
      {"all zero", {4, 0, 0, 0}, false},
      {"table before RAM", {4, a - 16, b, c}, false},
      {"table last in RAM", {4, end - 64, b, c}, true},
      {"table ends outside", {4, end - 48, b, c}, false},
      {"table outside", {4, end, b, c}, false},
      {"available ring last in RAM", {4, a, end - 14, c}, true},
      {"available ring ends outside", {4, a, end - 12, c}, false},
      {"used ring last in RAM", {4, a, b, end - 40}, true},
      {"used ring ends outside", {4, a, b, end - 36}, false},
      {"table in the hole", {4, 0xd000'0000, b, c}, false},
      {"available ring in the hole", {4, a, 0xd000'0000, c}, false},
      {"used ring in the hole", {4, a, b, 0xd000'0000}, false},
      {"table wraps", {4, ~GuestAddress{15}, b, c}, false},
      {"available ring wraps", {4, a, ~GuestAddress{1}, c}, false},
      {"used ring wraps", {4, a, b, ~GuestAddress{3}}, false},
      {"parts over each other", {4, a, a, a}, true},  // the driver's own loss
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK(Queue::create(ram.memory(), row.geometry, 0).has_value() == row.ok);
  }
}

TEST_CASE("an empty queue has no chain and asks for no interrupt") {
  GuestRam ram;
  const DriverQueue driver(ram, kBase, 4);
  Queue queue = driver.device_side();
  CHECK(none(queue));
  CHECK_FALSE(queue.take_interrupt());
  CHECK(driver.used_index() == 0);
}

TEST_CASE("a chain gives the driver's bytes and takes the device's, over all its descriptors") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 8);
  Queue queue = driver.device_side();
  const std::string_view text = "0123456789";
  ram.put_bytes(kData, std::as_bytes(std::span(text)));
  const std::uint16_t head = driver.add({{kData, 3, false},
                                         {kData + 3, 0, false},
                                         {kData + 3, 7, false},
                                         {kData + 100, 2, true},
                                         {kData + 200, 0, true},
                                         {kData + 300, 6, true}});
  DescriptorChain chain = pop(queue);
  CHECK(chain.readable_size() == 10);
  CHECK(chain.writable_size() == 8);

  char got[16] = {};
  CHECK(chain.read(0, std::as_writable_bytes(std::span(got))) == 10);
  CHECK(std::string_view(got, 10) == text);
  CHECK(chain.read(2, std::as_writable_bytes(std::span(got, 4))) == 4);
  CHECK(std::string_view(got, 4) == "2345");
  CHECK(chain.read(9, std::as_writable_bytes(std::span(got, 4))) == 1);
  CHECK(chain.read(10, std::as_writable_bytes(std::span(got, 4))) == 0);
  CHECK(chain.read(~std::size_t{0}, std::as_writable_bytes(std::span(got, 4))) == 0);
  CHECK(chain.read(0, {}) == 0);

  CHECK(chain.write(1, std::as_bytes(std::span(text))) == 7);
  CHECK(ram.get<char>(kData + 101) == '0');
  CHECK(ram.get<char>(kData + 102) == 0);
  CHECK(ram.get<char>(kData + 300) == '1');
  CHECK(ram.get<char>(kData + 305) == '6');
  CHECK(ram.get<char>(kData + 306) == 0);
  CHECK(chain.write(8, std::as_bytes(std::span(text))) == 0);
  CHECK(ram.get<char>(kData) == '0');  // a readable buffer is not written

  const auto iovecs = chain.writable_iovecs(1, 5);
  REQUIRE(iovecs.size() == 2);
  CHECK(iovecs[0].iov_len == 1);
  CHECK(iovecs[1].iov_len == 4);
  CHECK(chain.writable_iovecs(8, 5).empty());
  CHECK(chain.writable_iovecs(0, 0).empty());
  CHECK(chain.writable_iovecs(0, ~std::size_t{0}).size() == 2);

  queue.push(std::move(chain), 8);
  const auto used = driver.take_used();
  REQUIRE(used);
  CHECK(used->id == head);
  CHECK(used->length == 8);
  CHECK_FALSE(driver.take_used());
}

TEST_CASE("the whole pages of a chain's writable buffers are discarded, and of no others") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 8);
  Queue queue = driver.device_side();
  for (GuestAddress page = kData; page < ram.end(); page += kPage) {
    ram.put(page, std::uint64_t{1});
  }
  driver.add({{kData, kPage, false},
              {kData + kPage, kPage, true},
              {kData + 2 * kPage, 0, true},
              {kData + 3 * kPage + 1, 2 * kPage, true},
              {kData + 6 * kPage, kPage - 1, true}});
  DescriptorChain chain = pop(queue);
  CHECK(chain.discard_writable() == 2 * kPage);
  for (const std::uint64_t page : {0U, 2U, 3U, 5U, 6U, 7U}) {
    CHECK(ram.get<std::uint64_t>(kData + page * kPage) == 1);
  }
  CHECK(ram.get<std::uint64_t>(kData + kPage) == 0);
  CHECK(ram.get<std::uint64_t>(kData + 4 * kPage) == 0);
}

TEST_CASE("a header is read the same wherever it is split over descriptors") {
  GuestRam ram;
  constexpr std::size_t kHeader = 12;
  std::vector<std::byte> header(kHeader);
  for (std::size_t i = 0; i < kHeader; ++i) {
    header[i] = static_cast<std::byte>(i + 1);
  }
  ram.put_bytes(kData, header);
  DriverQueue driver(ram, kBase, 16);
  Queue queue = driver.device_side();
  for (std::uint32_t first = 0; first <= kHeader; ++first) {
    for (std::uint32_t second = first; second <= kHeader; ++second) {
      driver.add({{kData, first, false},
                  {kData + first, second - first, false},
                  {kData + second, 12 - second, false}});
      DescriptorChain chain = pop(queue);
      std::vector<std::byte> got(kHeader);
      CHECK(chain.read(0, got) == kHeader);
      CHECK(got == header);
      queue.push(std::move(chain), 0);
      CHECK(driver.take_used());
    }
  }
}

TEST_CASE("chains return in any order, each once, with its own length") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 4);
  Queue queue = driver.device_side();
  const std::uint16_t first = driver.add({{kData, 8, true}});
  const std::uint16_t second = driver.add({{kData + 8, 8, true}});
  DescriptorChain one = pop(queue);
  DescriptorChain two = pop(queue);
  queue.push(std::move(two), 2);
  queue.push(std::move(one), 1);
  const auto used_second = driver.take_used();
  const auto used_first = driver.take_used();
  REQUIRE(used_second);
  REQUIRE(used_first);
  CHECK(used_second->id == second);
  CHECK(used_second->length == 2);
  CHECK(used_first->id == first);
  CHECK(used_first->length == 1);
  queue.push(std::move(one),
             7);  // NOLINT(bugprone-use-after-move): a returned chain is no chain any more
  CHECK(driver.used_index() == 2);
}

TEST_CASE("a chain that is dropped goes back with length 0") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 4);
  Queue queue = driver.device_side();
  const std::uint16_t head = driver.add({{kData, 8, true}});
  {
    const DescriptorChain chain = pop(queue);
  }
  const auto used = driver.take_used();
  REQUIRE(used);
  CHECK(used->id == head);
  CHECK(used->length == 0);
  CHECK(queue.take_interrupt());
}

TEST_CASE("a chain that moves returns once, and one that is assigned over returns first") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 4);
  Queue queue = driver.device_side();
  const std::uint16_t first = driver.add({{kData, 8, true}});
  const std::uint16_t second = driver.add({{kData + 8, 16, true}});
  {
    DescriptorChain one = pop(queue);
    DescriptorChain moved(std::move(one));
    CHECK(driver.used_index() == 0);
    CHECK(moved.writable_size() == 8);
    moved = pop(queue);
    CHECK(moved.writable_size() == 16);
    const auto used = driver.take_used();
    REQUIRE(used);
    CHECK(used->id == first);
    DescriptorChain& self = moved;
    moved = std::move(self);
    CHECK(driver.used_index() == 1);
    CHECK(moved.writable_size() == 16);
  }
  const auto used = driver.take_used();
  REQUIRE(used);
  CHECK(used->id == second);
  CHECK(driver.used_index() == 2);
}

TEST_CASE("copies of a queue share its rings") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 4);
  Queue queue = driver.device_side();
  Queue copy = queue;  // NOLINT(performance-unnecessary-copy-initialization): that is the subject
  driver.add({{kData, 8, true}});
  DescriptorChain chain = pop(queue);
  CHECK(none(copy));
  copy.push(std::move(chain), 3);
  CHECK(queue.take_interrupt());
  CHECK_FALSE(copy.take_interrupt());
}

TEST_CASE("a chain outlives its queue object") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 4);
  driver.add({{kData, 8, true}});
  {
    std::optional<Queue> queue = driver.device_side();
    const DescriptorChain chain = pop(*queue);
    queue.reset();
    CHECK(driver.used_index() == 0);
  }
  CHECK(driver.used_index() == 1);
}

TEST_CASE("after close nothing is given, nothing is returned and no guest memory is touched") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 4);
  Queue queue = driver.device_side();
  driver.add({{kData, 8, true}});
  driver.add({{kData, 8, true}});
  driver.add({{kData, 8, true}});
  {
    DescriptorChain pushed = pop(queue);
    const DescriptorChain dropped = pop(queue);
    const auto before = ram.snapshot();
    queue.close();
    queue.push(std::move(pushed), 8);
    CHECK_FALSE(queue.pop());
    CHECK_FALSE(queue.take_interrupt());
    CHECK(ram.snapshot() == before);
  }
  CHECK(driver.used_index() == 0);
}

TEST_CASE("a batch asks for one interrupt, and none when the driver wants none") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 8);
  Queue queue = driver.device_side();
  for (int i = 0; i < 3; ++i) {
    driver.add({{kData, 8, true}});
    queue.push(pop(queue), 0);
  }
  CHECK(queue.take_interrupt());
  CHECK_FALSE(queue.take_interrupt());

  driver.set_flags(kAvailableNoInterrupt);
  driver.add({{kData, 8, true}});
  queue.push(pop(queue), 0);
  CHECK_FALSE(queue.take_interrupt());
  // 2.7.7.1: a driver that enables interrupts looks at the used ring itself; nothing is owed for
  // what came before.
  driver.set_flags(0);
  CHECK_FALSE(queue.take_interrupt());
  driver.set_flags(0xfffe);  // other bits mean nothing
  driver.add({{kData, 8, true}});
  queue.push(pop(queue), 0);
  CHECK(queue.take_interrupt());
}

TEST_CASE("indexes go on past 65535") {
  GuestRam ram;
  for (const std::uint16_t size : {std::uint16_t{1}, std::uint16_t{4}}) {
    CAPTURE(size);
    DriverQueue driver(ram, kBase, size);
    driver.restart();
    Queue queue = driver.device_side();
    for (std::uint32_t i = 0; i < 65536 + 3U * size; ++i) {
      const std::uint16_t head = driver.add({{kData, 8, true}});
      queue.push(pop(queue), i & 7);
      const auto used = driver.take_used();
      if (!used || used->id != head || used->length != (i & 7)) {
        FAIL("round ", i, " was returned wrongly");
      }
    }
    CHECK(driver.used_index() == static_cast<std::uint16_t>(3U * size));
    CHECK(none(queue));
  }
}

}  // namespace
}  // namespace msb::virtio
