// SPDX-License-Identifier: Apache-2.0
#include "vmm/probe.hpp"

#include <cpuid.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

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

namespace msb::vmm {

namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

// What follows agrees with probe_guest.S.
enum Step : std::size_t { kPlainCode, kCpuid, kSyscall = 11, kSteps };
constexpr std::array<std::string_view, kSteps> kStepNames{
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
constexpr std::uint16_t kPortStep = 0x80;
constexpr std::uint16_t kPortWrong = 0x81;
constexpr std::uint16_t kPortException = 0x82;
constexpr std::uint16_t kPortDone = 0x83;
constexpr std::uint16_t kPortFeatures = 0x84;
constexpr std::size_t kExceptions = 32;
constexpr std::size_t kExceptionSize = 16;
constexpr std::uint8_t kBreakpointVector = 3;
constexpr std::uint8_t kInvalidOpcodeVector = 6;
constexpr std::uint8_t kPageFaultVector = 14;
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
constexpr std::uint64_t kUser =
    4;  // also of a page fault's error code: the access came from ring 3 (4.7)
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

// Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E
constexpr std::uint32_t kLeafFeatures = 1;
constexpr std::uint32_t kLeafExtendedFeatures = 0x80000001;
constexpr std::uint32_t kEcxVmx = 1U << 5;
constexpr std::uint32_t kEcxXsave = 1U << 26;
constexpr std::uint32_t kEcxRdrand = 1U << 30;
constexpr std::uint32_t kExtendedEcxSvm = 1U << 2;
// Hidden from the guest, which no step needs: is it, really?
constexpr std::uint32_t kHiddenEcx = kEcxRdrand;

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

// The CPUID of the guest, and whether it has XSAVE.
struct Cpuid {
  std::vector<kvm_cpuid_entry2> entries;
  bool xsave = false;
};

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

// How a run of the guest ended.
struct Ending {
  std::size_t step;     // the last that began
  std::string failure;  // what that step met, to be followed by its name; empty when all were done
  bool fatal = false;   // further steps would meet the same
  bool hidden_feature_visible = false;
  std::chrono::nanoseconds took{};
};

// The guest met an exception that it did not expect.
Result<std::string> describe_exception(const Vcpu& vcpu, std::size_t step) {
  auto regs = vcpu.regs();
  if (!regs) {
    return std::unexpected(regs.error());
  }
  const auto vector = static_cast<std::uint8_t>(regs->rax);
  const bool at_entry = regs->rcx == kernel_address(msb_probe_syscall);
  // It jumped, but the code there is not for ring 3.
  if (step == kSyscall && vector == kPageFaultVector && at_entry && (regs->rbx & kUser) != 0) {
    return "ring 3 is not left by";
  }
  return fmt::format("exception {} at", vector);
}

// Handles a write of the guest to a port. True: the guest is at its end.
Result<bool> on_port(const Vcpu& vcpu, Ending& ending) {
  const auto data = vcpu.io_data();
  switch (vcpu.state().io.port) {
    case kPortStep:
      ending.step = std::min<std::size_t>(std::to_integer<std::size_t>(data[0]), kSteps - 1);
      return false;
    case kPortFeatures: {
      std::uint32_t ecx = 0;
      std::memcpy(&ecx, data.data(), std::min(sizeof ecx, data.size()));
      ending.hidden_feature_visible |= (ecx & kHiddenEcx) != 0;
      return false;
    }
    case kPortDone:
      return true;
    case kPortWrong:
      ending.failure = "wrong result of";
      return true;
    case kPortException: {
      auto description = describe_exception(vcpu, ending.step);
      if (!description) {
        return std::unexpected(description.error());
      }
      ending.failure = std::move(*description);
      return true;
    }
    default:
      ending.failure = "stray port access in";
      return true;
  }
}

// Runs the guest to its end.
Result<Ending> run_to_end(const Vcpu& vcpu, std::size_t first_step,
                          std::chrono::nanoseconds limit) {
  auto timer = RunLimit::start(vcpu, limit);
  if (!timer) {
    return std::unexpected(timer.error());
  }
  Ending ending{.step = first_step, .failure = {}};
  while (true) {
    if (auto done = vcpu.run(); !done) {
      if (done.error().code != EINTR) {
        return std::unexpected(done.error().within(kStepNames[ending.step]));
      }
      if ((*timer)->expired()) {
        ending.failure = "no return from";
        ending.fatal = true;
        return ending;
      }
      continue;  // some other signal
    }
    const kvm_run& state = vcpu.state();
    switch (state.exit_reason) {
      case KVM_EXIT_IO: {
        auto end = on_port(vcpu, ending);
        if (!end) {
          return std::unexpected(end.error());
        }
        if (!*end) {
          continue;
        }
        break;
      }
      case KVM_EXIT_INTERNAL_ERROR:
        ending.failure = state.internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                             ? "emulation error at"
                             : fmt::format("internal error {} at", state.internal.suberror);
        break;
      case KVM_EXIT_SHUTDOWN:
        ending.failure = "triple fault at";
        break;
      case KVM_EXIT_FAIL_ENTRY:
        ending.failure =
            fmt::format("entry refused ({:#x}) at", state.fail_entry.hardware_entry_failure_reason);
        ending.fatal = true;
        break;
      default:
        ending.failure = fmt::format("unexpected exit {} at", state.exit_reason);
        break;
    }
    // Nothing works without plain code, and each step asks CPUID what to do.
    ending.fatal = ending.fatal || ending.step <= kCpuid;
    return ending;
  }
}

// Runs a new guest from `first_step` on.
Result<Ending> run_guest(int kvm, std::size_t first_step, std::chrono::nanoseconds limit) {
  auto memory = make_memory();
  if (!memory) {
    return std::unexpected(memory.error());
  }
  auto vm = Vm::create(kvm);
  if (!vm) {
    return std::unexpected(vm.error());
  }
  if (auto mapped = vm->map(**memory); !mapped) {
    return std::unexpected(mapped.error());
  }
  auto cpuid = make_cpuid(*vm);
  if (!cpuid) {
    return std::unexpected(cpuid.error());
  }
  auto vcpu = vm->create_vcpu(0);
  if (!vcpu) {
    return std::unexpected(vcpu.error());
  }
  // CPUID comes first: it decides which bits of CR4 and EFER can be set.
  auto set = vcpu->set_cpuid(cpuid->entries);
  if (set) {
    set = set_system_registers(*vcpu, cpuid->xsave);
  }
  if (set) {
    set = set_registers(*vcpu, first_step);
  }
  if (!set) {
    return std::unexpected(set.error());
  }
  const auto start = steady_clock::now();
  auto ending = run_to_end(*vcpu, first_step, limit);
  if (ending) {
    ending->took = steady_clock::now() - start;
  }
  return ending;
}

bool cpu_has_virtualization() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(kLeafFeatures, &eax, &ebx, &ecx, &edx) != 0 && (ecx & kEcxVmx) != 0) {
    return true;
  }
  return __get_cpuid(kLeafExtendedFeatures, &eax, &ebx, &ecx, &edx) != 0 &&
         (ecx & kExtendedEcxSvm) != 0;
}

