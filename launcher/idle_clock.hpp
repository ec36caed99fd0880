// SPDX-License-Identifier: Apache-2.0
// For how long nothing has happened. Pure.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>

namespace msb::launcher {

class IdleClock {
 public:
  using Time = std::chrono::steady_clock::time_point;

  IdleClock(std::chrono::seconds limit, Time now) : limit_(limit), last_(now) {}

  // Something happened.
  void touch(Time now) { last_ = now; }
  // How many things there are whose presence alone counts, such as connections.
  void hold(std::size_t count, Time now) {
    if (count != 0 || held_) {
      last_ = now;
    }
    held_ = count != 0;
  }
  // When the limit is reached if nothing happens until then; never while something is held.
  [[nodiscard]] std::optional<Time> deadline() const {
    return held_ ? std::nullopt : std::optional(last_ + limit_);
  }
  [[nodiscard]] bool is_over(Time now) const { return !held_ && now - last_ >= limit_; }

 private:
  const std::chrono::seconds limit_;
  Time last_;
  bool held_ = false;
};

}  // namespace msb::launcher
