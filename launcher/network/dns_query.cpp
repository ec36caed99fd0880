// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/dns_query.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <list>
#include <utility>

#include "base/fd.hpp"
#include "launcher/network/dns_message.hpp"

namespace msb::launcher {

namespace {
constexpr std::size_t kLargest = 65536;  // more than a datagram can have
// In one turn of the loop, which has other work too: who guesses answers sends many.
constexpr int kReceivedAtOnce = 16;
}  // namespace

// Keeps itself until the loop has let go of it.
class DnsQuery::State : public std::enable_shared_from_this<State> {
 public:
  State(AsyncIo& io, std::vector<std::byte> message, std::vector<SocketAddress> servers,
        Times times, Done done)
      : io_(io),
        message_(std::move(message)),
        servers_(std::move(servers)),
        times_(times),
        done_(std::move(done)),
        timer_([this](std::int32_t result) { complete([&] { on_timer(result); }); }) {}

  void start() {
    self_ = shared_from_this();
    ask_next();
    // With nobody asked it ends at once, but not inside this call.
    wait();
  }

  void close() {
    if (!std::exchange(ended_, true)) {
      io_.cancel(timer_);
      for (Asked& each : asked_) {
        io_.cancel(each.readable);
      }
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  struct Asked {
    Asked(State& query, Fd connected)
        : socket(std::move(connected)), readable([&query, this](std::int32_t result) {
            query.complete([&] { query.on_readable(*this, result); });
          }) {}
    Fd socket;  // empty once it has refused
    Operation readable;
  };

  template <typename Function>
  void complete(Function&& function) {
    const auto kept = shared_from_this();
    if (!ended_) {
      function();
    }
    if (ended_ && !timer_.pending() &&
        std::ranges::none_of(asked_, [](const Asked& each) { return each.readable.pending(); })) {
      self_.reset();
    }
  }

  [[nodiscard]] bool is_waited_for() const {
    return std::ranges::any_of(asked_, [](const Asked& each) { return each.socket.valid(); });
  }

  // The next server that can be asked.
  void ask_next() {
    asked_at_ = Clock::now();
    while (next_ < servers_.size()) {
      const SocketAddress& server = servers_[next_++];
      Fd socket(::socket(server.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      if (socket && ::connect(socket.get(), server.get(), server.size()) == 0 &&
          ::send(socket.get(), message_.data(), message_.size(), MSG_NOSIGNAL) >= 0) {
        Asked& asked = asked_.emplace_back(*this, std::move(socket));
        io_.poll(asked.socket.get(), POLLIN, asked.readable);
        return;
      }
    }
  }

  void wait() {
    auto until = started_ + times_.all;
    if (!is_waited_for()) {
      until = asked_at_;
    } else if (next_ < servers_.size()) {
      until = std::min(until, asked_at_ + times_.next);
    }
    const auto left = std::chrono::nanoseconds(until - Clock::now()).count();
    io_.timeout(static_cast<std::uint64_t>(std::max<std::int64_t>(left, 0)), timer_);
  }

  void on_timer(std::int32_t result) {
    if (result != -ETIME) {
      return;
    }
    const auto now = Clock::now();
    if (!is_waited_for()) {
      give_up();
    } else if (now - started_ >= times_.all) {
      finish(kept_);
    } else {
      // One that refused may have passed its turn on since the timer was set.
      if (next_ < servers_.size() && now - asked_at_ >= times_.next) {
        ask_next();
      }
      wait();
    }
  }

  void on_readable(Asked& asked, std::int32_t result) {
    if (result == -ECANCELED) {
      return;
    }
    const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kLargest);
    for (int i = 0; i < kReceivedAtOnce; ++i) {
      const ssize_t size = ::recv(asked.socket.get(), buffer.get(), kLargest, 0);
      if (size < 0 && errno == EAGAIN) {
        break;
      }
      if (size < 0 && errno != EINTR) {
        on_refused(asked);
        return;
      }
      const std::span<const std::byte> answer(buffer.get(),
                                              size > 0 ? static_cast<std::size_t>(size) : 0);
      if (is_dns_answer(answer, message_)) {
        on_answer(asked, answer);
        return;
      }
    }
    io_.poll(asked.socket.get(), POLLIN, asked.readable);
  }

  void on_answer(Asked& asked, std::span<const std::byte> answer) {
    if (!is_dns_failure(answer)) {
      finish(answer);
      return;
    }
    kept_.assign(answer.begin(), answer.end());
    on_refused(asked);
  }

  // Nobody listens there, or there is no way to it, or it cannot say.
  void on_refused(Asked& asked) {
    asked.socket.reset();
    ask_next();
    if (!is_waited_for()) {
      give_up();
    }
  }

  void give_up() { finish(kept_.empty() ? dns_server_failure(message_) : kept_); }

  void finish(std::span<const std::byte> answer) {
    close();
    done_(answer);
  }

  AsyncIo& io_;
  const std::vector<std::byte> message_;
  const std::vector<SocketAddress> servers_;
  const Times times_;
  const Done done_;
  const Clock::time_point started_ = Clock::now();
  Clock::time_point asked_at_;  // when the last one was
  std::size_t next_ = 0;        // of the servers
  std::list<Asked> asked_;
  std::vector<std::byte> kept_;  // a failure that is the answer when nothing better comes
  bool ended_ = false;
  Operation timer_;
  std::shared_ptr<State> self_;
};

DnsQuery::DnsQuery(AsyncIo& io, std::vector<std::byte> message, std::vector<SocketAddress> servers,
                   Times times, Done done)
    : state_(std::make_shared<State>(io, std::move(message), std::move(servers), times,
                                     std::move(done))) {
  state_->start();
}

DnsQuery::~DnsQuery() {
  state_->close();
}

}  // namespace msb::launcher
