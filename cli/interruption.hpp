// SPDX-License-Identifier: Apache-2.0
// The signals by which a user ends a command that goes on by itself, as a descriptor to wait for.
#pragma once

#include <optional>
#include <utility>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::cli {

class Interruption {
 public:
  // From now on they end nothing by themselves. To be called before threads are started.
  static Result<Interruption> watch();

  // Readable when one has come.
  [[nodiscard]] int fd() const { return signals_.get(); }
  // The exit status for the one that has come; nothing when none has. Never waits.
  std::optional<int> status();

 private:
  explicit Interruption(Fd signals) : signals_(std::move(signals)) {}
  Fd signals_;
};

}  // namespace msb::cli
