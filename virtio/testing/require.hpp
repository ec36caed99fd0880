// SPDX-License-Identifier: Apache-2.0
// What must hold in the tests' own guests and backends. Unit tests and fuzz targets share these,
// and fuzz targets have no doctest: a failure says what was expected and ends the program. doctest
// catches that and names the test case.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <string_view>

namespace msb::virtio::testing {

[[noreturn]] inline void fail_test(std::string_view what,
                                   std::source_location where = std::source_location::current()) {
  fmt::print(stderr, "{}:{}: {}\n", where.file_name(), where.line(), what);
  std::abort();
}

inline void require(bool condition, std::string_view what,
                    std::source_location where = std::source_location::current()) {
  if (!condition) {
    fail_test(what, where);
  }
}

}  // namespace msb::virtio::testing
