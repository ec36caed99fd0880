// SPDX-License-Identifier: Apache-2.0
// What a guest's kernel said last: it writes its console into a reserved part of its memory, which
// costs no exits (Documentation/admin-guide/ramoops.rst), and this reads it when the guest is gone.
#pragma once

#include <string>

#include "virtio/guest_memory.hpp"

namespace msb::vmm {

// Words for the kernel's command line that give it kKernelLogAddress and kKernelLogSize.
std::string kernel_log_options();

// The end of the log, at most kMaxKernelLog bytes, in whatever bytes the guest left there; empty
// when there is none.
inline constexpr std::size_t kMaxKernelLog = 8192;
std::string read_kernel_log(const virtio::GuestMemory& memory);

}  // namespace msb::vmm
