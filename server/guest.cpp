// SPDX-License-Identifier: Apache-2.0
#include "server/guest.hpp"

#include <cerrno>
#include <string_view>
#include <utility>

#include "protocol/tunnel.hpp"

namespace msb::server {

namespace {

constexpr std::chrono::seconds kConnectPatience{20};

}  // namespace

std::vector<std::string> with_variables(std::vector<std::string> environment,
                                        std::vector<std::string> changes) {
  const auto name_of = [](std::string_view variable) {
    return variable.substr(0, variable.find('='));
  };
  for (std::string& variable : changes) {
    std::erase_if(environment,
                  [&](const std::string& one) { return name_of(one) == name_of(variable); });
    environment.push_back(std::move(variable));
  }
  return environment;
}

Problem problem_of(const protocol::Failure& failure) {
  if (failure.stage == 0) {
    return {Reason::kFailed,
            "the sandbox ended, or its agent did, before it was done: " + failure.error.message,
            std::nullopt};
  }
  switch (failure.error.code) {
    case ENOENT:
    case ESRCH:
      return {Reason::kNotFound, failure.error.message, std::nullopt};
    case EEXIST:
    case ENOTEMPTY:
    case EBUSY:
      return {Reason::kConflict, failure.error.message, std::nullopt};
    case EACCES:
    case EPERM:
    case EROFS:
      return {Reason::kDenied, failure.error.message, std::nullopt};
    case EINVAL:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENOEXEC:
      return {Reason::kInvalid, failure.error.message, std::nullopt};
    case 0:
      // Said of the request without asking the kernel: a path that is not absolute, for example.
      return {failure.stage == MSB_STAGE_REQUEST ? Reason::kInvalid : Reason::kFailed,
              failure.error.message, std::nullopt};
    default:
      return {Reason::kFailed, failure.error.message, std::nullopt};
  }
}

Problem unreachable(const Error& error) {
  if (error.code == EAGAIN) {
    return {Reason::kFull, error.message, 1};
  }
  return {Reason::kFailed, "the sandbox cannot be reached: " + error.message, std::nullopt};
}

protocol::Process::Events GuestProcess::events() {
  return {
      .started = [this](const msb_started& started) { add(Started{started.process, started.pid}); },
      .attached = {},
      .output =
          [this](msb_stream stream, std::span<const std::byte> bytes) {
            offsets_[stream] += bytes.size();
            held_ += bytes.size();
            add(Output{stream, {bytes.begin(), bytes.end()}, offsets_[stream]});
            return held_ < kHeld;
          },
      .sent = {},
      .exited = [this](const protocol::Exited& exited) { add(exited); },
      .detached =
          [this] {
            add(Problem{Reason::kConflict, "another client attached to the process", std::nullopt});
          },
      .failed = [this](const protocol::Failure& failure) { add(problem_of(failure)); }};
}

void GuestProcess::add(Event event) {
  events_.push_back(std::move(event));
  come_.notify();
}

Outcome<std::unique_ptr<GuestProcess>> GuestProcess::start(AsyncIo& io,
                                                           const protocol::Opener& opener,
                                                           const protocol::ProcessSpec& spec) {
  auto socket = opener();
  if (!socket) {
    return std::unexpected(unreachable(socket.error()));
  }
  std::unique_ptr<GuestProcess> made(new GuestProcess());
  auto process = protocol::Process::start(io, std::move(*socket), spec, made->events());
  if (!process) {
    return refuse(Reason::kInvalid, process.error());
  }
  made->process_.emplace(std::move(*process));
  return made;
}

Async<GuestProcess::Event> GuestProcess::next() {
  while (events_.empty()) {
    co_await come_.wait();
  }
  Event event = std::move(events_.front());
  events_.pop_front();
  if (const auto* output = std::get_if<Output>(&event)) {
    const bool full = held_ >= kHeld;
    held_ -= output->bytes.size();
    if (full && held_ < kHeld) {
      process_->resume();
    }
  }
  co_return event;
}

void GuestProcess::send_input(std::span<const std::byte> bytes) {
  process_->send_input(bytes);
}

void GuestProcess::end_input() {
  process_->end_input();
}

Outcome<std::unique_ptr<GuestProcess>> Guest::start(protocol::ProcessSpec spec) const {
  spec.environment = with_variables(around_.environment, std::move(spec.environment));
  if (spec.directory.empty()) {
    spec.directory = around_.directory.empty() ? "/" : around_.directory;
  }
  if (spec.user.empty()) {
    spec.user = around_.user;
  }
  return GuestProcess::start(io_, opener_, spec);
}

Outcome<std::unique_ptr<protocol::Files>> Guest::files() const {
  auto socket = opener_();
  if (!socket) {
    return std::unexpected(unreachable(socket.error()));
  }
  return std::make_unique<protocol::Files>(io_, std::move(*socket));
}

Async<Outcome<Fd>> Guest::connect(std::uint16_t port) const {
  auto request = protocol::encode_connect_tcp(port);
  if (!request) {
    co_return refuse(Reason::kInvalid, request.error());
  }
  auto socket = opener_();
  if (!socket) {
    co_return std::unexpected(unreachable(socket.error()));
  }
  AgentAnswer<Fd> answer;
  const protocol::Tunnel tunnel(io_, std::move(*socket), std::move(*request), answer.done());
  co_return co_await answer.take(Signal::Clock::now() + kConnectPatience);
}

}  // namespace msb::server
