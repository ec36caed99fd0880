// SPDX-License-Identifier: Apache-2.0
// The event loop of a process: one io_uring that carries all of its asynchronous operations.
#pragma once

#include <liburing.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb {

// Runs on one thread, which makes every call except post(). All operations must have completed
// before it is destroyed; drain() sees to that.
class Loop final : public AsyncIo {
 public:
  // Fails when the kernel refuses an io_uring (missing, disabled by sysctl, or out of locked
  // memory).
  static Result<std::unique_ptr<Loop>> create();
  ~Loop() override;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Registers it with the ring, as long as there is room for it there.
  void keep_file(int fd) override;
  void forget_file(int fd) override;
  void read(int fd, std::span<const iovec> into, std::uint64_t offset, Operation& op) override;
  void write(int fd, std::span<const iovec> from, std::uint64_t offset, Operation& op) override;
  void sync(int fd, Operation& op) override;
  void sync_all(int fd, Operation& op) override;
  void allocate(int fd, int mode, std::uint64_t offset, std::uint64_t length,
                Operation& op) override;
  void poll(int fd, std::uint32_t events, Operation& op) override;
  void timeout(std::uint64_t nanoseconds, Operation& op) override;
  void defer(Operation& op) override;
  void offload(std::function<bool()> work, Operation& op) override;
  void hurry() override;
  void cancel(Operation& op) override;
  // Completes with a positive number whenever `eventfd` is signalled, and stays pending; signals
  // that come together may be one. Nobody reads the eventfd. When `op` is not pending any more it
  // has to be started again, if its result was not a negative errno.
  void watch(int eventfd, Operation& op);

  // Runs `function` on the loop's thread soon, in the order of the calls. Callable from any thread.
  void post(std::function<void()> function);

  // Called first on the thread that offload() works on, which is not started yet.
  void on_worker_start(std::function<void()> function) { worker_start_ = std::move(function); }

  // Runs completions and posted functions until stop() is called from one of them.
  Result<void> run();
  void stop() { running_ = false; }

  // Cancels everything that is pending and runs until nothing is. To be called before what the
  // operations belong to is destroyed; completions must not start new operations any more.
  void drain();

 private:
  Loop() : wake_([this](std::int32_t) { on_wake(); }) {}

  io_uring_sqe* next_entry();
  void use_file(io_uring_sqe* entry) const;
  void submit(io_uring_sqe* entry, Operation& op);
  Result<void> run_once();
  void run_deferred();
  void wake();
  void on_wake();
  void run_worker();
  void finish_worked();
  void wake_for_worked();
  void end_worker();

  io_uring ring_{};
  bool running_ = false;
  bool draining_ = false;
  std::size_t pending_ = 0;

  Fd wake_fd_;  // eventfd that post() signals
  Operation wake_;

  std::deque<__kernel_timespec> timeouts_;  // the kernel reads them at submission

  std::vector<Operation*> deferred_;

  std::vector<int> kept_files_;  // by their place in the ring; -1: none there

  std::mutex posted_mutex_;
  std::deque<std::function<void()>> posted_;

  // Work for the other thread, and what it has done or will not do. It starts with the first.
  struct Work {
    std::function<bool()> work;
    Operation* operation;
  };
  std::mutex work_mutex_;
  std::condition_variable work_added_;
  std::deque<Work> work_;
  std::vector<std::pair<Operation*, std::int32_t>> worked_;
  bool woken_ = false;    // for worked_, which is seen to soon
  bool hurried_ = false;  // until all that is offloaded has completed
  std::size_t offloaded_ = 0;
  bool working_ = true;  // until its end
  std::function<void()> worker_start_;
  std::thread worker_;
};

}  // namespace msb
