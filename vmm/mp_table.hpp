// SPDX-License-Identifier: Apache-2.0
// The processor and interrupt tables that tell a guest without ACPI what it runs on (Intel
// MultiProcessor Specification 1.4, chapter 4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace msb::vmm {

// The floating pointer structure and, right behind it, the configuration table, to be placed at
// guest-physical `address`: `vcpus` processors with APIC ids 0 up, one IOAPIC, one ISA bus,
// interrupt line n on IOAPIC pin n.
std::vector<std::byte> make_mp_table(std::uint32_t vcpus, std::uint32_t address);

}  // namespace msb::vmm
