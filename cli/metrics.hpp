// SPDX-License-Identifier: Apache-2.0
// `msb metrics`
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"

namespace msb::cli {

struct MetricsWords {
  std::string file;                // -f
  std::vector<std::string> names;  // none: all that run
  bool once = false;
  double interval = 1;  // seconds, on a terminal
  Format format = Format::kTable;
};

// Gives the exit status.
Result<int> metrics(const MetricsWords& words);

// What is known of one sandbox. Bytes, and milliseconds.
struct MetricsRow {
  std::string name;
  std::optional<double> cpu_percent;
  std::optional<std::uint64_t> memory_used;
  std::optional<std::uint64_t> memory_limit;
  std::optional<std::uint64_t> disk;
  std::optional<std::uint64_t> received;
  std::optional<std::uint64_t> sent;
  std::optional<std::uint64_t> processes;
  std::optional<std::uint64_t> uptime_ms;
};

std::string format_metrics(const std::vector<MetricsRow>& rows);
Json metrics_json(const std::vector<MetricsRow>& rows);

}  // namespace msb::cli
