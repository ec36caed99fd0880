// SPDX-License-Identifier: Apache-2.0
#include "vmm/kvm.hpp"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "vmm/layout.hpp"

namespace msb::vmm {

namespace {

constexpr int kApiVersion = 12;  // the only one there has been since 2.6.22
constexpr std::uint32_t kMaxCpuidEntries = 256;
constexpr std::uint32_t kReadOnlySlot = 31;  // KVM has 32 at least; RAM takes the first ones

// kvm_cpuid2 and kvm_msrs, which end in a flexible array. In C++ the kernel's own declarations of
// such arrays can take space (the empty structure in __DECLARE_FLEX_ARRAY has a size there), which
// moves the array and changes the numbers of the ioctls; hence these.
struct EntriesHeader {
  std::uint32_t count = 0;
  std::uint32_t padding = 0;
};
constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, EntriesHeader);
constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, EntriesHeader);
constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, EntriesHeader);

// A header and `entries` behind it.
template <typename Entry>
std::vector<std::byte> with_header(std::span<const Entry> entries) {
  const EntriesHeader header{.count = static_cast<std::uint32_t>(entries.size())};
  std::vector<std::byte> buffer(sizeof header + entries.size_bytes());
  std::memcpy(buffer.data(), &header, sizeof header);
  std::memcpy(buffer.data() + sizeof header, entries.data(), entries.size_bytes());
  return buffer;
}

template <typename T>
Result<T> get(int fd, unsigned long request, const char* name) {
  T value{};
  if (::ioctl(fd, request, &value) < 0) {
    return fail_errno(errno, "{} failed", name);
  }
  return value;
}

template <typename T>
Result<void> set(int fd, unsigned long request, const T& value, const char* name) {
  if (::ioctl(fd, request, &value) < 0) {
    return fail_errno(errno, "{} failed", name);
  }
  return {};
}

}  // namespace

Result<Vm> Vm::create(int kvm) {
  const int version = ::ioctl(kvm, KVM_GET_API_VERSION, 0);
  if (version != kApiVersion) {
    return fail("/dev/kvm speaks API version {}, not {}: it is not KVM", version, kApiVersion);
  }
  const int run_size = ::ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_size < static_cast<int>(sizeof(kvm_run))) {
    return fail_errno(errno, "KVM_GET_VCPU_MMAP_SIZE failed");
  }
  Fd vm;
  // EINTR: creating a VM waits for other CPUs and can be interrupted by any signal.
  do {
    vm.reset(::ioctl(kvm, KVM_CREATE_VM, 0));
  } while (!vm && errno == EINTR);
  if (!vm) {
    return fail_errno(errno, "KVM_CREATE_VM failed");
  }
  return Vm(kvm, std::move(vm), static_cast<std::size_t>(run_size));
}

Result<void> Vm::set_memory(const kvm_userspace_memory_region& region) const {
  return set(vm_.get(), KVM_SET_USER_MEMORY_REGION, region, "KVM_SET_USER_MEMORY_REGION");
}

Result<void> Vm::map(const virtio::GuestMemory& memory) const {
  std::uint32_t slot = 0;
  for (const auto& mapping : memory.mappings()) {
    auto done = set_memory({.slot = slot++,
                            .flags = 0,
                            .guest_phys_addr = mapping.range.start,
                            .memory_size = mapping.range.size,
                            .userspace_addr = reinterpret_cast<std::uint64_t>(mapping.host)});
    if (!done) {
      return done;
    }
  }
  return {};
}

Result<void> Vm::map_read_only(std::uint64_t address, std::byte* host, std::size_t size) const {
  return set_memory({.slot = kReadOnlySlot,
                     .flags = KVM_MEM_READONLY,
                     .guest_phys_addr = address,
                     .memory_size = size,
                     .userspace_addr = reinterpret_cast<std::uint64_t>(host)});
}

Result<void> Vm::create_irqchip() const {
  if (::ioctl(vm_.get(), KVM_SET_TSS_ADDR, kTssAddress) < 0) {
    return fail_errno(errno, "KVM_SET_TSS_ADDR failed");
  }
  const std::uint64_t identity_map = kIdentityMapAddress;
  if (auto done =
          set(vm_.get(), KVM_SET_IDENTITY_MAP_ADDR, identity_map, "KVM_SET_IDENTITY_MAP_ADDR");
      !done) {
    return done;
  }
  if (::ioctl(vm_.get(), KVM_CREATE_IRQCHIP, 0) < 0) {
    return fail_errno(errno, "KVM_CREATE_IRQCHIP failed");
  }
  return {};
}

