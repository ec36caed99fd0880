// SPDX-License-Identifier: Apache-2.0
// Ctrl-P Ctrl-Q among the keys of a terminal, as container engines have it: let go of the process.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace msb::launcher {

class DetachKeys {
 public:
  // The keys that are for the process. A Ctrl-P is held back until the next key shows what it is.
  std::vector<std::byte> pass(std::span<const std::byte> keys) {
    std::vector<std::byte> passed;
    for (const std::byte key : keys) {
      if (std::exchange(held_, false)) {
        if (key == kCtrlQ) {
          detached_ = true;
          return passed;
        }
        passed.push_back(kCtrlP);
      }
      if (key == kCtrlP) {
        held_ = true;
      } else {
        passed.push_back(key);
      }
    }
    return passed;
  }
  // Both came; what followed them is dropped.
  [[nodiscard]] bool detached() const { return detached_; }

 private:
  static constexpr std::byte kCtrlP{0x10};
  static constexpr std::byte kCtrlQ{0x11};
  bool held_ = false;
  bool detached_ = false;
};

}  // namespace msb::launcher
