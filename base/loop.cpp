// SPDX-License-Identifier: Apache-2.0
#include "base/loop.hpp"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>

namespace msb {

namespace {
// Enough for every queue of every device to have something under way; more only costs an extra
// submission.
constexpr unsigned kRingEntries = 256;
constexpr unsigned kKeptFiles = 32;
}  // namespace

Operation::~Operation() {
  assert(!pending_);
}

Result<std::unique_ptr<Loop>> Loop::create() {
  std::unique_ptr<Loop> loop(new Loop);
  loop->wake_fd_ = Fd(::eventfd(0, EFD_CLOEXEC));
  if (!loop->wake_fd_) {
    return fail_errno(errno, "cannot create an eventfd for the event loop");
  }
  io_uring_params params{};
  params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL;
  params.cq_entries = kRingEntries * 8;
  const int status = ::io_uring_queue_init_params(kRingEntries, &loop->ring_, &params);
  if (status < 0) {
    loop->ring_.ring_fd = -1;
    return fail_errno(-status,
                      "cannot create an io_uring; allow it with `sysctl "
                      "kernel.io_uring_disabled=0` if it is switched off");
  }
  // Without them, on kernels before 5.19, it goes on.
  if (::io_uring_register_files_sparse(&loop->ring_, kKeptFiles) == 0) {
    loop->kept_files_.assign(kKeptFiles, -1);
  }
  loop->watch(loop->wake_fd_.get(), loop->wake_);
  return loop;
}

Loop::~Loop() {
  if (ring_.ring_fd >= 0) {
    drain();
    ::io_uring_queue_exit(&ring_);
  }
}

io_uring_sqe* Loop::next_entry() {
  io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
  while (entry == nullptr) {  // the submission queue is full: hand over what it holds
    ::io_uring_submit(&ring_);
    entry = ::io_uring_get_sqe(&ring_);
  }
  return entry;
}

void Loop::submit(io_uring_sqe* entry, Operation& op) {
  assert(!op.pending());
  ::io_uring_sqe_set_data(entry, &op);
  op.start();
  ++pending_;
}

void Loop::keep_file(int fd) {
  const auto place = std::ranges::find(kept_files_, -1);
  const auto index = static_cast<unsigned>(place - kept_files_.begin());
  if (place != kept_files_.end() && ::io_uring_register_files_update(&ring_, index, &fd, 1) == 1) {
    *place = fd;
  }
}

void Loop::forget_file(int fd) {
  const auto place = std::ranges::find(kept_files_, fd);
  if (place != kept_files_.end()) {
    *place = -1;
    ::io_uring_register_files_update(&ring_, static_cast<unsigned>(place - kept_files_.begin()),
                                     &*place, 1);
  }
}

// By its place in the ring, where it has one.
void Loop::use_file(io_uring_sqe* entry) const {
  const auto place = std::ranges::find(kept_files_, entry->fd);
  if (place != kept_files_.end()) {
    entry->fd = static_cast<int>(place - kept_files_.begin());
    entry->flags |= IOSQE_FIXED_FILE;
  }
}

void Loop::read(int fd, std::span<const iovec> into, std::uint64_t offset, Operation& op) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_readv(entry, fd, into.data(), static_cast<unsigned>(into.size()), offset);
  use_file(entry);
  submit(entry, op);
}

void Loop::write(int fd, std::span<const iovec> from, std::uint64_t offset, Operation& op) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_writev(entry, fd, from.data(), static_cast<unsigned>(from.size()), offset);
  use_file(entry);
  submit(entry, op);
}

void Loop::sync(int fd, Operation& op) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
  use_file(entry);
  submit(entry, op);
}

void Loop::sync_all(int fd, Operation& op) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_fsync(entry, fd, 0);
  use_file(entry);
  submit(entry, op);
}

void Loop::allocate(int fd, int mode, std::uint64_t offset, std::uint64_t length, Operation& op) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_fallocate(entry, fd, mode, static_cast<off_t>(offset),
                            static_cast<off_t>(length));
  use_file(entry);
  submit(entry, op);
}

void Loop::poll(int fd, std::uint32_t events, Operation& op) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_poll_add(entry, fd, events);
  submit(entry, op);
}

void Loop::watch(int eventfd, Operation& op) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_poll_multishot(entry, eventfd, POLLIN);
  submit(entry, op);
}

void Loop::timeout(std::uint64_t nanoseconds, Operation& op) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  timeouts_.push_back({static_cast<std::int64_t>(nanoseconds / kSecond),
                       static_cast<long long>(nanoseconds % kSecond)});
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_timeout(entry, &timeouts_.back(), 0, 0);
  submit(entry, op);
}

void Loop::defer(Operation& op) {
  assert(!op.pending());
  op.start();
  deferred_.push_back(&op);
}

void Loop::run_deferred() {
  std::vector<Operation*> deferred;
  deferred.swap(deferred_);
  for (Operation* op : deferred) {
    op->finish(0);
  }
}

