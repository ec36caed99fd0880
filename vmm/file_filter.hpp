// SPDX-License-Identifier: Apache-2.0
// The system calls of the thread that works on shared directories (seccomp(2)).
#pragma once

#include "base/result.hpp"

namespace msb::vmm {

// From now on the calling thread can do nothing but work on files that it reaches, answer,
// interrupt the guest, and end: no sockets, no other programs, no memory that is code, nothing else
// of KVM. Any other system call ends the process.
Result<void> restrict_to_files();

}  // namespace msb::vmm
