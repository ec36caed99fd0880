// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot.hpp"

#include <asm/bootparam.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <vector>

#include "vmm/layout.hpp"
#include "vmm/mp_table.hpp"

namespace msb::vmm {

namespace {

constexpr std::uint32_t kE820Ram = 1;
constexpr std::uint32_t kE820Reserved = 2;
constexpr std::uint32_t kSetupRngSeed = 9;  // SETUP_RNG_SEED, newer than the header of Linux 6.1
constexpr std::size_t kSeedSize = 32;       // bytes

// Segment selectors that the protocol asks for: __BOOT_CS and __BOOT_DS.
constexpr std::uint16_t kCodeSelector = 0x10;
constexpr std::uint16_t kDataSelector = 0x18;
constexpr std::array<std::uint64_t, 4> kGdt{
    0, 0,
    0x00af9b000000ffff,  // 64-bit code: present, DPL 0, execute and read, accessed
    0x00cf93000000ffff,  // data: present, DPL 0, read and write, accessed
};

// Intel SDM volume 3A, 2.5 and 4.5
constexpr std::uint64_t kCr0 = 0x80050033;  // PG, AM, WP, NE, ET, MP, PE
constexpr std::uint64_t kCr4Pae = 1U << 5;
constexpr std::uint64_t kEferLongMode = 0x500;  // LME, LMA
constexpr std::uint64_t kPresentWritable = 3;
constexpr std::uint64_t kLargePage = 1U << 7;
constexpr std::uint64_t kLargePageSize = 2 * kMib;
constexpr std::uint64_t kRflagsReserved = 2;

// SDM volume 3A, 11.11.2.1: MTRRs enabled, everything write-back
constexpr std::uint32_t kMsrMtrrDefaultType = 0x2ff;
constexpr std::uint64_t kMtrrEnabledWriteBack = (1U << 11) | 6;

struct [[gnu::packed]] Seed {
  std::uint64_t next = 0;
  std::uint32_t type = kSetupRngSeed;
  std::uint32_t length = kSeedSize;
  std::array<std::byte, kSeedSize> bytes{};
};

template <typename T>
Result<void> store(const virtio::GuestMemory& memory, std::uint64_t address, const T& value) {
  auto slice = memory.slice(address, sizeof value);
  if (!slice) {
    return std::unexpected(slice.error());
  }
  slice->store(0, value);
  return {};
}

Result<void> store_bytes(const virtio::GuestMemory& memory, std::uint64_t address,
                         std::span<const std::byte> bytes) {
  auto slice = memory.slice(address, bytes.size());
  if (!slice) {
    return std::unexpected(slice.error());
  }
  slice->write(0, bytes);
  return {};
}

Result<boot_params> make_zero_page(const virtio::GuestMemory& memory, std::size_t command_line_size,
                                   const LoadedInitramfs& initramfs) {
  boot_params params{};
  setup_header& header = params.hdr;
  header.boot_flag = 0xaa55;
  header.header = 0x53726448;    // "HdrS"
  header.version = 0x20f;        // a protocol that knows setup_data
  header.type_of_loader = 0xff;  // no assigned number
  header.kernel_alignment = kLargePageSize;
  header.cmd_line_ptr = kCommandLineAddress;
  header.cmdline_size = static_cast<std::uint32_t>(command_line_size);
  header.ramdisk_image = static_cast<std::uint32_t>(initramfs.address);
  header.ramdisk_size = static_cast<std::uint32_t>(initramfs.size);
  header.setup_data = kSeedAddress;

  std::uint8_t entries = 0;
  const auto add = [&](std::uint64_t start, std::uint64_t end, std::uint32_t type = kE820Ram) {
    params.e820_table[entries++] = {start, end - start, type};
  };
  add(0, kKernelLogAddress);
  add(kKernelLogAddress, kKernelLogAddress + kKernelLogSize, kE820Reserved);
  for (const auto& mapping : memory.mappings()) {
    const std::uint64_t start = mapping.range.start == 0 ? kHighMemoryAddress : mapping.range.start;
    add(start, mapping.range.start + mapping.range.size);
  }
  params.e820_entries = entries;
  return params;
}

}  // namespace

Result<LoadedInitramfs> load_initramfs(int file, std::uint64_t kernel_end,
                                       const virtio::GuestMemory& memory) {
  struct stat status{};
  if (::fstat(file, &status) != 0) {
    return fail_errno(errno, "cannot examine the initramfs");
  }
  const auto size = static_cast<std::uint64_t>(status.st_size);
  const std::uint64_t low_end = memory.mappings().front().range.size;
  if (size == 0 || size >= low_end || ((low_end - size) & ~(kPageSize - 1)) < kernel_end) {
    return fail("the initramfs of {} bytes does not fit into guest memory beside the kernel", size);
  }
  const std::uint64_t address = (low_end - size) & ~(kPageSize - 1);
  auto slice = memory.slice(address, size);
  if (!slice) {
    return std::unexpected(slice.error());
  }
  const iovec target = slice->as_iovec();
  const ssize_t count = ::preadv(file, &target, 1, 0);
  if (count < 0 || static_cast<std::uint64_t>(count) != size) {
    return fail_errno(count < 0 ? errno : EIO, "cannot read the initramfs");
  }
  return LoadedInitramfs{address, size};
}

Result<void> write_boot_data(const virtio::GuestMemory& memory, std::string_view command_line,
                             const LoadedInitramfs& initramfs, std::uint32_t vcpus) {
  if (command_line.size() >= kCommandLineSize) {
    return fail("the kernel command line of {} bytes is longer than {}", command_line.size(),
                kCommandLineSize - 1);
  }
  // Guest memory is zero, so the NUL behind the command line is there already.
  if (auto done = store_bytes(memory, kCommandLineAddress, std::as_bytes(std::span(command_line)));
      !done) {
    return done;
  }
  Seed seed;
  if (::getrandom(seed.bytes.data(), seed.bytes.size(), 0) != static_cast<ssize_t>(kSeedSize)) {
    return fail_errno(errno, "cannot get a random seed for the guest");
  }
  if (auto done = store(memory, kSeedAddress, seed); !done) {
    return done;
  }
  auto zero_page = make_zero_page(memory, command_line.size(), initramfs);
  if (!zero_page) {
    return std::unexpected(zero_page.error());
  }
  if (auto done = store(memory, kBootParamsAddress, *zero_page); !done) {
    return done;
  }
  if (auto done = store_bytes(memory, kMpTableAddress, make_mp_table(vcpus, kMpTableAddress));
      !done) {
    return done;
  }
  if (auto done = store(memory, kGdtAddress, kGdt); !done) {
    return done;
  }
  // One GiB in 2 MiB pages: the protocol asks for the kernel, the zero page and the command line to
  // be covered.
  struct PageTables {
    std::array<std::uint64_t, 512> level4{}, level3{}, level2{};
  } tables;
  tables.level4[0] = (kPageTablesAddress + kPageSize) | kPresentWritable;
  tables.level3[0] = (kPageTablesAddress + 2 * kPageSize) | kPresentWritable;
  for (std::size_t i = 0; i < tables.level2.size(); ++i) {
    tables.level2[i] = i * kLargePageSize | kLargePage | kPresentWritable;
  }
  return store(memory, kPageTablesAddress, tables);
}

Result<void> set_boot_state(const Vcpu& vcpu, std::uint64_t entry) {
  auto sregs = vcpu.sregs();
  if (!sregs) {
    return std::unexpected(sregs.error());
  }
  kvm_segment code{};
  code.limit = ~0U;
  code.selector = kCodeSelector;
  code.type = 11;  // execute and read, accessed
  code.present = 1;
  code.s = 1;
  code.l = 1;
  code.g = 1;
  kvm_segment data = code;
  data.selector = kDataSelector;
  data.type = 3;  // read and write, accessed
  data.l = 0;
  data.db = 1;
  sregs->cs = code;
  sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
  sregs->gdt.base = kGdtAddress;
  sregs->gdt.limit = sizeof kGdt - 1;
  sregs->idt = {};
  sregs->cr0 = kCr0;
  sregs->cr3 = kPageTablesAddress;
  sregs->cr4 = kCr4Pae;
  sregs->efer = kEferLongMode;
  if (auto done = vcpu.set_sregs(*sregs); !done) {
    return done;
  }
  kvm_regs regs{};
  regs.rip = entry;
  regs.rsi = kBootParamsAddress;
  regs.rflags = kRflagsReserved;
  if (auto done = vcpu.set_regs(regs); !done) {
    return done;
  }
  const kvm_msr_entry mtrr{kMsrMtrrDefaultType, 0, kMtrrEnabledWriteBack};
  return vcpu.set_msrs({&mtrr, 1});
}

}  // namespace msb::vmm
