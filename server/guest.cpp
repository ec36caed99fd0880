// SPDX-License-Identifier: Apache-2.0
#include "server/guest.hpp"

#include <cerrno>
#include <utility>

#include "protocol/tunnel.hpp"

namespace msb::server {

namespace {

constexpr std::chrono::seconds kConnectPatience{20};

}  // namespace

// What is said at once when a process is lost: the last event of a GuestProcess.
Problem Guest::problem_of(const protocol::Failure& failure) {
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
      return {Reason::kForbidden, failure.error.message, std::nullopt};
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

Problem Guest::unreachable(const Error& error) {
  if (error.code == EAGAIN) {
    return {Reason::kFull, error.message, 1};
  }
  return {Reason::kFailed, "the sandbox cannot be reached: " + error.message, std::nullopt};
}

protocol::Process::Events GuestProcess::events() {
  return {
      .started = [this](const msb_started& started) { add(Started{started.process, started.pid}); },
      .attached =
          [this](const msb_attached& attached) {
            for (std::size_t i = 0; i < MSB_STREAMS; ++i) {
              offsets_[i] = attached.offsets[i];
            }
            add(Started{});
          },
      .output =
          [this](msb_stream stream, std::span<const std::byte> bytes) {
            offsets_[stream] += bytes.size();
            held_ += bytes.size();
            add(Output{stream, {bytes.begin(), bytes.end()}, offsets_[stream]});
            return held_ < kHeld;
          },
      .sent = [this] { sent_.notify(); },
      .exited = [this](const protocol::Exited& exited) { add(exited); },
      .detached =
          [this] {
            add(Problem{Reason::kConflict, "another client attached to the process", std::nullopt});
          },
      .failed = [this](const protocol::Failure& failure) { add(Guest::problem_of(failure)); }};
}

void GuestProcess::add(Event event) {
  events_.push_back(std::move(event));
  come_.notify();
  sent_.notify();
}

Outcome<std::unique_ptr<GuestProcess>> GuestProcess::start(AsyncIo& io,
                                                           const protocol::Opener& opener,
                                                           const protocol::ProcessSpec& spec) {
  auto socket = opener();
  if (!socket) {
    return std::unexpected(Guest::unreachable(socket.error()));
  }
  std::unique_ptr<GuestProcess> made(new GuestProcess());
  auto process = protocol::Process::start(io, std::move(*socket), spec, made->events());
  if (!process) {
    return refuse(Reason::kInvalid, process.error());
  }
  made->process_.emplace(std::move(*process));
  return made;
}

Outcome<std::unique_ptr<GuestProcess>> GuestProcess::attach(AsyncIo& io,
                                                            const protocol::Opener& opener,
                                                            const protocol::AttachSpec& spec) {
  auto socket = opener();
  if (!socket) {
    return std::unexpected(Guest::unreachable(socket.error()));
  }
  std::unique_ptr<GuestProcess> made(new GuestProcess());
  made->process_.emplace(protocol::Process::attach(io, std::move(*socket), spec, made->events()));
  return made;
}

Async<std::optional<GuestProcess::Event>> GuestProcess::next(Signal::Clock::time_point deadline) {
  while (events_.empty()) {
    const bool come = co_await come_.wait(deadline);
    if (!come) {
      co_return std::nullopt;
    }
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

bool GuestProcess::input_open() const {
  return process_->input_open();
}

Async<> GuestProcess::input_taken() {
  while (process_->unsent() > 0 &&
         (events_.empty() || std::holds_alternative<Output>(events_.back()) ||
          std::holds_alternative<Started>(events_.back()))) {
    co_await sent_.wait();
  }
}

Outcome<std::unique_ptr<GuestProcess>> Guest::start(protocol::ProcessSpec spec) const {
  std::vector<std::string> environment = around_.environment;
  for (std::string& variable : spec.environment) {
    const auto name = variable.substr(0, variable.find('=') + 1);
    std::erase_if(environment, [&](const std::string& one) { return one.starts_with(name); });
    environment.push_back(std::move(variable));
  }
  spec.environment = std::move(environment);
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
  struct State {
    std::optional<protocol::Tunnel> tunnel;
    std::optional<protocol::Answer<Fd>> answer;
    Signal come;
  };
  const auto state = std::make_unique<State>();
  state->tunnel.emplace(io_, std::move(*socket), std::move(*request),
                        [where = state.get()](protocol::Answer<Fd> answer) {
                          where->answer.emplace(std::move(answer));
                          where->come.notify();
                        });
  const auto deadline = Signal::Clock::now() + kConnectPatience;
  while (!state->answer) {
    const bool come = co_await state->come.wait(deadline);
    if (!come) {
      co_return refuse(Reason::kTimeout, "the sandbox's agent does not answer");
    }
  }
  if (!*state->answer) {
    co_return std::unexpected(problem_of(state->answer->error()));
  }
  co_return std::move(**state->answer);
}

}  // namespace msb::server
