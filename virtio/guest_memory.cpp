// SPDX-License-Identifier: Apache-2.0
#include "virtio/guest_memory.hpp"

#include <sys/mman.h>

namespace msb::virtio {

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(std::span<const Range> ranges) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  for (const Range& range : ranges) {
    // NORESERVE: a guest's RAM is a limit, not a promise; pages appear as they are touched.
    void* host = ::mmap(nullptr, range.size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (host == MAP_FAILED) {
      return fail_errno(errno, "cannot map {} MiB of guest memory; give the sandbox less",
                        range.size >> 20);
    }
    memory->mappings_.push_back({range, static_cast<std::byte*>(host)});
    // Guest RAM holds a stranger's secrets and nothing that helps to debug this process.
    ::madvise(host, range.size, MADV_DONTDUMP);
  }
  return memory;
}

GuestMemory::~GuestMemory() {
  for (const Mapping& mapping : mappings_) {
    ::munmap(mapping.host, mapping.range.size);
  }
}

Result<GuestSlice> GuestMemory::slice(GuestAddress address, std::uint64_t length) const {
  for (const Mapping& mapping : mappings_) {
    const Range& range = mapping.range;
    // Subtractions only, after the comparison that makes them safe: address + length may wrap.
    if (address >= range.start && address - range.start <= range.size &&
        length <= range.size - (address - range.start)) {
      return GuestSlice({mapping.host + (address - range.start), static_cast<std::size_t>(length)});
    }
  }
  return fail("guest-physical range {:#x} with {:#x} bytes is not guest memory", address, length);
}

}  // namespace msb::virtio
