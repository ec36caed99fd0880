// SPDX-License-Identifier: Apache-2.0
// A tap device that somebody set up on this host (scripts/tap, docs/network.md).
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::launcher {

struct Tap {
  Fd file;                // non-blocking, with a virtio-net header of 12 bytes
  std::uint32_t mtu = 0;  // bytes, that of the host's side
};

// Opens one that exists. Fails with what to do when there is none of that name, it belongs to
// another user, or somebody has it open.
Result<Tap> open_tap(const std::string& name);

}  // namespace msb::launcher
