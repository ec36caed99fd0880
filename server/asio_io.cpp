// SPDX-License-Identifier: Apache-2.0
#include "server/asio_io.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

namespace msb::server {

namespace {

// What is asked for as of poll(2) is asked of epoll(7).
static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLRDHUP == POLLRDHUP);
static_assert(EPOLLERR == POLLERR && EPOLLHUP == POLLHUP);

constexpr std::uint32_t kAlways = EPOLLERR | EPOLLHUP;
constexpr std::size_t kEvents = 64;  // looked at together

// An operation that a coroutine waits for, and may leave before it is done.
struct Pending {
  explicit Pending(asio::io_context& io)
      : operation([this, &io](std::int32_t) {
          done = true;
          come.notify();
          asio::post(io, [self = std::move(kept)] {});  // not from inside the operation
        }) {}

  bool done = false;
  Signal come;
  std::shared_ptr<Pending> kept;  // until it is done
  Operation operation;
};

}  // namespace

Result<std::unique_ptr<AsioIo>> AsioIo::create(asio::io_context& io) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) {
    return fail_errno(errno, "cannot make an epoll");
  }
  return std::unique_ptr<AsioIo>(new AsioIo(io, epoll));
}

void AsioIo::read(int fd, std::span<const iovec> into, std::uint64_t /*offset*/, Operation& op) {
  add(fd, {Kind::kRead, EPOLLIN, into, &op});
}

void AsioIo::write(int fd, std::span<const iovec> from, std::uint64_t /*offset*/, Operation& op) {
  // It mostly would not wait, and an attempt costs less than to ask for that.
  const Waiting waiting{Kind::kWrite, EPOLLOUT, from, &op};
  if (const auto result = attempt(fd, waiting, EPOLLOUT)) {
    op.start();
    finish_later(op, *result);
    return;
  }
  add(fd, waiting);
}

void AsioIo::poll(int fd, std::uint32_t events, Operation& op) {
  add(fd, {Kind::kPoll, events, {}, &op});
}

void AsioIo::add(int fd, Waiting waiting) {
  waiting.operation->start();
  waiting_[fd].push_back(waiting);
  if (const std::int32_t error = arm(fd); error != 0) {
    auto& list = waiting_[fd];
    list.pop_back();
    if (list.empty()) {
      waiting_.erase(fd);
    }
    finish_later(*waiting.operation, error);
    return;
  }
  look_later();
}

std::int32_t AsioIo::arm(int fd) {
  const auto found = waiting_.find(fd);
  epoll_event event{};
  event.events = EPOLLONESHOT;
  event.data.fd = fd;
  if (found != waiting_.end()) {
    for (const Waiting& waiting : found->second) {
      event.events |= waiting.events;
    }
    if (found->second.empty()) {
      waiting_.erase(found);
    }
  }
  if (::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_MOD, fd, &event) == 0) {
    return 0;
  }
  // Not there yet, or of a descriptor of this number that was closed since.
  return errno == ENOENT && ::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_ADD, fd, &event) == 0
             ? 0
             : -errno;
}

void AsioIo::look_later() {
  if (awaiting_ || waiting_.empty()) {
    return;
  }
  awaiting_ = true;
  epoll_.async_wait(asio::posix::stream_descriptor::wait_read,
                    [this](const boost::system::error_code& error) {
                      awaiting_ = false;
                      if (!error) {
                        on_events();
                        look_later();
                      }
                    });
}

