// SPDX-License-Identifier: Apache-2.0
// Loads an uncompressed x86-64 Linux kernel (ELF vmlinux) into guest memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "virtio/guest_memory.hpp"

namespace msb::vmm {

// One PT_LOAD segment: file bytes, where they go, and how much memory it takes with the zeroes
// behind them.
struct ElfSegment {
  std::uint64_t file_offset;
  std::uint64_t file_size;
  std::uint64_t address;  // guest-physical
  std::uint64_t memory_size;
};

struct ElfImage {
  std::uint64_t entry;  // guest-physical
  std::vector<ElfSegment> segments;
};

// How much of the start of a file parse_elf() may need.
inline constexpr std::size_t kMaxElfHeaders = 4096;

// Reads the headers at the start of a file. Fails unless it is a 64-bit x86-64 executable whose
// program headers lie in `start`, whose segments do not wrap around, and whose entry lies in a
// segment.
Result<ElfImage> parse_elf(std::span<const std::byte> start);

struct LoadedKernel {
  std::uint64_t entry;  // guest-physical
  std::uint64_t end;    // the first byte behind the kernel
};

// Loads the kernel in `file`. `memory` must still be all zero. Fails when the file is no such
// kernel, is shorter than its headers say, or does not fit into guest RAM above 1 MiB.
Result<LoadedKernel> load_kernel(int file, const virtio::GuestMemory& memory);

}  // namespace msb::vmm
