// SPDX-License-Identifier: Apache-2.0
// The guest-physical address space of a machine, fixed: what lies where below 4 GiB, and where RAM
// goes on above it.
#pragma once

#include <cstdint>
#include <vector>

#include "virtio/guest_memory.hpp"

namespace msb::vmm {

inline constexpr std::uint64_t kKib = 1024;
inline constexpr std::uint64_t kMib = 1024 * kKib;
inline constexpr std::uint64_t kGib = 1024 * kMib;
inline constexpr std::uint64_t kPageSize = 4 * kKib;

// Boot data, in the conventional memory below 640 KiB.
inline constexpr std::uint64_t kGdtAddress = 0x500;
inline constexpr std::uint64_t kBootParamsAddress = 0x7000;  // one page: the zero page
inline constexpr std::uint64_t kSeedAddress = 0x8000;        // setup_data with the random seed
inline constexpr std::uint64_t kPageTablesAddress = 0x9000;  // three pages
inline constexpr std::uint64_t kCommandLineAddress = 0x20000;
inline constexpr std::uint64_t kCommandLineSize = 2048;  // with its NUL; Linux's own limit on x86
inline constexpr std::uint64_t kConventionalEnd = 636 * kKib;
// What the guest's kernel says, reserved for that; a power of two.
inline constexpr std::uint64_t kKernelLogSize = 64 * kKib;
inline constexpr std::uint64_t kKernelLogAddress = kConventionalEnd - kKernelLogSize;
inline constexpr std::uint64_t kMpTableAddress =
    0xf0000;                                             // the BIOS area, where Linux looks for it
inline constexpr std::uint64_t kMpTableSize = 4 * kKib;  // 64 processors take 1.5 KiB
inline constexpr std::uint64_t kHighMemoryAddress = kMib;  // the legacy hole below it holds no RAM

// No RAM between here and 4 GiB: device windows, IOAPIC and local APIC, KVM's own pages.
inline constexpr std::uint64_t kMmioHoleStart = 0xc0000000;
inline constexpr std::uint64_t kMmioHoleEnd = 4 * kGib;
inline constexpr std::uint64_t kVirtioWindowsAddress = 0xd0000000;  // one page per device
inline constexpr std::uint64_t kIoApicAddress = 0xfec00000;
inline constexpr std::uint64_t kLocalApicAddress = 0xfee00000;
// Intel VT-x without unrestricted guest needs three pages and an identity-mapped one that the guest
// does not use.
inline constexpr std::uint64_t kTssAddress = 0xfffbd000;
inline constexpr std::uint64_t kIdentityMapAddress = 0xfffbc000;

// The first of the interrupt lines that virtio devices use, one each; the IOAPIC has 24.
inline constexpr std::uint32_t kFirstVirtioInterrupt = 5;
inline constexpr std::uint32_t kIoApicPins = 24;
inline constexpr std::uint32_t kMaxVirtioDevices = kIoApicPins - kFirstVirtioInterrupt;
inline constexpr std::uint32_t kSerialInterrupt = 4;
inline constexpr std::uint16_t kSerialPort = 0x3f8;

// Where `memory` bytes of RAM go.
inline std::vector<virtio::GuestMemory::Range> ram_ranges(std::uint64_t memory) {
  if (memory <= kMmioHoleStart) {
    return {{0, memory}};
  }
  return {{0, kMmioHoleStart}, {kMmioHoleEnd, memory - kMmioHoleStart}};
}

}  // namespace msb::vmm