Result<void> Vm::add_ioeventfd(int event, std::uint64_t address, std::uint32_t value) const {
  kvm_ioeventfd request{};
  request.datamatch = value;
  request.addr = address;
  request.len = sizeof value;
  request.fd = event;
  request.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
  return set(vm_.get(), KVM_IOEVENTFD, request, "KVM_IOEVENTFD");
}

void Vm::pulse_line(std::uint32_t line) const {
  for (const std::uint32_t level : {1U, 0U}) {
    kvm_irq_level request{};
    request.irq = line;
    request.level = level;
    ::ioctl(vm_.get(), KVM_IRQ_LINE, &request);
  }
}

Result<Vcpu> Vm::create_vcpu(std::uint32_t id) const {
  Fd fd(::ioctl(vm_.get(), KVM_CREATE_VCPU, static_cast<unsigned long>(id)));
  if (!fd) {
    return fail_errno(errno, "KVM_CREATE_VCPU failed for vCPU {}", id);
  }
  void* run = ::mmap(nullptr, run_size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (run == MAP_FAILED) {
    return fail_errno(errno, "cannot map the shared area of vCPU {}", id);
  }
  return Vcpu(std::move(fd), {static_cast<kvm_run*>(run), Vcpu::Unmap{run_size_}});
}

int Vm::capability(std::uint32_t number) const {
  return ::ioctl(vm_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(number));
}

Result<std::vector<kvm_cpuid_entry2>> Vm::supported_cpuid() const {
  std::vector<kvm_cpuid_entry2> entries(kMaxCpuidEntries);
  auto buffer = with_header<kvm_cpuid_entry2>(entries);
  if (::ioctl(kvm_, kGetSupportedCpuid, buffer.data()) < 0) {
    return fail_errno(errno, "KVM_GET_SUPPORTED_CPUID failed");
  }
  EntriesHeader header;
  std::memcpy(&header, buffer.data(), sizeof header);
  entries.resize(std::min<std::size_t>(header.count, entries.size()));
  std::memcpy(entries.data(), buffer.data() + sizeof header,
              entries.size() * sizeof(kvm_cpuid_entry2));
  return entries;
}

void Vcpu::Unmap::operator()(kvm_run* run) const {
  ::munmap(run, size);
}

Result<void> Vcpu::set_cpuid(std::span<const kvm_cpuid_entry2> entries) const {
  const auto buffer = with_header(entries);
  if (::ioctl(fd_.get(), kSetCpuid2, buffer.data()) < 0) {
    return fail_errno(errno, "KVM_SET_CPUID2 failed");
  }
  return {};
}

Result<void> Vcpu::set_msrs(std::span<const kvm_msr_entry> entries) const {
  const auto buffer = with_header(entries);
  const int count = ::ioctl(fd_.get(), kSetMsrs, buffer.data());
  if (count < 0) {
    return fail_errno(errno, "KVM_SET_MSRS failed");
  }
  if (static_cast<std::size_t>(count) != entries.size()) {
    return fail("KVM_SET_MSRS refused MSR {:#x}", entries[static_cast<std::size_t>(count)].index);
  }
  return {};
}

Result<kvm_sregs> Vcpu::sregs() const {
  return get<kvm_sregs>(fd_.get(), KVM_GET_SREGS, "KVM_GET_SREGS");
}
Result<void> Vcpu::set_sregs(const kvm_sregs& sregs) const {
  return set(fd_.get(), KVM_SET_SREGS, sregs, "KVM_SET_SREGS");
}
Result<kvm_regs> Vcpu::regs() const {
  return get<kvm_regs>(fd_.get(), KVM_GET_REGS, "KVM_GET_REGS");
}
Result<void> Vcpu::set_regs(const kvm_regs& regs) const {
  return set(fd_.get(), KVM_SET_REGS, regs, "KVM_SET_REGS");
}

Result<void> Vcpu::run() const {
  if (::ioctl(fd_.get(), KVM_RUN, 0) < 0) {
    return fail_errno(errno, "KVM_RUN failed");
  }
  return {};
}

void Vcpu::stop_running() const {
  std::atomic_ref(run_->immediate_exit).store(1, std::memory_order_seq_cst);
}

void Vcpu::let_run() const {
  std::atomic_ref(run_->immediate_exit).store(0, std::memory_order_seq_cst);
}

void Vcpu::forgive_pause() const {
  // Fails for a guest without kvmclock, to which there is nothing to say.
  [[maybe_unused]] const int status = ::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0);
}

std::span<std::byte> Vcpu::io_data() const {
  const auto& io = run_->io;
  return {reinterpret_cast<std::byte*>(run_.get()) + io.data_offset,
          std::size_t{io.size} * io.count};
}

}  // namespace msb::vmm
