// SPDX-License-Identifier: Apache-2.0
#include "virtio/guest_memory.hpp"

#include <sys/mman.h>

namespace msb::virtio {

namespace {
constexpr std::size_t kHostPage = 4096;  // bytes
}  // namespace

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

// A guest may name pages that a system call is reading into or writing from. The mapping stays, so
// that nothing faults in this process; the kernel has its own reference to a page that it is
// working on, and frees it when it is through with it; and a page that it comes to afterwards is a
// new one. What gets lost are bytes that the guest has declared lost.
std::size_t GuestSlice::discard() const {
  const auto start = reinterpret_cast<std::uintptr_t>(bytes_.data());
  const std::size_t before = (kHostPage - start % kHostPage) % kHostPage;
  if (bytes_.size() < before + kHostPage) {
    return 0;
  }
  const std::size_t size = (bytes_.size() - before) / kHostPage * kHostPage;
  return ::madvise(bytes_.subspan(before).data(), size, MADV_DONTNEED) == 0 ? size : 0;
}

}  // namespace msb::virtio
