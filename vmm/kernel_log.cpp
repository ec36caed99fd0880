// SPDX-License-Identifier: Apache-2.0
#include "vmm/kernel_log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "vmm/layout.hpp"

namespace msb::vmm {

namespace {

// struct persistent_ram_buffer of fs/pstore/ram_core.c: a ring, whose next byte goes to `start`.
struct RingHeader {
  std::uint32_t signature;
  std::uint32_t start;
  std::uint32_t size;  // bytes in it
};
constexpr std::uint32_t kSignature = 0x43474244;  // "DBGC"
constexpr std::size_t kCapacity = kKernelLogSize - sizeof(RingHeader);

}  // namespace

std::string kernel_log_options() {
  // All of it for the console; no error correction, no write combining: it is plain memory.
  return fmt::format(
      "ramoops.mem_address={0:#x} ramoops.mem_size={1:#x} ramoops.console_size={1:#x} "
      "ramoops.record_size=0 ramoops.ftrace_size=0 ramoops.pmsg_size=0 ramoops.mem_type=2",
      kKernelLogAddress, kKernelLogSize);
}

std::string read_kernel_log(const virtio::GuestMemory& memory) {
  const auto zone = memory.slice(kKernelLogAddress, kKernelLogSize);
  if (!zone) {
    return "";
  }
  // The guest may have put anything there, and its other processors may still be at it.
  const auto header = zone->load<RingHeader>(0);
  if (header.signature != kSignature || header.size > kCapacity || header.start > header.size) {
    return "";
  }
  // Before it first wraps the ring begins at 0 and ends at `start`; from then on it is full.
  const std::size_t end = header.start;
  const std::size_t wrapped = header.size == kCapacity ? kCapacity - end : 0;
  std::string text(wrapped + end, '\0');
  const auto bytes = std::as_writable_bytes(std::span(text));
  zone->read(sizeof header + end, bytes.first(wrapped));
  zone->read(sizeof header, bytes.subspan(wrapped));
  return text.substr(text.size() - std::min(text.size(), kMaxKernelLog));
}

}  // namespace msb::vmm
