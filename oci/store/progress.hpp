// SPDX-License-Identifier: Apache-2.0
// What someone who waits for an image wants to know.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "oci/image.hpp"

namespace msb::oci {

enum class LayerState : std::uint8_t {
  kQueued,
  kPresent,    // nothing to do
  kElsewhere,  // another process is at it, this one waits
  kReceiving,  // fetched, verified and converted, all in one
  kStoring,    // all received; being written to disk
  kDone,
};

class Progress {
 public:
  virtual ~Progress() = default;

  // Once, before the first layer.
  virtual void begin(const std::vector<Layer>& layers) = 0;
  // From several threads, each for a layer of its own. `received` counts bytes of the blob.
  virtual void update(std::size_t layer, LayerState state, std::uint64_t received) = 0;
};

}  // namespace msb::oci