void AsioIo::on_events() {
  std::array<epoll_event, kEvents> events;
  const int count = ::epoll_wait(epoll_.native_handle(), events.data(), kEvents, 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[i].data.fd;
    const auto found = waiting_.find(fd);
    if (found == waiting_.end()) {
      continue;
    }
    // Completions may add to the list, so they come after it was gone through.
    std::vector<std::pair<Operation*, std::int32_t>> done;
    std::erase_if(found->second, [&](const Waiting& waiting) {
      if ((events[i].events & (waiting.events | kAlways)) == 0) {
        return false;
      }
      const auto result = attempt(fd, waiting, events[i].events);
      if (result) {
        done.emplace_back(waiting.operation, *result);
      }
      return result.has_value();
    });
    if (!found->second.empty()) {
      if (const std::int32_t error = arm(fd); error != 0) {
        // It cannot be waited for any more.
        for (const Waiting& waiting : found->second) {
          done.emplace_back(waiting.operation, error);
        }
        waiting_.erase(fd);
      }
    } else {
      waiting_.erase(found);
    }
    for (const auto& [operation, result] : done) {
      operation->finish(result);
    }
  }
}

std::optional<std::int32_t> AsioIo::attempt(int fd, const Waiting& waiting, std::uint32_t ready) {
  if (waiting.kind == Kind::kPoll) {
    return static_cast<std::int32_t>(ready);
  }
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(waiting.pieces.data());
  message.msg_iovlen = waiting.pieces.size();
  ssize_t length = 0;
  do {
    length = waiting.kind == Kind::kRead ? ::recvmsg(fd, &message, MSG_DONTWAIT)
                                         : ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (length < 0 && errno == EINTR);
  if (length < 0 && errno == EAGAIN) {
    return std::nullopt;
  }
  return length < 0 ? -errno : static_cast<std::int32_t>(length);
}

void AsioIo::finish_later(Operation& op, std::int32_t result) {
  ++finishing_;
  asio::post(io_, [this, &op, result] {
    --finishing_;
    op.finish(result);
  });
}

void AsioIo::timeout(std::uint64_t nanoseconds, Operation& op) {
  op.start();
  const auto place = alarms_.emplace(
      alarms_.end(), asio::steady_timer(io_, std::chrono::nanoseconds(nanoseconds)), &op);
  place->timer.async_wait([this, place](const boost::system::error_code& error) {
    Operation* operation = place->operation;
    alarms_.erase(place);
    operation->finish(error ? -ECANCELED : -ETIME);
  });
}

void AsioIo::defer(Operation& op) {
  op.start();
  finish_later(op, 0);
}

void AsioIo::cancel(Operation& op) {
  for (auto& [fd, list] : waiting_) {
    if (std::erase_if(list, [&](const Waiting& one) { return one.operation == &op; }) > 0) {
      arm(fd);
      finish_later(op, -ECANCELED);
      return;
    }
  }
  for (Alarm& alarm : alarms_) {
    if (alarm.operation == &op) {
      alarm.timer.cancel();
      return;
    }
  }
}

Async<> AsioIo::await_events(int fd, std::uint32_t events) {
  const auto pending = std::make_shared<Pending>(io_);
  pending->kept = pending;
  poll(fd, events, pending->operation);
  struct Leave {
    AsioIo& io;
    Pending& what;
    ~Leave() {
      if (!what.done) {
        io.cancel(what.operation);
      }
    }
  };
  const Leave leave{*this, *pending};
  while (!pending->done) {
    co_await pending->come.wait();
  }
}

void AsioIo::sync(int /*fd*/, Operation& op) {
  op.start();
  finish_later(op, -ENOSYS);
}

void AsioIo::sync_all(int fd, Operation& op) {
  sync(fd, op);
}

void AsioIo::allocate(int fd, int /*mode*/, std::uint64_t /*offset*/, std::uint64_t /*length*/,
                      Operation& op) {
  sync(fd, op);
}

void AsioIo::offload(std::function<bool()> /*work*/, Operation& op) {
  sync(-1, op);
}

void AsioIo::drain() {
  while (!waiting_.empty() || !alarms_.empty() || finishing_ > 0) {
    std::vector<Operation*> pending;
    for (const auto& [fd, list] : waiting_) {
      for (const Waiting& one : list) {
        pending.push_back(one.operation);
      }
    }
    for (Operation* operation : pending) {
      cancel(*operation);
    }
    for (Alarm& alarm : alarms_) {
      alarm.timer.cancel();
    }
    io_.restart();
    io_.run_one();
  }
}

}  // namespace msb::server
