// SPDX-License-Identifier: Apache-2.0
#include "base/machine_counters.hpp"

#include "base/json.hpp"

namespace msb {

template <class Archive>
void RegisterCounters::serialize(Archive& archive) {
  archive(CEREAL_NVP(offset), CEREAL_NVP(reads), CEREAL_NVP(writes));
}

template <class Archive>
void DeviceReport::serialize(Archive& archive) {
  archive(CEREAL_NVP(name), CEREAL_NVP(requests), CEREAL_NVP(errors), CEREAL_NVP(bytes_read),
          CEREAL_NVP(bytes_written), CEREAL_NVP(kicks), CEREAL_NVP(interrupts),
          CEREAL_NVP(registers));
}

template <class Archive>
void BalloonReport::serialize(Archive& archive) {
  archive(CEREAL_NVP(target), CEREAL_NVP(actual), CEREAL_NVP(returned));
}

template <class Archive>
void NetworkReport::serialize(Archive& archive) {
  archive(CEREAL_NVP(received), CEREAL_NVP(sent), CEREAL_NVP(denied), CEREAL_NVP(malformed),
          CEREAL_NVP(dropped));
}

template <class Archive>
void MachineCounters::serialize(Archive& archive) {
  archive(CEREAL_NVP(exits), CEREAL_NVP(balloon), CEREAL_NVP(network), CEREAL_NVP(devices));
}

std::string MachineCounters::to_json() const {
  return write_json("counters", *this);
}

Result<MachineCounters> MachineCounters::from_json(std::string_view json) {
  auto counters = read_json<MachineCounters>("counters", json);
  return counters ? std::move(counters)
                  : fail("the machine's counters are not valid JSON: {}", counters.error().message);
}

}  // namespace msb
