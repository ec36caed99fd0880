// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/denial_reports.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace msb::launcher {

DenialReports::DenialReports(AsyncIo& io, protocol::Opener agent, Report report)
    : io_(io),
      open_agent_(std::move(agent)),
      report_(std::move(report)),
      timer_([this](std::int32_t result) {
        if (result == -ETIME) {
          on_timeout();
        }
      }) {}

void DenialReports::add(const NetworkDenial& denial, std::function<void()> asked) {
  const bool has_socket = denial.protocol == IPPROTO_TCP || denial.protocol == IPPROTO_UDP;
  if (closed_ || !has_socket || denial.source_port == 0 || denial.destination_port == 0 ||
      waiting_.size() >= kMaxWaiting) {
    asked();
    report_(denial, std::nullopt);
    return;
  }
  waiting_.push_back({++number_, denial, std::move(asked), std::nullopt});
  if (!timer_.pending()) {
    overdue_ = number_;
    io_.timeout(kPatience, timer_);
  }
  ask(waiting_.back());
}

void DenialReports::ask(const Waiting& waiting) {
  const std::uint64_t number = waiting.number;
  if (!agent_ || !agent_->open()) {
    auto socket = open_agent_();
    if (!socket) {
      on_answer(number, std::nullopt);
      return;
    }
    agent_.emplace(io_, std::move(*socket));
  }
  const NetworkDenial& denial = waiting.denial;
  msb_socket ends{};
  ends.family = denial.destination.family;
  ends.protocol = denial.protocol;
  ends.local_port = static_cast<std::uint16_t>(denial.source_port);
  ends.remote_port = static_cast<std::uint16_t>(denial.destination_port);
  static_assert(sizeof ends.remote == sizeof denial.destination.bytes);
  std::memcpy(ends.remote, denial.destination.bytes.data(), sizeof ends.remote);
  agent_->socket_owner(
      ends, [this, number](const protocol::Answer<std::optional<protocol::SocketOwner>>& answer) {
        on_answer(number, answer ? *answer : std::nullopt);
      });
}

void DenialReports::on_answer(std::uint64_t number, std::optional<protocol::SocketOwner> program) {
  const auto found = std::ranges::find(waiting_, number, &Waiting::number);
  if (found != waiting_.end()) {
    found->program = std::move(program);
    found->answered = true;
    tell();
  }
}

// In the order in which things happened.
void DenialReports::tell() {
  while (!waiting_.empty() && waiting_.front().answered) {
    const Waiting first = std::move(waiting_.front());
    waiting_.pop_front();
    first.asked();
    report_(first.denial, first.program);
  }
}

void DenialReports::on_timeout() {
  for (Waiting& waiting : waiting_) {
    waiting.answered = waiting.answered || waiting.number <= overdue_;
  }
  tell();
  if (!waiting_.empty() && !closed_) {
    overdue_ = number_;
    io_.timeout(kPatience, timer_);
  }
}

void DenialReports::close() {
  closed_ = true;
  agent_.reset();
  waiting_.clear();
  io_.cancel(timer_);
}

}  // namespace msb::launcher
