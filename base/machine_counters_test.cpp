// SPDX-License-Identifier: Apache-2.0
#include "base/machine_counters.hpp"

#include <doctest/doctest.h>

namespace msb {
namespace {

TEST_CASE("counters survive the way through JSON") {
  MachineCounters counters;
  counters.exits = ~std::uint64_t{0};
  counters.devices = {{"disk-0", 1, 2, 3, 4, 5, 6, {{0x70, 7, 8}, {0x100, 9, 10}}},
                      {"fs", 0, 0, 0, 0, 0, 0, {}}};
  counters.balloon = {1, 2, 3};
  const auto read = MachineCounters::from_json(counters.to_json());
  REQUIRE(read);
  CHECK(read->exits == counters.exits);
  CHECK(read->balloon.target == 1);
  CHECK(read->balloon.actual == 2);
  CHECK(read->balloon.returned == 3);
  REQUIRE(read->devices.size() == 2);
  CHECK(read->devices[0].name == "disk-0");
  CHECK(read->devices[0].interrupts == 6);
  REQUIRE(read->devices[0].registers.size() == 2);
  CHECK(read->devices[0].registers[0].offset == 0x70);
  CHECK(read->devices[0].registers[1].writes == 10);
  CHECK(read->devices[1].registers.empty());
}

TEST_CASE("what is no set of counters is refused") {
  for (const char* json :
       {"", "{", "[]", "{}", "{\"counters\":7}", "{\"counters\":{\"exits\":\"x\"}}",
        "{\"counters\":{\"exits\":1,\"devices\":{}}}"}) {
    CAPTURE(json);
    CHECK_FALSE(MachineCounters::from_json(json));
  }
}

TEST_CASE("counters that nest deep take no stack") {
  const std::string deep = std::string(4'000'000, '[');
  CHECK_FALSE(MachineCounters::from_json(deep));
  CHECK_FALSE(
      MachineCounters::from_json("{\"counters\":" + deep + std::string(4'000'000, ']') + "}"));
}

}  // namespace
}  // namespace msb
