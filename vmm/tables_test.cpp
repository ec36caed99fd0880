// SPDX-License-Identifier: Apache-2.0
// What a guest is told about its processors: the MP table and CPUID.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "vmm/cpuid.hpp"
#include "vmm/layout.hpp"
#include "vmm/mp_table.hpp"

namespace msb::vmm {
namespace {

std::uint8_t sum_of(std::span<const std::byte> bytes) {
  return std::accumulate(
      bytes.begin(), bytes.end(), std::uint8_t{0}, [](std::uint8_t sum, std::byte byte) {
        return static_cast<std::uint8_t>(sum + std::to_integer<std::uint8_t>(byte));
      });
}

TEST_CASE("the MP table's two checksums add up to zero and its length is right") {
  for (const std::uint32_t vcpus : {1u, 2u, 64u}) {
    CAPTURE(vcpus);
    const auto table = make_mp_table(vcpus, kMpTableAddress);
    REQUIRE(table.size() > 60);
    CHECK(table.size() <= kMpTableSize);
    CHECK(std::memcmp(table.data(), "_MP_", 4) == 0);
    CHECK(sum_of(std::span(table).first(16)) == 0);
    CHECK(std::memcmp(&table[16], "PCMP", 4) == 0);
    std::uint16_t length = 0;
    std::memcpy(&length, &table[20], sizeof length);
    CHECK(length == table.size() - 16);
    CHECK(sum_of(std::span(table).subspan(16)) == 0);
    std::uint16_t entries = 0;
    std::memcpy(&entries, &table[16 + 34], sizeof entries);
    CHECK(entries == vcpus + 1 + 1 + kIoApicPins + 2);
  }
}

TEST_CASE("each processor stands in the MP table with its APIC id, the first as boot processor") {
  const auto table = make_mp_table(3, kMpTableAddress);
  for (std::size_t id = 0; id < 3; ++id) {
    const std::size_t entry = 16 + 44 + id * 20;
    CHECK(table[entry] == std::byte{0});
    CHECK(table[entry + 1] == std::byte{static_cast<std::uint8_t>(id)});
    CHECK(table[entry + 3] == std::byte{static_cast<std::uint8_t>(id == 0 ? 3 : 1)});
  }
}

kvm_cpuid_entry2 leaf(std::uint32_t function, std::uint32_t index = 0) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  return entry;
}

kvm_cpuid_entry2 find(const std::vector<kvm_cpuid_entry2>& entries, std::uint32_t function,
                      std::uint32_t index = 0) {
  const auto found = std::ranges::find_if(entries, [&](const auto& entry) {
    return entry.function == function && entry.index == index;
  });
  REQUIRE(found != entries.end());
  return *found;
}

TEST_CASE("CPUID names the hypervisor, the APIC id, the cores and the deadline timer") {
  const std::vector<kvm_cpuid_entry2> supported{leaf(1), leaf(4), leaf(0xb), leaf(0xb, 1),
                                                leaf(0x80000008)};
  const auto entries = make_cpuid(supported, 2, 4, true);
  const auto features = find(entries, 1);
  CHECK((features.ebx >> 24) == 2);
  CHECK((features.ebx >> 16 & 0xff) == 4);
  CHECK((features.ecx & (1U << 31)) != 0);
  CHECK((features.ecx & (1U << 24)) != 0);
  CHECK((features.edx & (1U << 28)) != 0);
  CHECK(find(entries, 0xb, 0).edx == 2);
  CHECK(find(entries, 0xb, 1).eax == 2);
  CHECK(find(entries, 0xb, 1).ebx == 4);
  CHECK((find(entries, 0x80000008).ecx & 0xff) == 3);
  CHECK(std::ranges::count(entries, 0xbU, &kvm_cpuid_entry2::function) == 2);
}

TEST_CASE("CPUID leaves out the deadline timer that KVM does not have") {
  const auto entries = make_cpuid({leaf(1)}, 0, 1, false);
  CHECK((find(entries, 1).ecx & (1U << 24)) == 0);
  CHECK((find(entries, 1).edx & (1U << 28)) == 0);
  CHECK(entries.size() == 1);
}

}  // namespace
}  // namespace msb::vmm