std::string describe_failures(std::span<const Ending> endings) {
  std::string text;
  const std::string* previous = nullptr;
  for (const Ending& ending : endings) {
    if (ending.failure.empty()) {
      continue;
    }
    // Neighbours that failed in the same way are listed together.
    if (previous != nullptr && *previous == ending.failure) {
      text += fmt::format(", {}", kStepNames[ending.step]);
    } else {
      text +=
          fmt::format("{}{} {}", text.empty() ? "" : "; ", ending.failure, kStepNames[ending.step]);
    }
    previous = &ending.failure;
  }
  return text;
}

// SIGALRM's handler. The timer's value points at kvm_run.immediate_exit, so a signal that comes
// just before KVM_RUN ends it as well (Documentation/virt/kvm/api.rst, 5, "immediate_exit").
void end_run(int, siginfo_t* info, void*) {
  if (info->si_code == SI_TIMER) {
    *static_cast<volatile std::uint8_t*>(info->si_value.sival_ptr) = 1;
  }
}

}  // namespace

Result<ProbeResult> probe_kvm(int kvm, std::chrono::milliseconds limit) {
  std::chrono::nanoseconds left = limit;
  std::vector<Ending> endings;
  bool visible = false;
  // A step that fails leaves the vCPU in a state of its own, so the next step gets a new machine.
  for (std::size_t step = 0; step < kSteps; ++step) {
    auto ending = run_guest(kvm, step, left);
    if (!ending) {
      return std::unexpected(ending.error().within("probing KVM"));
    }
    step = std::max(step, ending->step);
    left -= ending->took;
    visible = visible || ending->hidden_feature_visible;
    endings.push_back(std::move(*ending));
    if (endings.back().fatal || left <= 0ns) {
      break;
    }
  }
  const std::string failures = describe_failures(endings);
  if (failures.empty()) {
    return ProbeResult{
        true, visible
                  ? "KVM runs Linux guests, but shows them CPU features that are hidden from them"
                  : "KVM runs Linux guests"};
  }
  return ProbeResult{
      false, fmt::format("KVM cannot run Linux guests here: {}{}{}", failures,
                         visible ? "; CPU features hidden from the guest are visible" : "",
                         cpu_has_virtualization() ? ""
                                                  : "; this CPU has neither VMX nor SVM: it takes "
                                                    "other hardware or, in a virtual machine, "
                                                    "nested virtualization turned on")};
}

