// SPDX-License-Identifier: Apache-2.0
#include "launcher/running_shares.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/control.hpp"
#include "base/machine_config.hpp"
#include "launcher/share.hpp"

namespace msb::launcher {

namespace {

Result<void> without_text(const Result<std::string>& answer) {
  return answer ? Result<void>() : std::unexpected(answer.error());
}

}  // namespace

RunningShares::RunningShares(AsyncIo& io, MachineRequests& machine, protocol::Opener agent,
                             std::list<RunningShare> shares)
    : io_(io),
      machine_(machine),
      open_agent_(std::move(agent)),
      shares_(std::move(shares)),
      next_(shares_.size()) {}

Result<protocol::Requests*> RunningShares::agent() {
  if (!agent_ || !agent_->open()) {
    auto socket = open_agent_();
    if (!socket) {
      return std::unexpected(socket.error());
    }
    agent_.emplace(io_, std::move(*socket));
  }
  return &*agent_;
}

void RunningShares::add(ShareWords words, Done done) {
  if (shares_.size() + 1 >= kMaxShares) {
    done(
        fail("the sandbox has {} shares already, which is as many as it can have", shares_.size()));
    return;
  }
  if (std::ranges::any_of(
          shares_, [&](const RunningShare& share) { return share.words.guest == words.guest; })) {
    done(fail("something is shared at \"{}\" already", words.guest));
    return;
  }
  if (std::ranges::any_of(shares_, [&](const RunningShare& share) {
        return share.state == RunningShare::State::kRemoving &&
               words.guest.starts_with(fmt::format("{}/", share.words.guest));
      })) {
    done(fail("what is shared above \"{}\" is being removed; ask again later", words.guest));
    return;
  }
  auto root = open_share(words.host);
  if (!root) {
    done(std::unexpected(root.error()));
    return;
  }
  const RunningShare& share = shares_.emplace_back(
      std::move(words), fmt::format("shares/{}", next_++), RunningShare::State::kOpening);
  machine_.send(
      ControlKind::kAddShare,
      fmt::format("{} {} {}", share.words.read_only ? "ro" : "rw",
                  static_cast<int>(share.words.cache), share.path),
      [this, path = share.path, done = std::move(done)](const Result<std::string>& opened) {
        if (opened) {
          mount(*find(path), done);
        } else {
          std::erase_if(shares_, [&](const auto& each) { return each.path == path; });
          done(without_text(opened));
        }
      },
      std::move(*root));
}

RunningShare* RunningShares::find(std::string_view path) {
  const auto found = std::ranges::find(shares_, path, &RunningShare::path);
  return found == shares_.end() ? nullptr : &*found;
}

void RunningShares::mount(RunningShare& share, Done done) {
  share.state = RunningShare::State::kMounting;
  const auto connected = agent();
  if (!connected) {
    end(share, [done = std::move(done), error = connected.error()](const Result<void>&) {
      done(std::unexpected(error));
    });
    return;
  }
  (*connected)
      ->share(
          share.words.read_only, share.path, share.words.guest,
          [this, path = share.path, done = std::move(done)](const protocol::Answer<void>& mounted) {
            RunningShare* const asked = find(path);
            if (asked == nullptr || asked->state != RunningShare::State::kMounting) {
              done(fail("it was removed before the guest had mounted it"));
            } else if (mounted) {
              asked->state = RunningShare::State::kShared;
              done({});
            } else {
              // It may have mounted it all the same: too late, or just before the connection broke.
              const protocol::Failure& why = mounted.error();
              const bool perhaps = why.stage == 0 || why.error.code == ETIMEDOUT;
              end(*asked,
                  [this, place = asked->words.guest, done, why, perhaps](const Result<void>&) {
                    done(std::unexpected(why.error));
                    if (perhaps) {
                      unmount(place, [](const Error&) {});
                    }
                  });
            }
          });
}

void RunningShares::end(RunningShare& share, Done done) {
  const auto before = std::exchange(share.state, RunningShare::State::kRemoving);
  machine_.send(
      ControlKind::kRemoveShare, share.path,
      [this, path = share.path, before, done = std::move(done)](const Result<std::string>& ended) {
        if (ended) {
          std::erase_if(shares_, [&](const auto& each) { return each.path == path; });
        } else {
          find(path)->state = before;  // it is there still
        }
        done(without_text(ended));
      });
}

void RunningShares::remove(std::string_view place, Done done,
                           std::function<void(const Error&)> left) {
  const auto share = std::ranges::find_if(shares_, [&](const RunningShare& each) {
    return each.words.guest == place && (each.state == RunningShare::State::kShared ||
                                         each.state == RunningShare::State::kMounting);
  });
  if (share == shares_.end()) {
    done(fail("nothing is shared at \"{}\"", place));
    return;
  }
  const auto below = std::ranges::find_if(shares_, [&](const RunningShare& each) {
    return each.words.guest.starts_with(fmt::format("{}/", place));
  });
  if (below != shares_.end()) {
    done(fail("\"{}\" is shared below \"{}\"; remove that first", below->words.guest, place));
    return;
  }
  end(*share, [this, place = std::string(place), done = std::move(done),
               left = std::move(left)](const Result<void>& ended) {
    done(ended);
    if (ended) {
      unmount(place, left);
    }
  });
}

void RunningShares::unmount(const std::string& place, std::function<void(const Error&)> left) {
  const auto connected = agent();
  if (!connected) {
    left(connected.error());
    return;
  }
  (*connected)->unshare(place, [left = std::move(left)](const protocol::Answer<void>& unmounted) {
    if (!unmounted) {
      left(unmounted.error().error);
    }
  });
}

void RunningShares::close() {
  agent_.reset();
}

}  // namespace msb::launcher
