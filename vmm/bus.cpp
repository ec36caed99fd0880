// SPDX-License-Identifier: Apache-2.0
#include "vmm/bus.hpp"

#include <algorithm>

#include "vmm/layout.hpp"

namespace msb::vmm {

VirtioSlot* Bus::find(std::uint64_t address, std::size_t size) {
  if (address < kVirtioWindowsAddress) {
    return nullptr;
  }
  const std::uint64_t index = (address - kVirtioWindowsAddress) / virtio::kMmioSize;
  const std::uint64_t offset = (address - kVirtioWindowsAddress) % virtio::kMmioSize;
  return index < slots_.size() && offset + size <= virtio::kMmioSize ? slots_[index].get()
                                                                     : nullptr;
}

bool Bus::is_serial(std::uint16_t port, std::size_t size) const {
  return serial_ != nullptr && size == 1 && port >= kSerialPort &&
         port < kSerialPort + Serial::kPorts;
}

void Bus::read_memory(std::uint64_t address, std::span<std::byte> data) {
  const std::scoped_lock lock(mutex_);
  if (VirtioSlot* slot = find(address, data.size())) {
    slot->transport().read(address - slot->address(), data);
  } else {
    std::ranges::fill(data, std::byte{0xff});
  }
}

void Bus::write_memory(std::uint64_t address, std::span<const std::byte> data) {
  const std::scoped_lock lock(mutex_);
  if (VirtioSlot* slot = find(address, data.size())) {
    slot->transport().write(address - slot->address(), data);
  }
}

void Bus::read_port(std::uint16_t port, std::span<std::byte> data) {
  const std::scoped_lock lock(mutex_);
  if (is_serial(port, data.size())) {
    data[0] = std::byte{serial_->read(port - kSerialPort)};
  } else {
    std::ranges::fill(data, std::byte{0xff});
  }
}

void Bus::write_port(std::uint16_t port, std::span<const std::byte> data) {
  const std::scoped_lock lock(mutex_);
  if (is_serial(port, data.size())) {
    serial_->write(port - kSerialPort, std::to_integer<std::uint8_t>(data[0]));
  }
}

}  // namespace msb::vmm
