// SPDX-License-Identifier: Apache-2.0
// What the 64-bit boot protocol asks of a boot loader (Documentation/arch/x86/boot.rst, "64-bit
// Boot Protocol"): the zero page, the command line, page tables and the state of the first
// processor.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"
#include "virtio/guest_memory.hpp"
#include "vmm/kvm.hpp"

namespace msb::vmm {

// A range of guest memory that holds the initramfs.
struct LoadedInitramfs {
  std::uint64_t address;
  std::uint64_t size;
};

// Reads the whole of `file` to the end of the RAM below the hole. Fails when it does not fit above
// `kernel_end`.
Result<LoadedInitramfs> load_initramfs(int file, std::uint64_t kernel_end,
                                       const virtio::GuestMemory& memory);

// Writes the zero page with memory map and random seed, the command line, the MP table, the
// descriptor table and the page tables. Fails when the command line is too long, or when the host
// has no randomness.
Result<void> write_boot_data(const virtio::GuestMemory& memory, std::string_view command_line,
                             const LoadedInitramfs& initramfs, std::uint32_t vcpus);

// Puts the boot processor at `entry` in 64-bit mode with the first GiB identity-mapped.
Result<void> set_boot_state(const Vcpu& vcpu, std::uint64_t entry);

}  // namespace msb::vmm
