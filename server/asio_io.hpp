// SPDX-License-Identifier: Apache-2.0
// The protocol's clients (protocol/process.hpp and its neighbours) on Asio: what they ask of an
// event loop, for sockets, by an epoll of its own inside the io_context's.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "base/async_io.hpp"
#include "base/result.hpp"
#include "server/async.hpp"

namespace msb::server {

// Used on the io_context's thread, and to be drained before it is destroyed.
class AsioIo final : public AsyncIo {
 public:
  static Result<std::unique_ptr<AsioIo>> create(boost::asio::io_context& io);
  AsioIo(const AsioIo&) = delete;
  AsioIo& operator=(const AsioIo&) = delete;
  ~AsioIo() override = default;

  void read(int fd, std::span<const iovec> into, std::uint64_t offset, Operation& op) override;
  void write(int fd, std::span<const iovec> from, std::uint64_t offset, Operation& op) override;
  void poll(int fd, std::uint32_t events, Operation& op) override;
  void timeout(std::uint64_t nanoseconds, Operation& op) override;
  void defer(Operation& op) override;
  void cancel(Operation& op) override;

  // Until one of `events` (poll(2)) or an error holds of `fd`, which the caller keeps open.
  Async<> await_events(int fd, std::uint32_t events);

  // Of files, which nobody asks for here: they complete with -ENOSYS.
  void sync(int fd, Operation& op) override;
  void sync_all(int fd, Operation& op) override;
  void allocate(int fd, int mode, std::uint64_t offset, std::uint64_t length,
                Operation& op) override;
  void offload(std::function<bool()> work, Operation& op) override;
  void hurry() override {}

  // Cancels everything that is pending, and runs the io_context until nothing is.
  void drain();

 private:
  enum class Kind : std::uint8_t { kRead, kWrite, kPoll };
  struct Waiting {
    Kind kind;
    std::uint32_t events;  // of epoll_ctl(2)
    std::span<const iovec> pieces;
    Operation* operation;
  };
  struct Alarm {
    boost::asio::steady_timer timer;
    Operation* operation;
  };

  AsioIo(boost::asio::io_context& io, int epoll) : io_(io), epoll_(io, epoll) {}
  void add(int fd, Waiting waiting);
  // Tells epoll what is waited for of `fd`.
  std::int32_t arm(int fd);
  void look_later();
  void on_events();
  // The result of a system call that would not wait any more; nothing when it would.
  static std::optional<std::int32_t> attempt(int fd, const Waiting& waiting, std::uint32_t ready);
  void finish_later(Operation& op, std::int32_t result);

  boost::asio::io_context& io_;
  boost::asio::posix::stream_descriptor epoll_;
  std::map<int, std::list<Waiting>> waiting_;  // by descriptor
  std::list<Alarm> alarms_;
  std::size_t finishing_ = 0;  // completions that are on their way
  bool awaiting_ = false;
};

}  // namespace msb::server
