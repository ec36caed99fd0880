// SPDX-License-Identifier: Apache-2.0
#include "vmm/probe_guest.hpp"

#include <span>
#include <utility>

#include "vmm/layout.hpp"

// The guest, probe_guest.S.
extern "C" {
extern const std::byte msb_probe_guest[];
extern const std::byte msb_probe_exceptions[];  // kExceptions handlers of kExceptionSize bytes
extern const std::byte msb_probe_breakpoint[];  // handlers of vectors 3 and 6
extern const std::byte msb_probe_invalid_opcode[];
extern const std::byte msb_probe_syscall[];  // LSTAR
extern const std::byte msb_probe_user[];     // the part that runs in ring 3, up to the end
extern const std::byte msb_probe_guest_end[];
}

namespace msb::vmm::probe_guest {

namespace {

// What follows agrees with probe_guest.S.
constexpr std::size_t kExceptions = 32;
constexpr std::size_t kExceptionSize = 16;
constexpr std::uint8_t kBreakpointVector = 3;
constexpr std::uint8_t kInvalidOpcodeVector = 6;
constexpr std::uint16_t kKernelCs = 0x10;
constexpr std::uint16_t kKernelSs = 0x18;
constexpr std::uint16_t kUserCs32 =
    0x23;  // SYSRET adds 8 for SS and 16 for CS (Intel SDM vol. 2, SYSRET)
constexpr std::uint16_t kTssSelector = 0x40;

// Guest memory: one large page of ring 0, mapped where Linux has its code, and one of ring 3,
// mapped low.
constexpr std::uint64_t kLargePageSize = 2 * kMib;
constexpr std::uint64_t kMemorySize = 2 * kLargePageSize;
constexpr std::uint64_t kKernelBase = 0xffffffff80000000;
constexpr std::uint64_t kPml4 = 0x1000;
constexpr std::uint64_t kUserPdpt = 0x2000;
constexpr std::uint64_t kUserDirectory = 0x3000;
constexpr std::uint64_t kKernelPdpt = 0x4000;
constexpr std::uint64_t kKernelDirectory = 0x5000;
constexpr std::uint64_t kGdt = 0x6000;
constexpr std::uint64_t kIdt = 0x7000;
constexpr std::uint64_t kTss = 0x8000;
constexpr std::uint64_t kCode = 0x10000;
constexpr std::uint64_t kStackTop = 0x20000;
constexpr std::uint64_t kUserCode = kLargePageSize;  // physical and virtual
constexpr std::uint64_t kUserStackTop = kUserCode + 64 * kKib;

// Intel SDM vol. 3, 2.5 and 4.5
constexpr std::uint64_t kCr0 = 0x80050033;  // PG, AM, WP, NE, ET, MP, PE
constexpr std::uint64_t kCr4 = 0x620;       // OSXMMEXCPT, OSFXSR, PAE
constexpr std::uint64_t kCr4Osxsave = 1U << 18;
constexpr std::uint64_t kEfer = 0xd01;  // NXE, LMA, LME, SCE
constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kWritable = 2;
constexpr std::uint64_t kLargePage = 1U << 7;
constexpr std::uint64_t kRflagsReserved = 2;

// Intel SDM vol. 3, 3.4.5 and 8.2.3: descriptors and their types
constexpr std::uint8_t kTypeData = 3;
constexpr std::uint8_t kTypeCode = 11;
constexpr std::uint8_t kTypeBusyTss = 11;
constexpr std::uint64_t kKernelCode = 0x00af9b000000ffff;
constexpr std::uint64_t kUserCode64 = 0x00affb000000ffff;
constexpr std::uint64_t kKernelData = 0x00cf93000000ffff;
constexpr std::uint64_t kUserData = 0x00cff3000000ffff;
constexpr std::uint64_t kTssFlags = std::uint64_t{0x80 | kTypeBusyTss} << 40;
constexpr std::uint64_t kInterruptGate = std::uint64_t{0x8e00} << 32;  // present, DPL 0
constexpr std::size_t kGdtSize = kTssSelector + 16;
constexpr std::size_t kTssSize = 104;  // without an I/O permission map
constexpr std::size_t kTssRsp0 = 4;    // offsets
constexpr std::size_t kTssIoMapBase = 102;

// Intel SDM vol. 4, table 2-2
constexpr std::uint32_t kMsrStar = 0xc0000081;
constexpr std::uint32_t kMsrLstar = 0xc0000082;
constexpr std::uint32_t kMsrFmask = 0xc0000084;
constexpr std::uint64_t kSyscallFlagsCleared =
    0x47700;  // what Linux clears: AC, NT, IOPL, DF, IF, TF

constexpr std::uint32_t kEcxXsave = 1U << 26;  // Intel SDM vol. 2, CPUID, leaf 1

std::uint64_t offset(const std::byte* symbol) {
  return static_cast<std::uint64_t>(symbol - msb_probe_guest);
}

// Where a part of the guest's ring 0 code is mapped.
std::uint64_t kernel_address(const std::byte* symbol) {
  return kKernelBase + kCode + offset(symbol);
}

template <typename T>
Result<void> store(const virtio::GuestMemory& memory, std::uint64_t address,
                   std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  auto slice = memory.slice(address, bytes.size());
  if (!slice) {
    return std::unexpected(slice.error());
  }
  slice->write(0, bytes);
  return {};
}

Result<void> store(const virtio::GuestMemory& memory, std::uint64_t address, std::uint64_t value) {
  return store<std::uint64_t>(memory, address, std::span(&value, 1));
}

// Intel SDM vol. 3, 4.5: four levels; the pages are 2 MiB large.
Result<void> write_page_tables(const virtio::GuestMemory& memory) {
  const auto entry = [](std::uint64_t table, std::uint64_t address, unsigned shift) {
    return table + ((address >> shift) & 511) * sizeof(std::uint64_t);
  };
  constexpr std::uint64_t kKernelFlags = kPresent | kWritable;
  constexpr std::uint64_t kUserFlags = kPresent | kWritable | kUser;
  const std::array<std::pair<std::uint64_t, std::uint64_t>, 6> entries{{
      {entry(kPml4, kUserCode, 39), kUserPdpt | kUserFlags},
      {entry(kUserPdpt, kUserCode, 30), kUserDirectory | kUserFlags},
      {entry(kUserDirectory, kUserCode, 21), kUserCode | kLargePage | kUserFlags},
      {entry(kPml4, kKernelBase, 39), kKernelPdpt | kKernelFlags},
      {entry(kKernelPdpt, kKernelBase, 30), kKernelDirectory | kKernelFlags},
      {entry(kKernelDirectory, kKernelBase, 21), kLargePage | kKernelFlags},
  }};
  for (const auto& [address, value] : entries) {
    if (auto stored = store(memory, address, value); !stored) {
      return stored;
    }
  }
  return {};
}

Result<void> write_gdt(const virtio::GuestMemory& memory) {
  constexpr std::uint64_t kBase = kKernelBase + kTss;
  // Linux's order, which STAR relies on; without a 32-bit code segment for ring 3.
  const std::array<std::uint64_t, kGdtSize / 8> gdt{
      0,
      0,
      kKernelCode,
      kKernelData,
      0,
      kUserData,
      kUserCode64,
      0,
      (kTssSize - 1) | (kBase & 0xffffff) << 16 | kTssFlags | (kBase >> 24 & 0xff) << 56,
      kBase >> 32};
  return store<std::uint64_t>(memory, kGdt, gdt);
}

// Intel SDM vol. 3, 8.7: interrupts from ring 3 get the ring 0 stack.
Result<void> write_tss(const virtio::GuestMemory& memory) {
  std::array<std::byte, kTssSize> tss{};
  constexpr std::uint64_t kStack = kKernelBase + kStackTop;
  constexpr std::uint16_t kNoIoMap = kTssSize;
  std::memcpy(tss.data() + kTssRsp0, &kStack, sizeof kStack);
  std::memcpy(tss.data() + kTssIoMapBase, &kNoIoMap, sizeof kNoIoMap);
  return store<std::byte>(memory, kTss, tss);
}

// Intel SDM vol. 3, 6.14.1: 64-bit interrupt gates.
Result<void> write_idt(const virtio::GuestMemory& memory) {
  std::array<std::uint64_t, 2 * kExceptions> idt{};
  const auto set_gate = [&](std::size_t vector, std::uint64_t handler) {
    idt[2 * vector] = (handler & 0xffff) | std::uint64_t{kKernelCs} << 16 | kInterruptGate |
                      (handler >> 16 & 0xffff) << 48;
    idt[2 * vector + 1] = handler >> 32;
  };
  for (std::size_t vector = 0; vector < kExceptions; ++vector) {
    set_gate(vector, kernel_address(msb_probe_exceptions) + vector * kExceptionSize);
  }
  set_gate(kBreakpointVector, kernel_address(msb_probe_breakpoint));
  set_gate(kInvalidOpcodeVector, kernel_address(msb_probe_invalid_opcode));
  return store<std::uint64_t>(memory, kIdt, idt);
}

Result<void> set_system_registers(const Vcpu& vcpu, bool xsave) {
  auto sregs = vcpu.sregs();
  if (!sregs) {
    return std::unexpected(sregs.error());
  }
  const kvm_segment code{.base = 0,
                         .limit = ~0U,
                         .selector = kKernelCs,
                         .type = kTypeCode,
                         .present = 1,
                         .dpl = 0,
                         .db = 0,
                         .s = 1,
                         .l = 1,
                         .g = 1,
                         .avl = 0,
                         .unusable = 0,
                         .padding = 0};
  kvm_segment data = code;
  data.selector = kKernelSs;
  data.type = kTypeData;
  data.db = 1;
  data.l = 0;
  kvm_segment tss = code;
  tss.base = kKernelBase + kTss;
  tss.limit = kTssSize - 1;
  tss.selector = kTssSelector;
  tss.type = kTypeBusyTss;
  tss.s = tss.l = tss.g = 0;
  sregs->cs = code;
  sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
  sregs->tr = tss;
  sregs->gdt.base = kKernelBase + kGdt;
  sregs->gdt.limit = kGdtSize - 1;
  sregs->idt.base = kKernelBase + kIdt;
  sregs->idt.limit = 16 * kExceptions - 1;
  sregs->cr0 = kCr0;
  sregs->cr3 = kPml4;
  sregs->cr4 = kCr4 | (xsave ? kCr4Osxsave : 0);
  sregs->efer = kEfer;
  return vcpu.set_sregs(*sregs);
}

Result<void> set_registers(const Vcpu& vcpu, std::size_t first_step) {
  const std::array<kvm_msr_entry, 3> msrs{{
      {kMsrStar, 0, std::uint64_t{kUserCs32} << 48 | std::uint64_t{kKernelCs} << 32},
      {kMsrLstar, 0, kernel_address(msb_probe_syscall)},
      {kMsrFmask, 0, kSyscallFlagsCleared},
  }};
  if (auto set = vcpu.set_msrs(msrs); !set) {
    return set;
  }
  kvm_regs regs{};
  regs.rip = kernel_address(msb_probe_guest);
  regs.rsp = kKernelBase + kStackTop;
  regs.rdi = first_step;
  regs.r12 = kUserCode;
  regs.r13 = kUserStackTop;
  regs.rflags = kRflagsReserved;
  return vcpu.set_regs(regs);
}

}  // namespace

std::uint64_t syscall_entry() {
  return kernel_address(msb_probe_syscall);
}

Result<std::unique_ptr<virtio::GuestMemory>> make_memory() {
  constexpr virtio::GuestMemory::Range kRange{0, kMemorySize};
  auto memory = virtio::GuestMemory::create(std::span(&kRange, 1));
  if (!memory) {
    return memory;
  }
  const std::span code(msb_probe_guest, offset(msb_probe_guest_end));
  auto stored = store<std::byte>(**memory, kCode, code);
  if (stored) {
    stored = store<std::byte>(**memory, kUserCode, code.subspan(offset(msb_probe_user)));
  }
  for (const auto write : {write_page_tables, write_gdt, write_tss, write_idt}) {
    if (stored) {
      stored = write(**memory);
    }
  }
  if (!stored) {
    return std::unexpected(stored.error());
  }
  return memory;
}

Result<Cpuid> make_cpuid(const Vm& vm) {
  auto entries = vm.supported_cpuid();
  if (!entries) {
    return std::unexpected(entries.error());
  }
  Cpuid cpuid{.entries = std::move(*entries)};
  for (kvm_cpuid_entry2& entry : cpuid.entries) {
    if (entry.function == kLeafFeatures) {
      entry.ecx &= ~kHiddenEcx;
      cpuid.xsave = (entry.ecx & kEcxXsave) != 0;
    }
  }
  return cpuid;
}

Result<void> prepare_vcpu(const Vcpu& vcpu, const Cpuid& cpuid, std::size_t first_step) {
  // CPUID comes first: it decides which bits of CR4 and EFER can be set.
  auto set = vcpu.set_cpuid(cpuid.entries);
  if (set) {
    set = set_system_registers(vcpu, cpuid.xsave);
  }
  if (set) {
    set = set_registers(vcpu, first_step);
  }
  return set;
}

}  // namespace msb::vmm::probe_guest
