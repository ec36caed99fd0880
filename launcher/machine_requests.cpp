// SPDX-License-Identifier: Apache-2.0
#include "launcher/machine_requests.hpp"

#include <utility>

#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

std::unexpected<Error> gone() {
  return fail("the machine is gone");
}

}  // namespace

void MachineRequests::send(ControlKind kind, std::string text, Done done) {
  if (closed_) {
    done(gone());
  } else if (requests_.size() >= kMaxRequests) {
    done(fail("{} requests wait for the machine already; ask again later", kMaxRequests));
  } else {
    requests_.push_back({kind, std::move(text), std::move(done)});
    send_next();
  }
}

void MachineRequests::send_next() {
  while (!under_way_ && !requests_.empty()) {
    const Request& next = requests_.front();
    if (!control_has_space(control_)) {
      const Done done = std::move(requests_.front().done);
      requests_.pop_front();
      done(fail("the machine does not read what it is sent; ask again later"));
    } else if (send_control(control_, next.kind, ++tag_, next.text)) {
      under_way_ = true;
    } else {
      close();
    }
  }
}

Result<void> MachineRequests::on_answer(const ControlMessage& message) {
  const bool done = message.kind == ControlKind::kDone;
  if ((!done && message.kind != ControlKind::kRefused) || !under_way_ || message.value != tag_ ||
      !message.descriptors.empty()) {
    return fail("the machine process answered a request that was not made");
  }
  const Request request = std::move(requests_.front());
  requests_.pop_front();
  under_way_ = false;
  if (done) {
    request.done(message.text);
  } else {
    request.done(fail("{}", protocol::quote(message.text)));
  }
  send_next();
  return {};
}

void MachineRequests::close() {
  closed_ = true;
  under_way_ = false;
  for (const Request& request : std::exchange(requests_, {})) {
    request.done(gone());
  }
}

}  // namespace msb::launcher
