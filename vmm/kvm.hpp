// SPDX-License-Identifier: Apache-2.0
// Thin owners of KVM's descriptors (Documentation/virt/kvm/api.rst). Each call is one ioctl; each
// error names it.
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "virtio/guest_memory.hpp"

namespace msb::vmm {

class Vcpu;

// A virtual machine. Owns its descriptor; vCPUs must not outlive the memory that is mapped into it.
class Vm {
 public:
  // `kvm`: an open /dev/kvm, borrowed as long as the Vm lives. Fails when its API version is
  // not 12.
  static Result<Vm> create(int kvm);

  // Makes guest RAM visible to the guest, one slot per mapping.
  [[nodiscard]] Result<void> map(const virtio::GuestMemory& memory) const;
  // Makes `size` bytes, whole pages, visible at `address` for reading only: writes exit. After
  // map(), once; needs KVM_CAP_READONLY_MEM.
  [[nodiscard]] Result<void> map_read_only(std::uint64_t address, std::byte* host,
                                           std::size_t size) const;
  // The in-kernel local APICs, IOAPIC and PIC, and the pages that Intel VT-x needs. Before any
  // vCPU.
  [[nodiscard]] Result<void> create_irqchip() const;
  // A write of 32 bits `value` to `address` signals `event` without leaving the kernel.
  [[nodiscard]] Result<void> add_ioeventfd(int event, std::uint64_t address,
                                           std::uint32_t value) const;
  // Raises interrupt line `line` of the IOAPIC as an edge, from any thread. Not by an irqfd: those
  // of IOAPIC lines wait for a worker of the kernel (irqfd_inject() in virt/kvm/eventfd.c). Fails
  // only for a line that there is not.
  void pulse_line(std::uint32_t line) const;
  [[nodiscard]] Result<Vcpu> create_vcpu(std::uint32_t id) const;

  // Whether KVM has a capability (KVM_CAP_*), as its number.
  [[nodiscard]] int capability(std::uint32_t number) const;
  // What KVM lets guests see (KVM_GET_SUPPORTED_CPUID).
  [[nodiscard]] Result<std::vector<kvm_cpuid_entry2>> supported_cpuid() const;

 private:
  [[nodiscard]] Result<void> set_memory(const kvm_userspace_memory_region& region) const;
  Vm(int kvm, Fd vm, std::size_t run_size) : kvm_(kvm), vm_(std::move(vm)), run_size_(run_size) {}
  int kvm_;
  Fd vm_;
  std::size_t run_size_;  // bytes of a vCPU's shared kvm_run area
};

// A virtual CPU. run() is called on one thread.
class Vcpu {
 public:
  [[nodiscard]] Result<void> set_cpuid(std::span<const kvm_cpuid_entry2> entries) const;
  [[nodiscard]] Result<void> set_msrs(std::span<const kvm_msr_entry> entries) const;
  [[nodiscard]] Result<kvm_sregs> sregs() const;
  [[nodiscard]] Result<void> set_sregs(const kvm_sregs& sregs) const;
  [[nodiscard]] Result<kvm_regs> regs() const;
  [[nodiscard]] Result<void> set_regs(const kvm_regs& regs) const;

  // Runs the guest until it exits; state().exit_reason says why. Fails with code EINTR when a
  // signal or state().immediate_exit ended it.
  [[nodiscard]] Result<void> run() const;
  // Ends the run() under way on another thread, or else the next, with EINTR; the thread has to get
  // a signal as well. Until let_run().
  void stop_running() const;
  void let_run() const;
  // Tells the guest, if it uses kvmclock, that it did not run for a while and nothing hangs
  // (KVM_KVMCLOCK_CTRL). On the thread of run().
  void forgive_pause() const;
  // Shared with the kernel. What it says about the guest is KVM's word and can be trusted.
  [[nodiscard]] kvm_run& state() const { return *run_; }
  // Bytes of the port access of a KVM_EXIT_IO.
  [[nodiscard]] std::span<std::byte> io_data() const;

 private:
  friend class Vm;
  struct Unmap {
    std::size_t size;
    void operator()(kvm_run* run) const;
  };
  Vcpu(Fd fd, std::unique_ptr<kvm_run, Unmap> run) : fd_(std::move(fd)), run_(std::move(run)) {}
  Fd fd_;
  std::unique_ptr<kvm_run, Unmap> run_;
};

}  // namespace msb::vmm
