// SPDX-License-Identifier: Apache-2.0
// What became of a sandbox, for whoever asks later (`msb-vmm run --record`).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "launcher/outcome.hpp"

namespace msb::launcher {

struct ExitRecord {
  Outcome outcome;
  std::uint64_t started_ms = 0;  // since 1970
  std::uint64_t ended_ms = 0;
  std::vector<std::string> kernel;  // what the guest's kernel said last, if the sandbox failed
};

// "exited", "stopped", "timeout", "idle", "failed".
std::string_view cause_word(Cause cause);

// One line of JSON, with its newline.
std::string record_text(const ExitRecord& record);

// Replaces the file at `path`, by way of `path`.tmp: it has the old content or all of the new, also
// after this host crashed.
Result<void> write_record(const std::string& path, const ExitRecord& record);

// Milliseconds since 1970.
std::uint64_t time_of_day_ms();

}  // namespace msb::launcher
