// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/tunnel_relays.hpp"

#include <poll.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <utility>

#include "protocol/tunnel.hpp"

namespace msb::launcher {

// A client that waits for its tunnel. Keeps itself until the loop has let go of it.
class TunnelRelays::Opening : public std::enable_shared_from_this<Opening> {
 public:
  Opening(TunnelRelays& owner, Fd client)
      : owner_(&owner),
        io_(owner.io_),
        client_(std::move(client)),
        gone_([this](std::int32_t result) { complete(result); }) {}

  void start(Fd socket, protocol::FrameBytes connect,
             std::list<std::shared_ptr<Opening>>::iterator position) {
    position_ = position;
    self_ = shared_from_this();
    // Without events: completes when the client is gone altogether.
    io_.poll(client_.get(), 0, gone_);
    tunnel_.emplace(io_, std::move(socket), std::move(connect),
                    [this](protocol::Answer<Fd> answer) { on_answer(std::move(answer)); });
  }

  // Leaves its owner. The client is closed when the loop has let go of it.
  void end() {
    if (std::exchange(ended_, true)) {
      return;
    }
    const auto kept = shared_from_this();
    tunnel_.reset();
    owner_->openings_.erase(position_);
    if (gone_.pending()) {
      io_.cancel(gone_);
    } else {
      let_go();
    }
  }

 private:
  void complete(std::int32_t result) {
    const auto kept = shared_from_this();
    // io_uring tells unasked that a client has ended its half, which is no reason to go.
    if (!ended_ && result >= 0 && (result & (POLLHUP | POLLERR)) == 0) {
      return;
    }
    if (!ended_) {
      end();
      owner_->on_left();
    } else {
      let_go();
    }
  }

  void let_go() {
    if (client_) {
      reset_at_close(client_.get());
      client_.reset();
    }
    self_.reset();
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
  bool ended_ = false;
  Operation gone_;
  std::optional<protocol::Tunnel> tunnel_;
  std::list<std::shared_ptr<Opening>>::iterator position_;
  std::shared_ptr<Opening> self_;
};

TunnelRelays::TunnelRelays(AsyncIo& io, std::size_t most, std::function<void()> left)
    : io_(io), most_(most), left_(std::move(left)), relays_(io, most, [this] { on_left(); }) {}

TunnelRelays::~TunnelRelays() {
  close();
}

void TunnelRelays::add(Fd client, const protocol::Opener& open, protocol::FrameBytes connect) {
  auto socket = closed_ || !has_room() ? Result<Fd>(fail("no room")) : open();
  if (!socket) {
    reset_at_close(client.get());
    return;
  }
  openings_.push_front(std::make_shared<Opening>(*this, std::move(client)));
  openings_.front()->start(std::move(*socket), std::move(connect), openings_.begin());
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
