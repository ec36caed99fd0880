// SPDX-License-Identifier: Apache-2.0
// The guest of the probe (probe_guest.S): what it reports, and the machine that it runs in, which
// has the tables and registers that Linux has.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "virtio/guest_memory.hpp"
#include "vmm/kvm.hpp"

namespace msb::vmm::probe_guest {

// What follows agrees with probe_guest.S.
enum Step : std::size_t { kPlainCode, kCpuid, kSyscall = 11, kSteps };
inline constexpr std::array<std::string_view, kSteps> kStepNames{
    "plain ring 0 code",
    "CPUID",
    "RDTSC",
    "POPCNT",
    "LOCK CMPXCHG16B",
    "XSAVE",
    "STAC",
    "INT3",
    "SWAPGS",
    "IRET to ring 3",
    "SYSRET",
    "SYSCALL",
};
inline constexpr std::uint16_t kPortStep = 0x80;
inline constexpr std::uint16_t kPortWrong = 0x81;
inline constexpr std::uint16_t kPortException = 0x82;
inline constexpr std::uint16_t kPortDone = 0x83;
inline constexpr std::uint16_t kPortFeatures = 0x84;

inline constexpr std::uint8_t kPageFaultVector = 14;
// Intel SDM vol. 3, 4.5: of a page; also of a page fault's error code: the access came from ring 3
// (4.7).
inline constexpr std::uint64_t kUser = 4;

// Intel SDM vol. 2, CPUID
inline constexpr std::uint32_t kLeafFeatures = 1;
inline constexpr std::uint32_t kEcxRdrand = 1U << 30;
// Hidden from the guest, which no step needs: is it, really?
inline constexpr std::uint32_t kHiddenEcx = kEcxRdrand;

// Where SYSCALL leads.
std::uint64_t syscall_entry();

// The guest's memory, with its code and tables.
Result<std::unique_ptr<virtio::GuestMemory>> make_memory();

// The CPUID of the guest, and whether it has XSAVE.
struct Cpuid {
  std::vector<kvm_cpuid_entry2> entries;
  bool xsave = false;
};

Result<Cpuid> make_cpuid(const Vm& vm);

// Sets CPUID and registers, to begin with `first_step`.
Result<void> prepare_vcpu(const Vcpu& vcpu, const Cpuid& cpuid, std::size_t first_step);

}  // namespace msb::vmm::probe_guest
