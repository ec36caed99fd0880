// SPDX-License-Identifier: Apache-2.0
// What is asked of the agent in a sandbox that runs, as coroutines: processes, requests, files,
// connections. The agent is the guest's, and not trusted: protocol/ bounds what it may say, and
// nothing here waits for it without an end but what a client may cancel.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/async_io.hpp"
#include "protocol/files.hpp"
#include "protocol/opener.hpp"
#include "protocol/process.hpp"
#include "protocol/requests.hpp"
#include "server/async.hpp"
#include "server/problem.hpp"

namespace msb::server {

// Where and as whom the sandbox's own command runs, which other commands do too unless they are
// told otherwise.
struct Surroundings {
  std::vector<std::string> environment;  // NAME=VALUE
  std::string directory;
  std::string user;
};

// A process of the guest's that is watched.
class GuestProcess {
 public:
  struct Started {
    std::uint32_t process = 0;  // its id in the exec protocol
    std::uint32_t pid = 0;
  };
  struct Output {
    msb_stream stream;
    std::vector<std::byte> bytes;
    std::uint64_t offset = 0;  // of their end, in what the process has written to that stream
  };
  // The last one is Exited or Problem.
  using Event = std::variant<Started, Output, protocol::Exited, Problem>;

  static Outcome<std::unique_ptr<GuestProcess>> start(AsyncIo& io, const protocol::Opener& opener,
                                                      const protocol::ProcessSpec& spec);
  static Outcome<std::unique_ptr<GuestProcess>> attach(AsyncIo& io, const protocol::Opener& opener,
                                                       const protocol::AttachSpec& spec);
  GuestProcess(const GuestProcess&) = delete;
  GuestProcess& operator=(const GuestProcess&) = delete;

  // The next event. While nobody asks, at most kHeld bytes are read, and then the process waits;
  // nothing when `deadline` is over first.
  Async<std::optional<Event>> next(
      Signal::Clock::time_point deadline = Signal::Clock::time_point::max());
  void send_input(std::span<const std::byte> bytes);
  void end_input();
  [[nodiscard]] bool input_open() const;
  // Until what was given is on its way, so that a client is not read faster than the guest reads.
  Async<> input_taken();

 private:
  static constexpr std::size_t kHeld = std::size_t{1} << 18;

  GuestProcess() = default;
  protocol::Process::Events events();
  void add(Event event);

  std::optional<protocol::Process> process_;
  std::deque<Event> events_;
  std::size_t held_ = 0;  // bytes of output in events_
  std::uint64_t offsets_[MSB_STREAMS] = {};
  Signal come_;
  Signal sent_;
};

class Guest {
 public:
  // `agent`: the path of its socket. `io` must outlive it.
  Guest(AsyncIo& io, const std::string& agent, Surroundings around)
      : io_(io), opener_(protocol::open_sandbox(agent)), around_(std::move(around)) {}

  [[nodiscard]] AsyncIo& io() const { return io_; }
  [[nodiscard]] const protocol::Opener& opener() const { return opener_; }
  [[nodiscard]] const Surroundings& around() const { return around_; }

  // A process with the surroundings; `spec` says what is different.
  Outcome<std::unique_ptr<GuestProcess>> start(protocol::ProcessSpec spec) const;

  // One request over a connection of its own. `ask` calls one function of Requests. Fails when
  // there is no answer within `patience`.
  template <typename T>
  Async<Outcome<T>> ask(std::function<void(protocol::Requests&, protocol::Requests::Done<T>)> ask,
                        std::chrono::seconds patience = std::chrono::seconds(20)) const {
    struct State {
      std::optional<protocol::Requests> requests;
      std::optional<protocol::Answer<T>> answer;
      Signal come;
    };
    auto socket = opener_();
    if (!socket) {
      co_return std::unexpected(unreachable(socket.error()));
    }
    // Callbacks end with the requests, so they may have a plain pointer.
    const auto state = std::make_unique<State>();
    state->requests.emplace(io_, std::move(*socket));
    ask(*state->requests, [where = state.get()](protocol::Answer<T> answer) {
      where->answer.emplace(std::move(answer));
      where->come.notify();
    });
    const auto deadline = Signal::Clock::now() + patience;
    while (!state->answer) {
      const bool come = co_await state->come.wait(deadline);
      if (!come) {
        co_return refuse(Reason::kTimeout, "the sandbox's agent does not answer");
      }
    }
    if (!*state->answer) {
      co_return std::unexpected(problem_of(state->answer->error()));
    }
    if constexpr (std::is_void_v<T>) {
      co_return Outcome<T>();
    } else {
      co_return std::move(**state->answer);
    }
  }

  // A file service of its own, for one transfer.
  Outcome<std::unique_ptr<protocol::Files>> files() const;

  // Connects to a TCP port in the guest: a stream socket, in blocking mode.
  Async<Outcome<Fd>> connect(std::uint16_t port) const;

  // What an answer of the agent's is to a client.
  static Problem problem_of(const protocol::Failure& failure);
  static Problem unreachable(const Error& error);

 private:
  AsyncIo& io_;
  protocol::Opener opener_;
  Surroundings around_;
};

}  // namespace msb::server
