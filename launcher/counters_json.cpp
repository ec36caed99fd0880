// SPDX-License-Identifier: Apache-2.0
#include "launcher/counters_json.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/machine_counters.hpp"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

constexpr std::uint32_t kConfig = 0x100;

struct Register {
  std::uint32_t offset;
  std::string_view name;
};

constexpr std::array kRegisters{
    Register{0x000, "MagicValue"},       Register{0x004, "Version"},
    Register{0x008, "DeviceID"},         Register{0x00c, "VendorID"},
    Register{0x010, "DeviceFeatures"},   Register{0x014, "DeviceFeaturesSel"},
    Register{0x020, "DriverFeatures"},   Register{0x024, "DriverFeaturesSel"},
    Register{0x030, "QueueSel"},         Register{0x034, "QueueSizeMax"},
    Register{0x038, "QueueSize"},        Register{0x044, "QueueReady"},
    Register{0x050, "QueueNotify"},      Register{0x060, "InterruptStatus"},
    Register{0x064, "InterruptACK"},     Register{0x070, "Status"},
    Register{0x080, "QueueDescLow"},     Register{0x084, "QueueDescHigh"},
    Register{0x090, "QueueDriverLow"},   Register{0x094, "QueueDriverHigh"},
    Register{0x0a0, "QueueDeviceLow"},   Register{0x0a4, "QueueDeviceHigh"},
    Register{0x0ac, "SHMSel"},           Register{0x0b0, "SHMLenLow"},
    Register{0x0b4, "SHMLenHigh"},       Register{0x0b8, "SHMBaseLow"},
    Register{0x0bc, "SHMBaseHigh"},      Register{0x0c0, "QueueReset"},
    Register{0x0fc, "ConfigGeneration"}, Register{kConfig, "Config"},
};

Json show_register(const RegisterCounters& counters) {
  return {{"offset", counters.offset},
          {"name", register_name(counters.offset)},
          {"reads", counters.reads},
          {"writes", counters.writes}};
}

Json show_device(const DeviceReport& device) {
  Json registers = Json::array();
  for (const RegisterCounters& counters : device.registers) {
    registers.push_back(show_register(counters));
  }
  return {{"name", protocol::quote(device.name)},
          {"requests", device.requests},
          {"errors", device.errors},
          {"bytes_read", device.bytes_read},
          {"bytes_written", device.bytes_written},
          {"kicks", device.kicks},
          {"interrupts", device.interrupts},
          {"registers", std::move(registers)}};
}

}  // namespace

std::string register_name(std::uint32_t offset) {
  const auto found = std::ranges::find(kRegisters, offset, &Register::offset);
  return found == kRegisters.end() ? fmt::format("{:#x}", offset) : std::string(found->name);
}

Result<Json> show_counters(std::string_view text) {
  const auto counters = MachineCounters::from_json(text);
  if (!counters) {
    return std::unexpected(counters.error());
  }
  Json devices = Json::array();
  for (const DeviceReport& device : counters->devices) {
    devices.push_back(show_device(device));
  }
  const BalloonReport& balloon = counters->balloon;
  const NetworkReport& network = counters->network;
  return Json{
      {"exits", counters->exits},
      {"balloon",
       {{"target", balloon.target}, {"actual", balloon.actual}, {"returned", balloon.returned}}},
      {"network",
       {{"received", network.received},
        {"sent", network.sent},
        {"denied", network.denied},
        {"malformed", network.malformed},
        {"dropped", network.dropped}}},
      {"devices", std::move(devices)}};
}

}  // namespace msb::launcher
