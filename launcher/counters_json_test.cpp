// SPDX-License-Identifier: Apache-2.0
#include "launcher/counters_json.hpp"

#include <doctest/doctest.h>

#include <string>

#include "base/machine_counters.hpp"

namespace msb::launcher {
namespace {

TEST_CASE("counters are shown with the names that registers have") {
  MachineCounters counters;
  counters.exits = 9'000'000'000'000'000'000;
  counters.devices = {{"disk-0", 1, 2, 3, 4, 5, 6, {{0x70, 7, 8}, {0x100, 9, 10}, {0xffc, 1, 0}}},
                      {"fs", 0, 0, 0, 0, 0, 0, {}}};
  const auto shown = show_counters(counters.to_json());
  REQUIRE(shown);
  CHECK(*shown ==
        Json::parse(
            R"({"exits":9000000000000000000,"balloon":{"target":0,"actual":0,"returned":0},
      "network":{"received":0,"sent":0,"denied":0,"malformed":0,"dropped":0},"devices":[
      {"name":"disk-0","requests":1,"errors":2,"bytes_read":3,"bytes_written":4,"kicks":5,
       "interrupts":6,"registers":[{"offset":112,"name":"Status","reads":7,"writes":8},
                                   {"offset":256,"name":"Config","reads":9,"writes":10},
                                   {"offset":4092,"name":"0xffc","reads":1,"writes":0}]},
      {"name":"fs","requests":0,"errors":0,"bytes_read":0,"bytes_written":0,"kicks":0,
       "interrupts":0,"registers":[]}]})"));
  CHECK(register_name(0x050) == "QueueNotify");
  CHECK(register_name(0x064) == "InterruptACK");
}

TEST_CASE("what a machine sends instead of counters is an error, and a device's name only text") {
  for (const std::string& text :
       {std::string(), std::string("\xff\0", 2), std::string("{}"), std::string("[]"),
        std::string(R"({"counters":{"exits":-1,"devices":[]}})"),
        std::string(
            R"({"counters":{"exits":1,"balloon":{"target":0,"actual":0,"returned":0},
      "network":{"received":0,"sent":0,"denied":0,"malformed":0,"dropped":0},"devices":{}}})"),
        // Would overflow the stack of a reader that recurses.
        std::string(130'000, '['), R"({"counters":)" + std::string(130'000, '[')}) {
    CAPTURE(text.substr(0, 60));
    CHECK_FALSE(show_counters(text));
  }
  MachineCounters counters;
  counters.devices = {{"a\n\x1b[2J\"", 0, 0, 0, 0, 0, 0, {}}};
  const auto shown = show_counters(counters.to_json());
  REQUIRE(shown);
  CHECK(shown->at("devices").at(0).at("name") == "a??[2J\"");
}

}  // namespace
}  // namespace msb::launcher