void Loop::cancel(Operation& op) {
  if (!op.pending() || std::ranges::find(deferred_, &op) != deferred_.end()) {
    return;
  }
  {
    const std::scoped_lock lock(work_mutex_);
    const auto waiting = std::ranges::find(work_, &op, &Work::operation);
    if (waiting != work_.end()) {
      work_.erase(waiting);
      worked_.emplace_back(&op, -ECANCELED);
      wake_for_worked();
      return;
    }
  }
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_cancel(entry, &op, 0);
  ::io_uring_sqe_set_data(entry, nullptr);  // its own completion says nothing that op's does not
}

// --- the other thread ---

void Loop::wake() {
  const std::uint64_t one = 1;
  // Fails only when the counter is saturated, and then the loop is awake anyway.
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_.get(), &one, sizeof one);
}

// With the lock.
void Loop::wake_for_worked() {
  if (!std::exchange(woken_, true)) {
    wake();
  }
}

void Loop::hurry() {
  const std::scoped_lock lock(work_mutex_);
  hurried_ = offloaded_ > 0;
  if (!worked_.empty()) {
    wake_for_worked();
  }
}

void Loop::offload(std::function<bool()> work, Operation& op) {
  assert(!op.pending());
  op.start();
  ++pending_;
  {
    const std::scoped_lock lock(work_mutex_);
    ++offloaded_;
    if (!working_) {
      worked_.emplace_back(&op, -ECANCELED);  // the loop ends
      return;
    }
    work_.push_back({std::move(work), &op});
  }
  if (!worker_.joinable()) {
    worker_ = std::thread([this] { run_worker(); });
  }
  work_added_.notify_one();
}

void Loop::run_worker() {
  if (worker_start_) {
    worker_start_();
  }
  std::unique_lock lock(work_mutex_);
  while (true) {
    work_added_.wait(lock, [this] { return !work_.empty() || !working_; });
    if (!working_) {
      return;
    }
    const Work next = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    const bool waited_for = next.work();
    lock.lock();
    worked_.emplace_back(next.operation, 0);
    if (waited_for || hurried_) {
      wake_for_worked();
    }
  }
}

void Loop::finish_worked() {
  std::vector<std::pair<Operation*, std::int32_t>> worked;
  {
    const std::scoped_lock lock(work_mutex_);
    worked.swap(worked_);
    woken_ = false;
    offloaded_ -= worked.size();
    hurried_ = hurried_ && offloaded_ > 0;
  }
  for (const auto& [operation, result] : worked) {
    --pending_;
    operation->finish(result);
  }
}

// What has not begun is cancelled; what has is waited for.
void Loop::end_worker() {
  {
    const std::scoped_lock lock(work_mutex_);
    working_ = false;
    for (const Work& work : work_) {
      worked_.emplace_back(work.operation, -ECANCELED);
    }
    work_.clear();
  }
  work_added_.notify_one();
  if (worker_.joinable()) {
    worker_.join();
  }
  finish_worked();
}

void Loop::post(std::function<void()> function) {
  {
    const std::scoped_lock lock(posted_mutex_);
    posted_.push_back(std::move(function));
  }
  wake();
}

void Loop::on_wake() {
  if (draining_) {
    return;
  }
  if (!wake_.pending()) {
    watch(wake_fd_.get(), wake_);
  }
  std::deque<std::function<void()>> functions;
  {
    const std::scoped_lock lock(posted_mutex_);
    functions.swap(posted_);
  }
  for (const std::function<void()>& function : functions) {
    function();
  }
}

Result<void> Loop::run_once() {
  // What was deferred since has its turn behind what is ready now, and does not wait for more.
  const int status = ::io_uring_submit_and_wait(&ring_, deferred_.empty() ? 1 : 0);
  if (status < 0 && status != -EINTR && status != -EBUSY && status != -EAGAIN) {
    return fail_errno(-status, "the event loop's io_uring failed");
  }
  if (::io_uring_sq_ready(&ring_) == 0) {
    timeouts_.clear();
  }
  finish_worked();
  // Those that are here now. What they lead to has its turn behind what is submitted and deferred,
  // or a guest that always has more would have the loop for itself.
  io_uring_cqe* completion = nullptr;
  for (unsigned left = ::io_uring_cq_ready(&ring_);
       left > 0 && ::io_uring_peek_cqe(&ring_, &completion) == 0; --left) {
    auto* op = static_cast<Operation*>(::io_uring_cqe_get_data(completion));
    const std::int32_t result = completion->res;
    const bool goes_on = (completion->flags & IORING_CQE_F_MORE) != 0;
    ::io_uring_cqe_seen(&ring_, completion);
    if (op != nullptr && goes_on) {
      op->report(result);
    } else if (op != nullptr) {
      --pending_;
      op->finish(result);
    }
  }
  finish_worked();
  run_deferred();
  return {};
}

Result<void> Loop::run() {
  running_ = true;
  while (running_) {
    if (auto ran = run_once(); !ran) {
      return ran;
    }
  }
  return {};
}

void Loop::drain() {
  draining_ = true;
  end_worker();
  while (pending_ > 0 || !deferred_.empty()) {
    io_uring_sqe* entry = next_entry();
    ::io_uring_prep_cancel(entry, nullptr, 0);
    entry->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
    ::io_uring_sqe_set_data(entry, nullptr);
    finish_worked();
    if (!run_once()) {
      break;  // the ring is gone; nothing can complete any more
    }
  }
}

}  // namespace msb
