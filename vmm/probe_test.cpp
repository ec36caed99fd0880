// SPDX-License-Identifier: Apache-2.0
#include "vmm/probe.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <pthread.h>

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/fd.hpp"
#include "virtio/guest_memory.hpp"
#include "vmm/kvm.hpp"
#include "vmm/layout.hpp"
#include "vmm/run_limit.hpp"

namespace msb::vmm {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

// Empty, with a message, where there is no KVM to test with.
Fd open_kvm() {
  Fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm) {
    MESSAGE("skipped: /dev/kvm does not open: " << std::generic_category().message(errno));
  }
  return kvm;
}

// Whether /proc/cpuinfo has the flag of Intel VT-x or AMD-V.
bool host_has_virtualization() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("flags")) {
      std::istringstream flags(line);
      for (std::string flag; flags >> flag;) {
        if (flag == "vmx" || flag == "svm") {
          return true;
        }
      }
      return false;
    }
  }
  return false;
}

// For the message of an assertion, which is made even when the assertion holds.
std::string error_of(const Result<ProbeResult>& result) {
  return result ? std::string() : result.error().message;
}

std::ptrdiff_t entries_of(const char* directory) {
  return std::distance(std::filesystem::directory_iterator(directory), {});
}

TEST_CASE("the probe's verdict is what the host's CPU says, in time, with a sentence, each time") {
  const Fd kvm = open_kvm();
  if (!kvm) {
    return;
  }
  std::string first_reason;
  for (int round = 0; round < 3; ++round) {
    const auto start = steady_clock::now();
    auto result = probe_kvm(kvm.get());
    const auto took = steady_clock::now() - start;
    REQUIRE_MESSAGE(result, error_of(result));
    MESSAGE(std::chrono::duration_cast<std::chrono::microseconds>(took).count()
            << " us: " << result->reason);
    // The guest's time is bounded, the making of its machines adds to it.
    CHECK(took < kProbeLimit + 1s);
    CHECK(result->usable == host_has_virtualization());
    CHECK(result->reason.starts_with(result->usable ? "KVM runs Linux guests"
                                                    : "KVM cannot run Linux guests here: "));
    CHECK_FALSE(result->reason.ends_with('.'));
    CHECK(result->reason.contains("neither VMX nor SVM") == !host_has_virtualization());
    if (round == 0) {
      first_reason = result->reason;
    }
    CHECK(result->reason == first_reason);
  }
}

TEST_CASE("the probe leaves no descriptor, no thread and SIGALRM as it was") {
  const Fd kvm = open_kvm();
  if (!kvm) {
    return;
  }
  struct sigaction ignore{};
  ignore.sa_handler = SIG_IGN;
  struct sigaction original{};
  REQUIRE(::sigaction(SIGALRM, &ignore, &original) == 0);
  sigset_t alarm;
  sigset_t original_mask;
  ::sigemptyset(&alarm);
  ::sigaddset(&alarm, SIGALRM);
  REQUIRE(::pthread_sigmask(SIG_BLOCK, &alarm, &original_mask) == 0);
  const auto descriptors = entries_of("/proc/self/fd");
  const auto threads = entries_of("/proc/self/task");

  REQUIRE(probe_kvm(kvm.get()));
  REQUIRE(probe_kvm(kvm.get(), 0ms));

  CHECK(entries_of("/proc/self/fd") == descriptors);
  CHECK(entries_of("/proc/self/task") == threads);
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, &original_mask, &mask);
  CHECK(::sigismember(&mask, SIGALRM) == 1);
  struct sigaction after{};
  ::sigaction(SIGALRM, &original, &after);
  CHECK((after.sa_handler == SIG_IGN));
}

TEST_CASE("a probe without time says which step does not return") {
  const Fd kvm = open_kvm();
  if (!kvm) {
    return;
  }
  auto result = probe_kvm(kvm.get(), 0ms);
  REQUIRE_MESSAGE(result, error_of(result));
  CHECK_FALSE(result->usable);
  CHECK_MESSAGE(result->reason.contains("no return from plain ring 0 code"), result->reason);
}

TEST_CASE("a descriptor that is not KVM is an error of the host, not a verdict") {
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  auto result = probe_kvm(null.get());
  REQUIRE_FALSE(result);
  CHECK_MESSAGE(result.error().message.contains("not KVM"), error_of(result));
}

TEST_CASE("a guest that never exits is ended by its run limit") {
  const Fd kvm = open_kvm();
  if (!kvm) {
    return;
  }
  constexpr virtio::GuestMemory::Range kRange{0, 16 * kPageSize};
  auto memory = virtio::GuestMemory::create(std::span(&kRange, 1));
  REQUIRE(memory);
  constexpr std::array kSpin{std::byte{0xeb}, std::byte{0xfe}};  // jmp to itself, in real mode
  (*memory)->slice(kPageSize, kSpin.size())->write(0, kSpin);
  auto vm = Vm::create(kvm.get());
  REQUIRE(vm);
  REQUIRE(vm->map(**memory));
  auto vcpu = vm->create_vcpu(0);
  REQUIRE(vcpu);
  auto sregs = vcpu->sregs();
  REQUIRE(sregs);
  sregs->cs.selector = 0;
  sregs->cs.base = 0;
  REQUIRE(vcpu->set_sregs(*sregs));
  kvm_regs regs{};
  regs.rip = kPageSize;
  regs.rflags = 2;
  REQUIRE(vcpu->set_regs(regs));

  for (const auto limit : {0ms, 50ms}) {
    const auto start = steady_clock::now();
    auto timer = RunLimit::start(*vcpu, limit);
    REQUIRE(timer);
    auto run = vcpu->run();
    while (!run && run.error().code == EINTR && !(*timer)->expired()) {
      run = vcpu->run();
    }
    const auto took = steady_clock::now() - start;
    REQUIRE_FALSE(run);
    CHECK(run.error().code == EINTR);
    CHECK((*timer)->expired());
    CHECK(took >= limit);
    CHECK(took < limit + 2s);
  }
}

}  // namespace
}  // namespace msb::vmm