RunLimit::RunLimit(kvm_run& state) : state_(state) {
  struct sigaction action{};
  action.sa_sigaction = end_run;
  action.sa_flags = SA_SIGINFO;  // without SA_RESTART: KVM_RUN is to return
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGALRM, &action, &old_action_);
  sigset_t alarm;
  ::sigemptyset(&alarm);
  ::sigaddset(&alarm, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &alarm, &old_mask_);
}

RunLimit::~RunLimit() {
  // A signal that is pending is delivered at the latest when timer_delete() returns, to our
  // handler.
  if (has_timer_) {
    ::timer_delete(timer_);
  }
  ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  ::sigaction(SIGALRM, &old_action_, nullptr);
  state_.immediate_exit = 0;
}

Result<std::unique_ptr<RunLimit>> RunLimit::start(const Vcpu& vcpu,
                                                  std::chrono::nanoseconds limit) {
  std::unique_ptr<RunLimit> self(new RunLimit(vcpu.state()));
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGALRM;
  event.sigev_value.sival_ptr = &vcpu.state().immediate_exit;
  event._sigev_un._tid = ::gettid();
  if (::timer_create(CLOCK_MONOTONIC, &event, &self->timer_) != 0) {
    return fail_errno(errno, "cannot make a timer that bounds the run of a vCPU");
  }
  self->has_timer_ = true;
  if (limit <= 0ns) {
    self->state_.immediate_exit = 1;  // no time at all, rather than as long as the signal takes
  }
  // Zero would disarm the timer.
  const auto time = std::max(limit, 1ns);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  itimerspec when{};
  when.it_value = {seconds.count(), (time - seconds).count()};
  // Again and again: a KVM that does not know immediate_exit misses a signal that comes before
  // KVM_RUN.
  when.it_interval = {0, 10'000'000};
  if (::timer_settime(self->timer_, 0, &when, nullptr) != 0) {
    return fail_errno(errno, "cannot start the timer that bounds the run of a vCPU");
  }
  return self;
}

}  // namespace msb::vmm
