// SPDX-License-Identifier: Apache-2.0
// The machine's counters as the control socket shows them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "launcher/json_rpc.hpp"

namespace msb::launcher {

// The name that virtio 1.2 section 4.2.2 gives to the register at `offset`; "Config" for the
// configuration space, and the offset itself, as "0x1c", for what the section does not name.
std::string register_name(std::uint32_t offset);

// From the text of the machine's answer. Fails on anything that is no MachineCounters.
Result<Json> show_counters(std::string_view text);

}  // namespace msb::launcher
