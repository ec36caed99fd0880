// SPDX-License-Identifier: Apache-2.0
#include "sandbox/readiness.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "base/loop.hpp"
#include "protocol/msb_exec.h"
#include "protocol/opener.hpp"
#include "protocol/requests.hpp"

namespace msb::sandbox {

namespace {

using Ports = std::set<std::uint16_t>;
using Clock = std::chrono::steady_clock;

// A guest cannot tell when one of its programs begins to listen, so it is asked again and again.
constexpr std::uint64_t kAgain = 50'000'000;  // nanoseconds

// Names and the resolver are at addresses in 127.77.0.0/16 of the guest, on which its agent
// listens.
bool is_agents(const msb_listener& listener) {
  constexpr std::uint32_t kFour = 4;
  return listener.family == kFour && listener.address[0] == 127 && listener.address[1] == 77;
}

// How long an agent may take to answer.
constexpr std::chrono::seconds kPatience{10};

// Asks one agent until it is content.
class Question {
 public:
  // Whether these are enough.
  using Enough = std::function<bool(const Ports& ports)>;

  // `patience`: for a guest that does not answer at all.
  Question(Loop& loop, Fd socket, Enough enough, std::chrono::nanoseconds patience)
      : loop_(loop),
        requests_(loop, std::move(socket)),
        enough_(std::move(enough)),
        again_([this](std::int32_t result) {
          if (result == -ETIME) {
            ask();
          }
        }),
        over_([this](std::int32_t result) {
          if (result == -ETIME) {
            failure_ = Error{"the agent in it does not answer", ETIMEDOUT};
            loop_.stop();
          }
        }),
        patience_(patience) {}

  Result<void> run() {
    loop_.timeout(static_cast<std::uint64_t>(patience_.count()), over_);
    ask();
    if (auto ran = loop_.run(); !ran) {
      return ran;
    }
    loop_.drain();
    return failure_ ? Result<void>(std::unexpected(*failure_)) : Result<void>();
  }

 private:
  void ask() {
    ports_.clear();
    requests_.listeners(
        [this](const msb_listener& listener) {
          if (!is_agents(listener)) {
            ports_.insert(static_cast<std::uint16_t>(listener.port));
          }
        },
        [this](const protocol::Answer<std::uint64_t>& answer) {
          if (!answer) {
            failure_ = answer.error().error;
          }
          if (!answer || enough_(ports_)) {
            loop_.stop();
          } else {
            loop_.timeout(kAgain, again_);
          }
        });
  }

  Loop& loop_;
  protocol::Requests requests_;
  const Enough enough_;
  Ports ports_;
  std::optional<Error> failure_;
  Operation again_;
  Operation over_;
  const std::chrono::nanoseconds patience_;
};

Result<void> ask(const std::string& path, Question::Enough enough,
                 std::chrono::milliseconds patience) {
  auto loop = Loop::create();
  if (!loop) {
    return std::unexpected(loop.error());
  }
  auto socket = protocol::connect_sandbox(path, MSB_PORT_AGENT);
  if (!socket) {
    return std::unexpected(socket.error());
  }
  return Question(**loop, std::move(*socket), std::move(enough), patience).run();
}

}  // namespace

Result<Ports> listening_ports(const std::string& socket) {
  Ports found;
  auto asked = ask(
      socket,
      [&](const Ports& ports) {
        found = ports;
        return true;
      },
      kPatience);
  return asked ? Result<Ports>(found) : std::unexpected(asked.error());
}

Result<void> wait_until_listening(const std::string& socket, const Ports& ports,
                                  std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  std::vector<std::uint16_t> missing(ports.begin(), ports.end());
  if (missing.empty()) {
    return {};
  }
  auto asked = ask(
      socket,
      [&](const Ports& found) {
        missing.clear();
        std::ranges::set_difference(ports, found, std::back_inserter(missing));
        return missing.empty() || Clock::now() >= deadline;
      },
      patience + kPatience);
  if (!asked) {
    return asked;
  }
  if (!missing.empty()) {
    return std::unexpected(
        Error{fmt::format("nothing listens on port {} in it after {} s", fmt::join(missing, ", "),
                          std::chrono::duration_cast<std::chrono::seconds>(patience).count()),
              ETIMEDOUT});
  }
  return {};
}

Result<bool> wait_until_serving(const std::string& socket, std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  bool serving = false;
  auto asked = ask(
      socket,
      [&](const Ports& found) {
        serving = !found.empty();
        return serving || Clock::now() >= deadline;
      },
      patience + kPatience);
  return asked ? Result<bool>(serving) : std::unexpected(asked.error());
}

}  // namespace msb::sandbox
