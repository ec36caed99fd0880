// SPDX-License-Identifier: Apache-2.0
// Ends sandboxes, and waits until they have ended.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sandbox/runtime_directory.hpp"

namespace msb::cli {

struct StopWords {
  std::optional<unsigned> timeout_s;  // the grace; absent: that of the sandbox
  std::string signal;                 // empty: that of the sandbox
  bool kill = false;                  // at once
};

// All at the same time. Says of each that it is down. A supervisor that does not answer is killed.
Result<void> stop_all(const std::vector<sandbox::Running>& sandboxes, const StopWords& words);

}  // namespace msb::cli
