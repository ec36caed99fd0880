// SPDX-License-Identifier: Apache-2.0
// What a machine process has counted since it started, as it tells the launcher.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb {

// Accesses to one register of a device that left the guest, in both directions.
struct RegisterCounters {
  std::uint32_t offset = 0;  // in the device's window, bytes; all of the configuration space is one
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;

  template <class Archive>
  void serialize(Archive& archive);
};

struct DeviceReport {
  std::string name;  // "fs", "vsock", "disk-0"
  std::uint64_t requests = 0;
  std::uint64_t errors = 0;
  std::uint64_t bytes_read = 0;     // by the guest
  std::uint64_t bytes_written = 0;  // by the guest
  std::uint64_t kicks = 0;
  std::uint64_t interrupts = 0;
  std::vector<RegisterCounters> registers;  // those that were accessed

  template <class Archive>
  void serialize(Archive& archive);
};

// Memory that the guest gives back.
struct BalloonReport {
  std::uint64_t target = 0;    // bytes that it was asked for
  std::uint64_t actual = 0;    // bytes that it says it has given
  std::uint64_t returned = 0;  // bytes that went back to the host, again and again, free pages too

  template <class Archive>
  void serialize(Archive& archive);
};

// Frames of the network card.
struct NetworkReport {
  std::uint64_t received = 0;   // by the guest
  std::uint64_t sent = 0;       // by the guest, and let out
  std::uint64_t denied = 0;     // by the policy, of those that the guest sent
  std::uint64_t malformed = 0;  // likewise no packets that one could judge
  std::uint64_t dropped = 0;    // meant for the guest, or let out, and lost for want of room

  template <class Archive>
  void serialize(Archive& archive);
};

struct MachineCounters {
  std::uint64_t exits = 0;  // of all vCPUs, to user space
  BalloonReport balloon;
  NetworkReport network;
  std::vector<DeviceReport> devices;

  template <class Archive>
  void serialize(Archive& archive);

  [[nodiscard]] std::string to_json() const;
  // Fails on anything else: the machine process is not trusted.
  static Result<MachineCounters> from_json(std::string_view json);
};

}  // namespace msb
