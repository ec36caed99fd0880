// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace msb {

// How long a guest may go by what it has seen of a shared directory, while the host may change it.
enum class ShareCache : std::uint8_t {
  kNever,   // not at all: every read and every name is asked for
  kAuto,    // names and attributes for a second; contents until a file is opened again
  kAlways,  // as long as it likes: the host changes nothing
};

}  // namespace msb
