// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/network_events.hpp"

#include <fmt/format.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/network_config.hpp"
#include "launcher/complain.hpp"

namespace msb::launcher {

NetworkEvents::NetworkEvents(Loop& loop, const Parts& parts, protocol::Opener agent)
    : parts_(parts),
      denials_(loop, std::move(agent), [this](const NetworkDenial& denial, const auto& program) {
        tell("denied", parts_.network.describe(denial, program));
      }) {}

void NetworkEvents::watch() {
  MachineRequests& requests = parts_.requests;
  parts_.network.watch(
      {.replace =
           [&requests](Fd backend, std::function<void(bool)> done) {
             requests.send(
                 ControlKind::kNetwork, {},
                 [done = std::move(done)](const Result<std::string>& answer) {
                   done(answer.has_value());
                 },
                 std::move(backend));
           },
       .host_changed =
           [&requests](const std::vector<IpAddress>& addresses, std::function<void(bool)> done) {
             requests.send(ControlKind::kHostAddresses, host_addresses_text(addresses),
                           [done = std::move(done)](const Result<std::string>& answer) {
                             done(answer.has_value());
                           });
           },
       .restarted =
           [this](const std::string& how) { tell("network_restarted", {{"message", how}}); },
       .lost =
           [this](const std::string& how) {
             complain(fmt::format("the sandbox has no network any more: {}", how));
             tell("network_lost", {{"message", how}});
           }});
}

// When nobody wants to know, nobody has to be found out.
Result<void> NetworkEvents::on_denied(const ControlMessage& message) {
  const auto denial = NetworkDenial::from_text(message.text);
  if (!denial) {
    return std::unexpected(denial.error());
  }
  const auto release = [&machine = parts_.machine, number = message.value] {
    // A machine that is gone has nobody to answer to; one that is busy answers by itself.
    if (number != 0 && control_has_space(machine.control())) {
      [[maybe_unused]] const auto sent =
          send_control(machine.control(), ControlKind::kRelease, number);
    }
  };
  if (parts_.control == nullptr || !parts_.control->has_subscribers()) {
    release();
  } else {
    denials_.add(*denial, release);
  }
  return {};
}

void NetworkEvents::tell(std::string_view event, Json details) {
  if (parts_.control != nullptr) {
    parts_.control->tell(event, std::move(details));
  }
}

}  // namespace msb::launcher
