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
#include <type_traits>
#include <utility>
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

// `environment` with `changes`, both as NAME=VALUE: of each name one. Pure.
std::vector<std::string> with_variables(std::vector<std::string> environment,
                                        std::vector<std::string> changes);

// What an answer of the agent's is to a client, and a connection to it that cannot be made.
Problem problem_of(const protocol::Failure& failure);
Problem unreachable(const Error& error);

// How long an agent may say nothing that has nothing to wait for.
inline constexpr std::chrono::seconds kAgentPatience{60};

// The answer to what the agent was asked. It has to outlive whatever calls done(), which ends with
// the connection.
template <typename T>
struct AgentAnswer {
  std::optional<protocol::Answer<T>> value;
  Signal changed;  // also by others, of what they wait for beside it

  std::function<void(protocol::Answer<T>)> done() {
    return [this](protocol::Answer<T> given) {
      value.emplace(std::move(given));
      changed.notify();
    };
  }
  // Until there is one, or `sign` holds, which shows that the agent goes on. Fails when there is
  // neither by `deadline`.
  Async<Outcome<void>> wait(std::function<bool()> sign,
                            Signal::Clock::time_point deadline = Signal::Clock::now() +
                                                                 kAgentPatience) {
    bool come = true;
    while (!value && !sign()) {
      if (!come) {
        co_return refuse(Reason::kTimeout, "the sandbox's agent does not answer");
      }
      come = co_await changed.wait(deadline);
    }
    co_return Outcome<void>();
  }
  // To be called once. Fails when there is none by `deadline`.
  Async<Outcome<T>> take(Signal::Clock::time_point deadline = Signal::Clock::now() +
                                                              kAgentPatience) {
    std::function<bool()> never = [] { return false; };
    if (auto come = co_await wait(std::move(never), deadline); !come) {
      co_return std::unexpected(come.error());
    }
    if (!*value) {
      co_return std::unexpected(problem_of(value->error()));
    }
    if constexpr (std::is_void_v<T>) {
      co_return Outcome<T>();
    } else {
      co_return std::move(**value);
    }
  }
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
  GuestProcess(const GuestProcess&) = delete;
  GuestProcess& operator=(const GuestProcess&) = delete;

  // The next event. While nobody asks, at most kHeld bytes are read, and then the process waits.
  Async<Event> next();
  void send_input(std::span<const std::byte> bytes);
  void end_input();

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
    auto socket = opener_();
    if (!socket) {
      co_return std::unexpected(unreachable(socket.error()));
    }
    AgentAnswer<T> answer;
    protocol::Requests requests(io_, std::move(*socket));
    ask(requests, answer.done());
    co_return co_await answer.take(Signal::Clock::now() + patience);
  }

  // A file service of its own, for one transfer.
  Outcome<std::unique_ptr<protocol::Files>> files() const;

  // Connects to a TCP port in the guest: a stream socket, in blocking mode.
  Async<Outcome<Fd>> connect(std::uint16_t port) const;

 private:
  AsyncIo& io_;
  protocol::Opener opener_;
  Surroundings around_;
};

}  // namespace msb::server
