// SPDX-License-Identifier: Apache-2.0
#include "vmm/register_pages.hpp"

#include <sys/mman.h>

#include "vmm/layout.hpp"

namespace msb::vmm {

namespace {
constexpr std::size_t kSize = kMaxVirtioDevices * virtio::kMmioSize;
}

Result<RegisterPages> RegisterPages::create() {
  void* pages = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    return fail_errno(errno, "cannot map the devices' register pages");
  }
  return RegisterPages(static_cast<std::byte*>(pages));
}

void RegisterPages::Unmap::operator()(std::byte* pages) const {
  ::munmap(pages, kSize);
}

virtio::MmioTransport::RegisterPage RegisterPages::page(std::size_t index) const {
  return virtio::MmioTransport::RegisterPage(pages_.get() + index * virtio::kMmioSize,
                                             virtio::kMmioSize);
}

Result<void> RegisterPages::map(const Vm& vm, std::size_t count) const {
  if (vm.capability(KVM_CAP_READONLY_MEM) <= 0) {
    return {};
  }
  return vm.map_read_only(kVirtioWindowsAddress, pages_.get(), count * virtio::kMmioSize);
}

}  // namespace msb::vmm
