// SPDX-License-Identifier: Apache-2.0
#include "vmm/elf_loader.hpp"

#include <doctest/doctest.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "vmm/layout.hpp"

namespace msb::vmm {
namespace {

constexpr std::uint64_t kLoadAddress = 16 * kMib;

struct Elf {
  Elf64_Ehdr header{};
  Elf64_Phdr segment{};
};

// A kernel of one segment: the 16 bytes behind the headers, and zeroes up to a page.
Elf example() {
  Elf elf;
  std::memcpy(elf.header.e_ident, ELFMAG, SELFMAG);
  elf.header.e_ident[EI_CLASS] = ELFCLASS64;
  elf.header.e_ident[EI_DATA] = ELFDATA2LSB;
  elf.header.e_machine = EM_X86_64;
  elf.header.e_type = ET_EXEC;
  elf.header.e_entry = kLoadAddress + 4;
  elf.header.e_phoff = offsetof(Elf, segment);
  elf.header.e_phentsize = sizeof(Elf64_Phdr);
  elf.header.e_phnum = 1;
  elf.segment.p_type = PT_LOAD;
  elf.segment.p_offset = sizeof(Elf);
  elf.segment.p_filesz = 16;
  elf.segment.p_memsz = 4096;
  elf.segment.p_paddr = kLoadAddress;
  return elf;
}

std::span<const std::byte> bytes_of(const Elf& elf) {
  return std::as_bytes(std::span(&elf, 1));
}

Fd file_with(const Elf& elf, std::string_view content) {
  Fd file(::memfd_create("kernel", MFD_CLOEXEC));
  REQUIRE(::pwrite(file.get(), &elf, sizeof elf, 0) == static_cast<ssize_t>(sizeof elf));
  REQUIRE(::pwrite(file.get(), content.data(), content.size(), sizeof elf) ==
          static_cast<ssize_t>(content.size()));
  return file;
}

std::unique_ptr<virtio::GuestMemory> memory_of(std::uint64_t size) {
  const auto ranges = ram_ranges(size);
  auto memory = virtio::GuestMemory::create(ranges);
  REQUIRE(memory);
  return std::move(*memory);
}

TEST_CASE("a kernel's segments land at their physical addresses with zeroes behind them") {
  const auto memory = memory_of(32 * kMib);
  const Fd file = file_with(example(), "0123456789abcdef");
  const auto kernel = load_kernel(file.get(), *memory);
  REQUIRE(kernel);
  CHECK(kernel->entry == kLoadAddress + 4);
  CHECK(kernel->end == kLoadAddress + 4096);
  CHECK(memory->slice(kLoadAddress, 16)->load<char>(15) == 'f');
  CHECK(memory->slice(kLoadAddress + 16, 1)->load<char>(0) == 0);
}

TEST_CASE("what is no 64-bit x86-64 executable is refused") {
  const auto refused = [](auto change) {
    Elf elf = example();
    change(elf);
    return !parse_elf(bytes_of(elf)).has_value();
  };
  CHECK(parse_elf(bytes_of(example())));
  CHECK(refused([](Elf& elf) { elf.header.e_ident[0] = 'M'; }));
  CHECK(refused([](Elf& elf) { elf.header.e_ident[EI_CLASS] = ELFCLASS32; }));
  CHECK(refused([](Elf& elf) { elf.header.e_machine = EM_AARCH64; }));
  CHECK(refused([](Elf& elf) { elf.header.e_type = ET_DYN; }));
  CHECK(refused([](Elf& elf) { elf.header.e_phentsize = 1; }));
  CHECK(refused([](Elf& elf) { elf.header.e_phnum = 0; }));
  CHECK(refused([](Elf& elf) { elf.header.e_phnum = 0xffff; }));
  CHECK(refused([](Elf& elf) { elf.header.e_phoff = ~std::uint64_t{0}; }));
  CHECK(refused([](Elf& elf) { elf.header.e_entry = 0; }));
  CHECK(refused([](Elf& elf) { elf.segment.p_type = PT_NOTE; }));
}

TEST_CASE("segments with impossible sizes are refused") {
  const auto refused = [](auto change) {
    Elf elf = example();
    change(elf.segment);
    return !parse_elf(bytes_of(elf)).has_value();
  };
  CHECK(refused([](Elf64_Phdr& segment) { segment.p_filesz = segment.p_memsz + 1; }));
  CHECK(refused([](Elf64_Phdr& segment) { segment.p_offset = ~std::uint64_t{0}; }));
  CHECK(refused([](Elf64_Phdr& segment) { segment.p_offset = INT64_MAX; }));
  CHECK(refused([](Elf64_Phdr& segment) { segment.p_paddr = ~std::uint64_t{0} - 8; }));
}

TEST_CASE("every prefix of the headers is refused without a crash") {
  const Elf elf = example();
  for (std::size_t size = 0; size < sizeof elf; ++size) {
    CHECK_FALSE(parse_elf(bytes_of(elf).first(size)));
  }
}

TEST_CASE("a kernel outside of RAM, below 1 MiB or larger than RAM is refused") {
  const auto memory = memory_of(32 * kMib);
  const auto refused = [&](std::uint64_t address, std::uint64_t size) {
    Elf elf = example();
    elf.segment.p_paddr = address;
    elf.segment.p_memsz = size;
    elf.header.e_entry = address;
    const Fd file = file_with(elf, "0123456789abcdef");
    return !load_kernel(file.get(), *memory).has_value();
  };
  CHECK(refused(0, 4096));
  CHECK(refused(kMib - 1, 4096));
  CHECK_FALSE(refused(kMib, 31 * kMib));
  CHECK(refused(kMib, 31 * kMib + 1));
  CHECK(refused(kMmioHoleStart, 4096));
}

TEST_CASE("a truncated kernel is refused and says so") {
  const auto memory = memory_of(32 * kMib);
  const Fd file = file_with(example(), "01234567");
  const auto kernel = load_kernel(file.get(), *memory);
  REQUIRE_FALSE(kernel);
  CHECK(kernel.error().message.starts_with("the kernel file is truncated"));
}

}  // namespace
}  // namespace msb::vmm
