// SPDX-License-Identifier: Apache-2.0
// A token bucket (RFC 2697's committed rate and burst): so much a second, and a burst.
#pragma once

#include <algorithm>
#include <cstdint>

namespace msb::virtio {

class TokenBucket {
 public:
  // Tokens per second, and how many are kept; without a rate there is no limit. Full at first.
  TokenBucket(std::uint64_t rate, std::uint64_t burst)
      : rate_(rate), burst_(burst), tokens_(static_cast<double>(burst)) {}

  // Takes `tokens` if there are any at all: what is missing has to come in before the next. Times
  // in nanoseconds.
  bool take(std::uint64_t tokens, std::uint64_t now) {
    if (rate_ == 0) {
      return true;
    }
    const double elapsed = static_cast<double>(now - std::min(seen_, now)) / kSecond;
    seen_ = now;
    tokens_ = std::min(tokens_ + elapsed * static_cast<double>(rate_), static_cast<double>(burst_));
    if (tokens_ <= 0) {
      return false;
    }
    tokens_ -= static_cast<double>(tokens);
    return true;
  }

  // Nanoseconds until take() gives some, after it did not.
  [[nodiscard]] std::uint64_t wait() const {
    return static_cast<std::uint64_t>(std::max(0.0, -tokens_) / static_cast<double>(rate_) *
                                      kSecond) +
           1;
  }

 private:
  static constexpr double kSecond = 1e9;
  std::uint64_t rate_;
  std::uint64_t burst_;
  double tokens_;
  std::uint64_t seen_ = 0;
};

}  // namespace msb::virtio
