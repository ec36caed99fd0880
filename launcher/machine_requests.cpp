// SPDX-License-Identifier: Apache-2.0
#include "launcher/machine_requests.hpp"

#include <span>
#include <utility>

#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

std::unexpected<Error> gone() {
  return fail("the machine is gone");
}

}  // namespace

void MachineRequests::send(ControlKind kind, std::string text, Done done, Fd descriptor) {
  Request request{kind, std::move(text), std::move(done), std::move(descriptor)};
  if (closed_) {
    request.done(gone());
  } else if (requests_.size() + beside_.size() >= kMaxRequests) {
    request.done(fail("{} requests wait for the machine already; ask again later", kMaxRequests));
  } else if (kind == ControlKind::kAddShare || kind == ControlKind::kRemoveShare) {
    if (const auto error = try_send(request)) {
      request.done(std::unexpected(*error));
    } else {
      beside_.emplace(tag_, std::move(request));
    }
  } else {
    requests_.push_back(std::move(request));
    send_next();
  }
}

// By the next tag.
std::optional<Error> MachineRequests::try_send(const Request& request) {
  const int descriptor = request.descriptor.get();
  const std::span<const int> descriptors(&descriptor, request.descriptor ? 1 : 0);
  if (!control_has_space(control_)) {
    return Error{"the machine does not read what it is sent; ask again later"};
  }
  do {
    ++tag_;
  } while (beside_.contains(tag_) || (under_way_ && tag_ == under_way_tag_));
  if (!send_control(control_, request.kind, tag_, request.text, descriptors)) {
    return gone().error();
  }
  return std::nullopt;
}

void MachineRequests::send_next() {
  while (!under_way_ && !requests_.empty()) {
    if (const auto error = try_send(requests_.front())) {
      const Request request = std::move(requests_.front());
      requests_.pop_front();
      request.done(std::unexpected(*error));
    } else {
      under_way_ = true;
      under_way_tag_ = tag_;
    }
  }
}

Result<void> MachineRequests::on_answer(const ControlMessage& message) {
  const bool done = message.kind == ControlKind::kDone;
  auto beside = beside_.extract(message.value);
  const bool next = under_way_ && message.value == under_way_tag_;
  if ((!done && message.kind != ControlKind::kRefused) || (!next && !beside) ||
      !message.descriptors.empty()) {
    return fail("the machine process answered a request that was not made");
  }
  Request request;
  if (beside) {
    request = std::move(beside.mapped());
  } else {
    request = std::move(requests_.front());
    requests_.pop_front();
    under_way_ = false;
  }
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
  for (const auto& [tag, request] : std::exchange(beside_, {})) {
    request.done(gone());
  }
}

}  // namespace msb::launcher
