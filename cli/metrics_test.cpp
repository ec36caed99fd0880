// SPDX-License-Identifier: Apache-2.0
#include "cli/metrics.hpp"

#include <doctest/doctest.h>

namespace msb::cli {
namespace {

MetricsRow full() {
  MetricsRow row;
  row.name = "web";
  row.cpu_percent = 12.34;
  row.memory_used = 1'500'000;
  row.memory_limit = 536'870'912;
  row.disk = 0;
  row.received = 1000;
  row.sent = 20;
  row.processes = 7;
  row.uptime_ms = 65'999;
  return row;
}

TEST_CASE("what a sandbox uses is a row of a table") {
  const std::string table = format_metrics({full()});
  CHECK(table.starts_with("NAME  CPU %"));
  CHECK(
      table.find("web   12.3   1.5 MB / 536.9 MB  0 B   1.0 kB  20 B     7          1 min 5 s\n") !=
      std::string::npos);
}

TEST_CASE("what is not known is a dash, and null") {
  MetricsRow row;
  row.name = "quiet";
  const std::string table = format_metrics({row});
  CHECK(table.find("quiet  -      - / -   -     -       -        -          -\n") !=
        std::string::npos);
  const Json documents = metrics_json({row, full()});
  REQUIRE(documents.size() == 2);
  CHECK(documents[0]["cpu_percent"].is_null());
  CHECK(documents[0]["uptime_ms"].is_null());
  CHECK(documents[1]["memory_used"] == 1'500'000);
  CHECK(documents[1]["processes"] == 7);
}

}  // namespace
}  // namespace msb::cli
