// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any file as the guest's kernel. What is loaded must be what the program headers
// say, and lie in RAM above 1 MiB (hostile-input.md 36). Seeds: tests/corpus/kernel.
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "virtio/guest_memory.hpp"
#include "vmm/elf_loader.hpp"
#include "vmm/layout.hpp"

namespace msb::vmm {
namespace {

// Above 1 MiB as much as a small input fills.
constexpr std::uint64_t kRoom = 64 * 1024;
constexpr std::uint64_t kRam = kHighMemoryAddress + kRoom;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// Guest RAM between pages that fault.
std::byte* ram_of(const virtio::GuestMemory& memory) {
  std::byte* const host = memory.mappings().front().host;
  for (std::byte* page : {host - 4096, host + kRam}) {
    ::mmap(page, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  }
  return host;
}

std::unique_ptr<virtio::GuestMemory> make_memory() {
  const virtio::GuestMemory::Range range{0, kRam};
  auto memory = virtio::GuestMemory::create(std::span(&range, 1));
  require(memory.has_value());
  return std::move(*memory);
}

// What the segments of `file` make of memory that is all zero, from 1 MiB on.
std::vector<std::byte> expected(std::span<const std::byte> file) {
  std::vector<std::byte> memory(kRoom);
  Elf64_Ehdr header{};
  std::memcpy(&header, file.data(), sizeof header);
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    std::memcpy(&segment, file.data() + header.e_phoff + i * sizeof segment, sizeof segment);
    if (segment.p_type == PT_LOAD && segment.p_memsz > 0) {
      require(segment.p_filesz <= segment.p_memsz && segment.p_memsz <= kRoom);
      require(segment.p_filesz == 0 || (segment.p_offset < file.size() &&
                                        segment.p_filesz <= file.size() - segment.p_offset));
      require(segment.p_paddr >= kHighMemoryAddress && segment.p_paddr <= kRam - segment.p_memsz);
      std::copy_n(
          file.begin() + static_cast<std::ptrdiff_t>(segment.p_offset), segment.p_filesz,
          memory.begin() + static_cast<std::ptrdiff_t>(segment.p_paddr - kHighMemoryAddress));
    }
  }
  return memory;
}

void load(std::span<const std::byte> bytes) {
  static const std::unique_ptr<virtio::GuestMemory> memory = make_memory();
  static std::byte* const ram = ram_of(*memory);
  static const std::vector<std::byte> zeroes(kHighMemoryAddress);
  static const Fd file(::memfd_create("kernel", MFD_CLOEXEC));
  require(::ftruncate(file.get(), 0) == 0 && ::pwrite(file.get(), bytes.data(), bytes.size(), 0) ==
                                                 static_cast<ssize_t>(bytes.size()));
  std::memset(ram + kHighMemoryAddress, 0, kRoom);
  const auto kernel = load_kernel(file.get(), *memory);
  if (kernel) {
    require(kernel->entry >= kHighMemoryAddress && kernel->entry < kernel->end);
    require(kernel->end <= kRam);
    require(std::ranges::equal(expected(bytes), std::span(ram + kHighMemoryAddress, kRoom)));
  } else {
    require(!kernel.error().message.empty());
  }
  // Whatever of it was read before it was refused.
  require(std::memcmp(ram, zeroes.data(), zeroes.size()) == 0);
}

}  // namespace
}  // namespace msb::vmm

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  msb::vmm::load(std::as_bytes(std::span(data, size)));
  return 0;
}
