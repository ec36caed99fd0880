// SPDX-License-Identifier: Apache-2.0
// What a vCPU's CPUID says: KVM's supported features with the topology and timer of this machine.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <vector>

namespace msb::vmm {

// `supported`: from KVM_GET_SUPPORTED_CPUID. `tsc_deadline`: KVM has KVM_CAP_TSC_DEADLINE_TIMER,
// whose CPUID bit it leaves to us. The topology is one package of `vcpus` cores without
// hyper-threads; vCPU `id` has APIC id `id`.
std::vector<kvm_cpuid_entry2> make_cpuid(std::vector<kvm_cpuid_entry2> supported, std::uint32_t id,
                                         std::uint32_t vcpus, bool tsc_deadline);

}  // namespace msb::vmm
