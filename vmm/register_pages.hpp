// SPDX-License-Identifier: Apache-2.0
// The register pages of all virtio devices, which the guest reads without leaving.
#pragma once

#include <cstddef>
#include <memory>

#include "base/result.hpp"
#include "virtio/mmio_transport.hpp"
#include "vmm/kvm.hpp"

namespace msb::vmm {

// One page for each device that there can be, in the order of their windows, zeroed. Must outlive
// the devices and the vCPUs.
class RegisterPages {
 public:
  static Result<RegisterPages> create();

  // Of device `index`, less than kMaxVirtioDevices.
  [[nodiscard]] virtio::MmioTransport::RegisterPage page(std::size_t index) const;

  // Maps the first `count` into the guest, at their windows, for reading only: a read is one of
  // memory, and a write exits as before. Where KVM cannot do that, reads exit too.
  [[nodiscard]] Result<void> map(const Vm& vm, std::size_t count) const;

 private:
  struct Unmap {
    void operator()(std::byte* pages) const;
  };
  explicit RegisterPages(std::byte* pages) : pages_(pages) {}
  std::unique_ptr<std::byte, Unmap> pages_;
};

}  // namespace msb::vmm
