// SPDX-License-Identifier: Apache-2.0
// Where the guest's port and memory-mapped accesses go that leave KVM.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "vmm/serial.hpp"
#include "vmm/virtio_slot.hpp"

namespace msb::vmm {

// Called by all vCPU threads; one access at a time. Nothing that runs on the loop's thread takes
// this lock, so an access may wait for the loop.
class Bus {
 public:
  // Before the first vCPU runs.
  void add(std::unique_ptr<VirtioSlot> slot) { slots_.push_back(std::move(slot)); }
  void set_serial(std::unique_ptr<Serial> serial) { serial_ = std::move(serial); }
  [[nodiscard]] std::span<const std::unique_ptr<VirtioSlot>> slots() const { return slots_; }

  // An access of data.size() bytes; where nothing is, reads give ones and writes are lost.
  void read_memory(std::uint64_t address, std::span<std::byte> data);
  void write_memory(std::uint64_t address, std::span<const std::byte> data);
  // One port access of data.size() bytes.
  void read_port(std::uint16_t port, std::span<std::byte> data);
  void write_port(std::uint16_t port, std::span<const std::byte> data);

 private:
  // The transport whose window holds the whole access, or null.
  VirtioSlot* find(std::uint64_t address, std::size_t size);
  [[nodiscard]] bool is_serial(std::uint16_t port, std::size_t size) const;

  std::mutex mutex_;
  std::vector<std::unique_ptr<VirtioSlot>> slots_;
  std::unique_ptr<Serial> serial_;
};

}  // namespace msb::vmm
