// SPDX-License-Identifier: Apache-2.0
#include "launcher/timeline.hpp"

#include <doctest/doctest.h>

namespace msb::launcher {
namespace {

TEST_CASE("the table is in order of time, whoever noted a phase, and skips what is no mark") {
  Timeline timeline;
  timeline.add("", "second 3000000\nfirst 1000000\n");
  timeline.add("machine: ", "between 2500000\nnonsense\n\nnot a number x\n ");
  CHECK(timeline.table() ==
        "phase                              at ms    after ms\n"
        "first                              0.000       0.000\n"
        "machine: between                   1.500       1.500\n"
        "second                             2.000       0.500\n");
}

}  // namespace
}  // namespace msb::launcher
