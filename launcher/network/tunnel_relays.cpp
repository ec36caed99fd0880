// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/tunnel_relays.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <utility>

#include "protocol/tunnel.hpp"

namespace msb::launcher {

namespace {

std::uint64_t nanoseconds(std::chrono::nanoseconds time) {
  return static_cast<std::uint64_t>(time.count());
}

// Times the first wait, which doubles up to it: all that wait together do not keep the loop busy.
constexpr int kLongestWait = 16;

// Whether an opener may succeed soon: what it asks has too much to do, or something has run out. A
// machine that does not read gives no errno.
bool may_pass(int code) {
  switch (code) {
    case 0:
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case ETOOMANYREFS:  // descriptors under way (unix(7))
      return true;
    default:
      return false;
  }
}

}  // namespace

// A client that waits for its tunnel. Keeps itself until the loop has let go of it.
class TunnelRelays::Opening : public std::enable_shared_from_this<Opening> {
 public:
  Opening(TunnelRelays& owner, Fd client, protocol::Opener open, protocol::FrameBytes connect)
      : owner_(&owner),
        io_(owner.io_),
        client_(std::move(client)),
        open_(std::move(open)),
        connect_(std::move(connect)),
        gone_([this](std::int32_t result) { complete([&] { on_polled(result); }); }),
        look_([this](std::int32_t result) { complete([&] { on_look(result); }); }),
        retry_([this](std::int32_t result) { complete([&] { on_retry(result); }); }) {}

  void start(std::list<std::shared_ptr<Opening>>::iterator position) {
    position_ = position;
    self_ = shared_from_this();
    if (!open_tunnel()) {
      end();
      return;
    }
    // Without events: completes when the client is gone altogether.
    io_.poll(client_.get(), 0, gone_);
  }

  // Leaves its owner. The client is closed when the loop has let go of it.
  void end() {
    if (std::exchange(ended_, true)) {
      return;
    }
    const auto kept = shared_from_this();
    tunnel_.reset();
    owner_->openings_.erase(position_);
    for (Operation* operation : {&gone_, &look_, &retry_}) {
      io_.cancel(*operation);
    }
    let_go();
  }

 private:
  using Clock = std::chrono::steady_clock;

  template <typename Function>
  void complete(Function&& function) {
    const auto kept = shared_from_this();
    if (!ended_) {
      function();
    }
    if (ended_) {
      let_go();
    }
  }

  void let_go() {
    if (gone_.pending() || look_.pending() || retry_.pending()) {
      return;
    }
    if (client_) {
      reset_at_close(client_.get());
      client_.reset();
    }
    self_.reset();
  }

  void leave() {
    end();
    owner_->on_left();
  }

  // False when it never will be.
  bool open_tunnel() {
    auto socket = open_();
    if (socket) {
      tunnel_.emplace(io_, std::move(*socket), std::move(connect_),
                      [this](protocol::Answer<Fd> answer) { on_answer(std::move(answer)); });
      return true;
    }
    if (!may_pass(socket.error().code) || Clock::now() - began_ >= owner_->times_.give_up) {
      return false;
    }
    io_.timeout(nanoseconds(wait_), retry_);
    wait_ = std::min(2 * wait_, kLongestWait * owner_->times_.retry);
    return true;
  }

  void on_retry(std::int32_t result) {
    if (result == -ETIME && !open_tunnel()) {
      leave();
    }
  }

  void on_polled(std::int32_t result) {
    // io_uring tells unasked that a client has ended its half, which is no reason to go, and would
    // tell it again and again.
    if (result < 0 || (result & (POLLHUP | POLLERR)) != 0) {
      leave();
    } else {
      io_.timeout(nanoseconds(owner_->times_.look), look_);
    }
  }

  void on_look(std::int32_t result) {
    if (result != -ETIME) {
      return;
    }
    if (is_gone(client_.get())) {
      leave();
    } else {
      io_.timeout(nanoseconds(owner_->times_.look), look_);
    }
  }

  void on_answer(protocol::Answer<Fd> answer) {
    const auto kept = shared_from_this();
    TunnelRelays& owner = *owner_;
    Fd client = std::move(client_);
    end();
    if (answer) {
      owner.relays_.add(std::move(client), std::move(*answer));
    } else {
      reset_at_close(client.get());
      owner.on_left();
    }
  }

  TunnelRelays* const owner_;  // until its end
  AsyncIo& io_;
  Fd client_;
  const protocol::Opener open_;
  protocol::FrameBytes connect_;
  const Clock::time_point began_ = Clock::now();
  std::chrono::milliseconds wait_ = owner_->times_.retry;
  bool ended_ = false;
  Operation gone_;
  Operation look_;
  Operation retry_;
  std::optional<protocol::Tunnel> tunnel_;
  std::list<std::shared_ptr<Opening>>::iterator position_;
  std::shared_ptr<Opening> self_;
};

TunnelRelays::TunnelRelays(AsyncIo& io, std::size_t most, std::function<void()> left,
                           TunnelTimes times)
    : io_(io),
      most_(most),
      left_(std::move(left)),
      times_(times),
      relays_(io, most, [this] { on_left(); }, nanoseconds(times.look)) {}

TunnelRelays::~TunnelRelays() {
  close();
}

void TunnelRelays::add(Fd client, protocol::Opener open, protocol::FrameBytes connect) {
  if (closed_ || !has_room()) {
    reset_at_close(client.get());
    return;
  }
  openings_.push_front(
      std::make_shared<Opening>(*this, std::move(client), std::move(open), std::move(connect)));
  const auto opening = openings_.front();
  opening->start(openings_.begin());
}

void TunnelRelays::close() {
  closed_ = true;
  while (!openings_.empty()) {
    const auto opening = openings_.front();
    opening->end();
  }
  relays_.close();
}

void TunnelRelays::on_left() const {
  if (left_ && !closed_) {
    left_();
  }
}

}  // namespace msb::launcher
