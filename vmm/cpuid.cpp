// SPDX-License-Identifier: Apache-2.0
#include "vmm/cpuid.hpp"

#include <bit>

namespace msb::vmm {

namespace {

// Leaves and fields: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
constexpr std::uint32_t kLeafFeatures = 0x1;
constexpr std::uint32_t kLeafCaches = 0x4;
constexpr std::uint32_t kLeafTopology = 0xb;
constexpr std::uint32_t kLeafTopologyV2 = 0x1f;
constexpr std::uint32_t kLeafAmdSizes = 0x80000008;
constexpr std::uint32_t kLeafAmdTopology = 0x8000001e;

constexpr std::uint32_t kTscDeadline = 1U << 24;     // leaf 1 ECX
constexpr std::uint32_t kHypervisor = 1U << 31;      // leaf 1 ECX
constexpr std::uint32_t kMultiThreading = 1U << 28;  // leaf 1 EDX: EBX[23:16] is valid

constexpr std::uint32_t kLevelThread = 1;
constexpr std::uint32_t kLevelCore = 2;

// Replaces bits [low, low + width) of `value`.
void set_bits(std::uint32_t& value, unsigned low, unsigned width, std::uint32_t bits) {
  const std::uint32_t mask = ((1U << width) - 1) << low;
  value = (value & ~mask) | ((bits << low) & mask);
}

bool is_topology(const kvm_cpuid_entry2& entry) {
  return entry.function == kLeafTopology || entry.function == kLeafTopologyV2;
}

}  // namespace

std::vector<kvm_cpuid_entry2> make_cpuid(std::vector<kvm_cpuid_entry2> supported, std::uint32_t id,
                                         std::uint32_t vcpus, bool tsc_deadline) {
  const auto core_bits = static_cast<std::uint32_t>(std::bit_width(vcpus - 1));  // of the APIC id
  bool has_topology = false;
  for (kvm_cpuid_entry2& entry : supported) {
    switch (entry.function) {
      case kLeafFeatures:
        set_bits(entry.ebx, 24, 8, id);
        set_bits(entry.ebx, 16, 8, vcpus);
        entry.ecx |= kHypervisor | (tsc_deadline ? kTscDeadline : 0);
        entry.edx = vcpus > 1 ? entry.edx | kMultiThreading : entry.edx & ~kMultiThreading;
        break;
      case kLeafCaches: {
        const std::uint32_t level = (entry.eax >> 5) & 7;
        set_bits(entry.eax, 14, 12,
                 level >= 3 ? (1U << core_bits) - 1 : 0);   // who shares the cache
        set_bits(entry.eax, 26, 6, (1U << core_bits) - 1);  // cores in the package
        break;
      }
      case kLeafAmdSizes:
        set_bits(entry.ecx, 0, 8, vcpus - 1);
        set_bits(entry.ecx, 12, 4, core_bits);
        break;
      case kLeafAmdTopology:
        entry.eax = id;
        entry.ebx = id & 0xff;  // core id, one thread per core
        entry.ecx = 0;          // node 0 of 1
        break;
      default:
        has_topology |= is_topology(entry);
        break;
    }
  }
  if (has_topology) {
    std::erase_if(supported, is_topology);
    kvm_cpuid_entry2 threads{};
    threads.function = kLeafTopology;
    threads.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    threads.ebx = 1;
    threads.ecx = kLevelThread << 8;
    threads.edx = id;
    kvm_cpuid_entry2 cores = threads;
    cores.index = 1;
    cores.eax = core_bits;
    cores.ebx = vcpus;
    cores.ecx = kLevelCore << 8 | cores.index;
    supported.push_back(threads);
    supported.push_back(cores);
  }
  return supported;
}

}  // namespace msb::vmm
