// SPDX-License-Identifier: Apache-2.0
// Whose an ephemeral sandbox is: of the process that started it, `msb server` or one of several
// `msb mcp`, which removes it when it has ended. Others do so only once that process is gone.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::server {

// Held by a process for as long as it lives: the lock of one byte of $MSB_HOME/server/keepers (by
// the open file description, fcntl(2)), so that nothing of it is left, however it ends.
class Keeper {
 public:
  static Result<Keeper> begin(const std::string& home);

  // The byte's offset, above 0.
  [[nodiscard]] std::int64_t id() const { return id_; }
  // Whether the process with that one lives. Also when that cannot be told.
  [[nodiscard]] bool lives(std::int64_t id) const;

 private:
  Keeper(Fd file, std::int64_t id) : file_(std::move(file)), id_(id) {}
  Fd file_;
  std::int64_t id_;
};

}  // namespace msb::server
