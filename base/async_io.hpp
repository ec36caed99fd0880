// SPDX-License-Identifier: Apache-2.0
// What a device or a connection may ask of the event loop, as an interface, so that both are tested
// without one.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <span>
#include <utility>

namespace msb {

// One asynchronous operation. Its owner keeps it, and every buffer named in the request, alive and
// in place until `done` has run; destroying a pending operation is a programming error. It can be
// used again once it is not pending, also from inside `done`.
class Operation {
 public:
  // `done` gets what the system call would have returned: a count, or a negative errno (-ECANCELED
  // after cancel()).
  explicit Operation(std::function<void(std::int32_t)> done) : done_(std::move(done)) {}
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  ~Operation();

  [[nodiscard]] bool pending() const { return pending_; }

  // For implementations of AsyncIo.
  void start() { pending_ = true; }
  void finish(std::int32_t result) {
    pending_ = false;
    done_(result);
  }
  // A result of one that goes on.
  void report(std::int32_t result) { done_(result); }

 private:
  std::function<void(std::int32_t)> done_;
  bool pending_ = false;
};

// All calls return at once; completions run later, on the loop's thread, never inside the call
// itself.
class AsyncIo {
 public:
  // For read() and write() on sockets and pipes, which have no offset.
  static constexpr std::uint64_t kNoOffset = ~std::uint64_t{0};

  virtual ~AsyncIo() = default;

  // `fd` is about to be used often: an implementation may keep what makes that cheap, until
  // forget_file(), which must come before the descriptor is closed. Not more than once.
  virtual void keep_file(int /*fd*/) {}
  virtual void forget_file(int /*fd*/) {}

  virtual void read(int fd, std::span<const iovec> into, std::uint64_t offset, Operation& op) = 0;
  virtual void write(int fd, std::span<const iovec> from, std::uint64_t offset, Operation& op) = 0;
  // fdatasync(2), and fsync(2).
  virtual void sync(int fd, Operation& op) = 0;
  virtual void sync_all(int fd, Operation& op) = 0;
  // fallocate(2) with `mode`.
  virtual void allocate(int fd, int mode, std::uint64_t offset, std::uint64_t length,
                        Operation& op) = 0;
  // Runs `work` on another thread, which does one after the other: for system calls that block and
  // have no asynchronous form. Completes with 0 when it has run, or with -ECANCELED when it will
  // not: soon, if `work` returns that the completion is waited for, and else together with another
  // one, or after hurry(). To wake up a thread costs more than most work does.
  virtual void offload(std::function<bool()> work, Operation& op) = 0;
  // The completions of all that is offloaded now are waited for.
  virtual void hurry() = 0;
  // Completes once with the ready events when one of `events` (poll(2)) or an error holds.
  virtual void poll(int fd, std::uint32_t events, Operation& op) = 0;
  // Completes with -ETIME after `nanoseconds`.
  virtual void timeout(std::uint64_t nanoseconds, Operation& op) = 0;
  // Completes with 0 behind the completions that have come in together, which is where one answer
  // for all of them belongs. To be called from one of them.
  virtual void defer(Operation& op) = 0;
  // Asks a pending operation to end early; it still completes, as cancelled or with its result.
  virtual void cancel(Operation& op) = 0;
};

}  // namespace msb
