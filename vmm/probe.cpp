// SPDX-License-Identifier: Apache-2.0
#include "vmm/probe.hpp"

#include <cpuid.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/probe_guest.hpp"
#include "vmm/run_limit.hpp"

namespace msb::vmm {

namespace {

using namespace std::chrono_literals;
using namespace probe_guest;
using std::chrono::steady_clock;

// AMD APM vol. 3, appendix E; Intel SDM vol. 2, CPUID
constexpr std::uint32_t kLeafExtendedFeatures = 0x80000001;
constexpr std::uint32_t kEcxVmx = 1U << 5;
constexpr std::uint32_t kExtendedEcxSvm = 1U << 2;

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
  const bool at_entry = regs->rcx == syscall_entry();
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
  if (auto set = prepare_vcpu(*vcpu, *cpuid, first_step); !set) {
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

}  // namespace msb::vmm
