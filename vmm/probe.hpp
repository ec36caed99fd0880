// SPDX-License-Identifier: Apache-2.0
// Whether a /dev/kvm that opens can really run Linux: found out by running a tiny guest that
// executes what Linux needs. On a host without hardware virtualization KVM's ioctls may all succeed
// and guest ring 0 may still be an emulation that stops at instructions of every kernel.
#pragma once

#include <chrono>
#include <string>

#include "base/result.hpp"

namespace msb::vmm {

struct ProbeResult {
  bool usable;         // Linux guests run
  std::string reason;  // one sentence for the user; when unusable, which features fail and how
};

inline constexpr std::chrono::milliseconds kProbeLimit{2000};

// `kvm`: an open /dev/kvm, borrowed. `limit`: the guest runs no longer than this in all; a guest
// that is not through by then is a finding, not an error. Uses SIGALRM of the calling thread
// meanwhile (RunLimit). Fails when an ioctl or the timer does, which says nothing about guests.
Result<ProbeResult> probe_kvm(int kvm, std::chrono::milliseconds limit = kProbeLimit);

}  // namespace msb::vmm
