// SPDX-License-Identifier: Apache-2.0
#include "vmm/mp_table.hpp"

#include <cstring>
#include <span>

#include "vmm/layout.hpp"

namespace msb::vmm {

namespace {

// 4.1 MP floating pointer structure
struct FloatingPointer {
  char signature[4] = {'_', 'M', 'P', '_'};
  std::uint32_t table = 0;
  std::uint8_t length = 1;  // in 16-byte units
  std::uint8_t revision = 4;
  std::uint8_t checksum = 0;
  std::uint8_t features[5] = {};
};
static_assert(sizeof(FloatingPointer) == 16);

// 4.2 MP configuration table header
struct TableHeader {
  char signature[4] = {'P', 'C', 'M', 'P'};
  std::uint16_t length = 0;
  std::uint8_t revision = 4;
  std::uint8_t checksum = 0;
  char oem[8] = {'M', 'S', 'B', ' ', ' ', ' ', ' ', ' '};
  char product[12] = {'M', 'I', 'C', 'R', 'O', 'V', 'M', ' ', ' ', ' ', ' ', ' '};
  std::uint32_t oem_table = 0;
  std::uint16_t oem_table_size = 0;
  std::uint16_t entries = 0;
  std::uint32_t local_apic = static_cast<std::uint32_t>(kLocalApicAddress);
  std::uint32_t reserved = 0;
};
static_assert(sizeof(TableHeader) == 44);

// 4.3.1 Processor entries
struct Processor {
  std::uint8_t type = 0;
  std::uint8_t apic_id = 0;
  std::uint8_t apic_version = 0x14;  // integrated APIC
  std::uint8_t flags = 1;            // enabled; bit 1: the boot processor
  std::uint32_t signature = 0;       // CPUID says it better
  std::uint32_t features = 0;
  std::uint32_t reserved[2] = {};
};
static_assert(sizeof(Processor) == 20);

// 4.3.2 Bus entries
struct Bus {
  std::uint8_t type = 1;
  std::uint8_t id = 0;
  char name[6] = {'I', 'S', 'A', ' ', ' ', ' '};
};
static_assert(sizeof(Bus) == 8);

// 4.3.3 I/O APIC entries
struct IoApic {
  std::uint8_t type = 2;
  std::uint8_t id = 0;
  std::uint8_t version = 0x11;
  std::uint8_t flags = 1;  // enabled
  std::uint32_t address = static_cast<std::uint32_t>(kIoApicAddress);
};
static_assert(sizeof(IoApic) == 8);

// 4.3.4 and 4.3.5 Interrupt assignment entries
struct Interrupt {
  std::uint8_t type;        // 3: to an I/O APIC, 4: to local APICs
  std::uint8_t kind;        // 0: INT, 1: NMI, 3: ExtINT
  std::uint16_t flags = 0;  // as the bus has it; ISA: edge, active high
  std::uint8_t bus = 0;
  std::uint8_t bus_line = 0;
  std::uint8_t apic = 0;
  std::uint8_t apic_line = 0;
};
static_assert(sizeof(Interrupt) == 8);
constexpr std::uint8_t kToIoApic = 3;
constexpr std::uint8_t kToLocalApic = 4;
constexpr std::uint8_t kInt = 0;
constexpr std::uint8_t kNmi = 1;
constexpr std::uint8_t kExtInt = 3;
constexpr std::uint8_t kAllApics = 0xff;

template <typename T>
void append(std::vector<std::byte>& table, const T& entry) {
  const auto bytes = std::as_bytes(std::span(&entry, 1));
  table.insert(table.end(), bytes.begin(), bytes.end());
}

// The value that makes all bytes of a structure add up to zero, given that its checksum field is
// still zero.
std::uint8_t checksum(std::span<const std::byte> bytes) {
  std::uint8_t sum = 0;
  for (const std::byte byte : bytes) {
    sum = static_cast<std::uint8_t>(sum + std::to_integer<std::uint8_t>(byte));
  }
  return static_cast<std::uint8_t>(-sum);
}

}  // namespace

std::vector<std::byte> make_mp_table(std::uint32_t vcpus, std::uint32_t address) {
  std::vector<std::byte> entries;
  std::uint16_t count = 0;
  const auto add = [&](const auto& entry) {
    append(entries, entry);
    ++count;
  };
  for (std::uint32_t id = 0; id < vcpus; ++id) {
    Processor processor;
    processor.apic_id = static_cast<std::uint8_t>(id);
    processor.flags = id == 0 ? 3 : 1;
    add(processor);
  }
  add(Bus{});
  const auto io_apic_id = static_cast<std::uint8_t>(vcpus);  // the first id that no processor has
  add(IoApic{.id = io_apic_id});
  for (std::uint8_t line = 0; line < kIoApicPins; ++line) {
    add(Interrupt{
        .type = kToIoApic, .kind = kInt, .bus_line = line, .apic = io_apic_id, .apic_line = line});
  }
  add(Interrupt{.type = kToLocalApic, .kind = kExtInt, .apic = 0, .apic_line = 0});
  add(Interrupt{.type = kToLocalApic, .kind = kNmi, .apic = kAllApics, .apic_line = 1});

  TableHeader header;
  header.length = static_cast<std::uint16_t>(sizeof header + entries.size());
  header.entries = count;
  std::vector<std::byte> table;
  append(table, header);
  table.insert(table.end(), entries.begin(), entries.end());
  table[offsetof(TableHeader, checksum)] = std::byte{checksum(table)};

  FloatingPointer pointer;
  pointer.table = address + static_cast<std::uint32_t>(sizeof pointer);
  pointer.checksum = checksum(std::as_bytes(std::span(&pointer, 1)));
  std::vector<std::byte> result;
  append(result, pointer);
  result.insert(result.end(), table.begin(), table.end());
  return result;
}

}  // namespace msb::vmm
