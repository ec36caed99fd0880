// SPDX-License-Identifier: Apache-2.0
// The times of a run's phases, for --timing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace msb::launcher {

class Timeline {
 public:
  // Notes that `phase` has just been reached.
  void mark(std::string_view phase);
  // Adds what another process noted: lines "name nanoseconds" of CLOCK_MONOTONIC. Anything else is
  // ignored.
  void add(std::string_view prefix, std::string_view lines);
  // A table: when each phase was reached, in milliseconds after the first, and how long after the
  // one before it.
  [[nodiscard]] std::string table() const;

 private:
  struct Mark {
    std::string phase;
    std::int64_t nanoseconds;
  };
  std::vector<Mark> marks_;
};

}  // namespace msb::launcher
