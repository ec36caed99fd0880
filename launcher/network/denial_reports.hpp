// SPDX-License-Identifier: Apache-2.0
// Who in the guest sent what was not let out: asked of the agent for each denial, before it is
// told.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

#include "base/async_io.hpp"
#include "base/network_denial.hpp"
#include "protocol/opener.hpp"
#include "protocol/requests.hpp"

namespace msb::launcher {

// Used on the loop's thread, which must be drained after close().
class DenialReports {
 public:
  // Gets each denial in its turn, at the latest after kPatience: with the program, where the agent
  // knows it.
  using Report = std::function<void(const NetworkDenial& denial,
                                    const std::optional<protocol::SocketOwner>& program)>;
  // A guest that answers late, or not at all, is not waited for any longer.
  static constexpr std::uint64_t kPatience = 500'000'000;  // nanoseconds
  // Denials beyond these are told at once.
  static constexpr std::size_t kMaxWaiting = 64;

  DenialReports(AsyncIo& io, protocol::Opener agent, Report report);

  // `asked` runs once the agent has been asked, or cannot be: from then on the guest may know.
  void add(const NetworkDenial& denial, std::function<void()> asked);
  void close();

 private:
  struct Waiting {
    std::uint64_t number;
    NetworkDenial denial;
    std::function<void()> asked;
    std::optional<protocol::SocketOwner> program;
    bool answered = false;
  };
  void ask(const Waiting& waiting);
  void on_answer(std::uint64_t number, std::optional<protocol::SocketOwner> program);
  void tell();
  void on_timeout();

  AsyncIo& io_;
  const protocol::Opener open_agent_;
  const Report report_;
  std::optional<protocol::Requests> agent_;
  std::deque<Waiting> waiting_;
  std::uint64_t number_ = 0;
  std::uint64_t overdue_ = 0;  // when the timer ends, all up to this number are
  bool closed_ = false;
  Operation timer_;
};

}  // namespace msb::launcher
