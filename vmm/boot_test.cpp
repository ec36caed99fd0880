// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot.hpp"

#include <asm/bootparam.h>
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "base/fd.hpp"
#include "vmm/layout.hpp"

namespace msb::vmm {
namespace {

std::unique_ptr<virtio::GuestMemory> memory_of(std::uint64_t size) {
  const auto ranges = ram_ranges(size);
  auto memory = virtio::GuestMemory::create(ranges);
  REQUIRE(memory);
  return std::move(*memory);
}

Fd initramfs_of(std::size_t size) {
  Fd file(::memfd_create("initramfs", MFD_CLOEXEC));
  const std::string content(size, 'i');
  REQUIRE(::write(file.get(), content.data(), size) == static_cast<ssize_t>(size));
  return file;
}

TEST_CASE("the zero page names command line, initramfs, seed and all of the RAM") {
  const auto memory = memory_of(5 * kGib);
  REQUIRE(write_boot_data(*memory, "quiet", {0x1000000, 4096}, 1));
  const auto params = memory->slice(kBootParamsAddress, sizeof(boot_params))->load<boot_params>(0);
  CHECK(std::uint32_t{params.hdr.cmd_line_ptr} == kCommandLineAddress);
  CHECK(std::uint32_t{params.hdr.ramdisk_image} == 0x1000000);
  CHECK(std::uint32_t{params.hdr.ramdisk_size} == 4096);
  CHECK(std::uint64_t{params.hdr.setup_data} == kSeedAddress);
  REQUIRE(params.e820_entries == 4);
  // Copies, as what is in the page is not aligned.
  const auto begin = [&](int entry) { return std::uint64_t{params.e820_table[entry].addr}; };
  const auto size = [&](int entry) { return std::uint64_t{params.e820_table[entry].size}; };
  const auto type = [&](int entry) { return std::uint32_t{params.e820_table[entry].type}; };
  CHECK(begin(0) + size(0) == kKernelLogAddress);
  CHECK(begin(1) == kKernelLogAddress);
  CHECK(type(1) == 2);
  CHECK(begin(1) + size(1) <= 640 * kKib);
  CHECK(begin(2) == kMib);
  CHECK(begin(2) + size(2) == kMmioHoleStart);
  CHECK(begin(3) == 4 * kGib);
  CHECK(size(3) == 2 * kGib);
  CHECK(memory->slice(kCommandLineAddress, 6)->load<char>(5) == 0);
}

TEST_CASE("each guest gets another seed") {
  const auto first = memory_of(32 * kMib);
  const auto second = memory_of(32 * kMib);
  REQUIRE(write_boot_data(*first, "", {kMib, 1}, 1));
  REQUIRE(write_boot_data(*second, "", {kMib, 1}, 1));
  const auto seed = [](const auto& memory) {
    return memory->slice(kSeedAddress + 16, 8)->template load<std::uint64_t>(0);
  };
  CHECK(seed(first) != seed(second));
  CHECK(seed(first) != 0);
}

TEST_CASE("a command line that Linux would cut is refused") {
  const auto memory = memory_of(32 * kMib);
  CHECK(write_boot_data(*memory, std::string(kCommandLineSize - 1, 'x'), {kMib, 1}, 1));
  CHECK_FALSE(write_boot_data(*memory, std::string(kCommandLineSize, 'x'), {kMib, 1}, 1));
}

TEST_CASE("the initramfs lies page-aligned at the end of low RAM, clear of the kernel") {
  const auto memory = memory_of(64 * kMib);
  const Fd file = initramfs_of(5000);
  const auto loaded = load_initramfs(file.get(), 32 * kMib, *memory);
  REQUIRE(loaded);
  CHECK(loaded->address == 64 * kMib - 2 * kPageSize);
  CHECK(loaded->size == 5000);
  CHECK(memory->slice(loaded->address, 5000)->load<char>(4999) == 'i');
  CHECK_FALSE(load_initramfs(file.get(), 64 * kMib - kPageSize, *memory));
}

TEST_CASE("an empty initramfs is refused") {
  const auto memory = memory_of(32 * kMib);
  const Fd file = initramfs_of(0);
  CHECK_FALSE(load_initramfs(file.get(), 20 * kMib, *memory));
}

}  // namespace
}  // namespace msb::vmm
