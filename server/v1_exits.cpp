// SPDX-License-Identifier: Apache-2.0
#include "server/v1_exits.hpp"

#include <cstring>

namespace msb::server::v1 {

using protocol::Exited;

std::string signal_name(std::uint32_t number) {
  const char* name = ::sigabbrev_np(static_cast<int>(number));
  return name != nullptr ? name : fmt::format("{}", number);
}

Json describe_exit(const Exited& exited) {
  const bool by_signal = exited.fields.kind == MSB_EXIT_SIGNAL;
  const std::uint32_t value = exited.fields.value;
  constexpr std::uint32_t kSignalStatus = 128;  // and its number: the exit code of what it ended
  return {{"exit_code", by_signal ? kSignalStatus + value : value},
          {"signal", by_signal ? Json(signal_name(value)) : Json()},
          {"oom_killed", (exited.fields.flags & MSB_EXITED_OUT_OF_MEMORY) != 0},
          {"timed_out", (exited.fields.flags & MSB_EXITED_TIMED_OUT) != 0}};
}

Json exited_event(const Exited& exited) {
  Json event = {{"event", "exited"}};
  event.update(describe_exit(exited));
  return event;
}

}  // namespace msb::server::v1
