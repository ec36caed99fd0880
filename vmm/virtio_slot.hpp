// SPDX-License-Identifier: Apache-2.0
// One virtio device in the machine: its register window, its kicks and its interrupt line.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/loop.hpp"
#include "base/machine_counters.hpp"
#include "base/result.hpp"
#include "virtio/mmio_transport.hpp"
#include "vmm/kvm.hpp"

namespace msb::vmm {

// Connects a device to KVM and to the loop: kicks arrive through ioeventfds, and what else is
// written into registers from the vCPUs.
class VirtioSlot {
 public:
  // `index` counts devices from 0 and decides address and interrupt line. All references must
  // outlive the slot; the loop must be drained before it is destroyed.
  // `name`: for its counters.
  static Result<std::unique_ptr<VirtioSlot>> create(std::uint32_t index, std::string name,
                                                    std::unique_ptr<virtio::Device> device,
                                                    const Vm& vm, const virtio::GuestMemory& memory,
                                                    virtio::MmioTransport::RegisterPage page,
                                                    Loop& loop);

  [[nodiscard]] std::uint64_t address() const { return address_; }
  [[nodiscard]] virtio::MmioTransport& transport() { return *transport_; }
  // What it has counted, on the loop's thread.
  [[nodiscard]] DeviceReport report() const;
  // How the kernel is told of the device: "virtio_mmio.device=4K@0x...:5".
  [[nodiscard]] std::string command_line() const;

 private:
  // One queue's kick: an eventfd that is watched.
  struct Kick {
    Kick(VirtioSlot& owner, std::uint16_t queue);
    void watch();
    VirtioSlot& slot;
    std::uint16_t index;
    Fd event;
    Operation operation;
  };

  VirtioSlot(std::uint32_t index, std::string name, std::unique_ptr<virtio::Device> device,
             Loop& loop);

  Loop& loop_;
  const std::string name_;
  const std::uint64_t address_;
  const std::uint32_t line_;
  std::unique_ptr<virtio::Device> device_;
  Fd acknowledged_;  // eventfd that nobody reads: it only keeps the vCPU in the kernel
  std::deque<Kick> kicks_;
  std::unique_ptr<virtio::MmioTransport> transport_;
};

}  // namespace msb::vmm
