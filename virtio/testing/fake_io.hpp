// SPDX-License-Identifier: Apache-2.0
// An AsyncIo without a kernel ring: operations complete when the test says so, in the order in
// which they were started.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/async_io.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio::testing {

class FakeIo final : public AsyncIo {
 public:
  enum class Kind { kRead, kWrite, kPoll, kTimeout, kSync, kAllocate, kDefer, kOffload };
  struct Request {
    Kind kind;
    int fd;
    std::span<const iovec>
        buffers;  // the caller's array, read at completion: it must still be there
    std::uint64_t offset;
    std::uint32_t events;  // of a poll; the mode of an allocation
    Operation* operation;
    std::uint64_t length = 0;         // of an allocation
    std::function<bool()> work = {};  // that was offloaded
    bool cancelled = false;
  };

  FakeIo() = default;
  FakeIo(const FakeIo&) = delete;
  FakeIo& operator=(const FakeIo&) = delete;
  ~FakeIo() override { drain(); }

  // Requests for which it says yes stay pending, also when they are cancelled: a slow backend.
  std::function<bool(const Request&)> hold;
  // May answer a request in the kernel's place, also one that is cancelled: too late.
  std::function<std::optional<std::int32_t>(const Request&)> answer;

  void read(int fd, std::span<const iovec> into, std::uint64_t offset, Operation& op) override {
    start({Kind::kRead, fd, into, offset, 0, &op});
  }
  void write(int fd, std::span<const iovec> from, std::uint64_t offset, Operation& op) override {
    start({Kind::kWrite, fd, from, offset, 0, &op});
  }
  void poll(int fd, std::uint32_t events, Operation& op) override {
    start({Kind::kPoll, fd, {}, 0, events, &op});
  }
  void timeout(std::uint64_t /*nanoseconds*/, Operation& op) override {
    start({Kind::kTimeout, -1, {}, 0, 0, &op});
  }
  void sync(int fd, Operation& op) override { start({Kind::kSync, fd, {}, 0, 0, &op}); }
  void sync_all(int fd, Operation& op) override { start({Kind::kSync, fd, {}, 0, 0, &op}); }
  void allocate(int fd, int mode, std::uint64_t offset, std::uint64_t length,
                Operation& op) override {
    start({Kind::kAllocate, fd, {}, offset, static_cast<std::uint32_t>(mode), &op, length});
  }
  void defer(Operation& op) override { start({Kind::kDefer, -1, {}, 0, 0, &op}); }
  void offload(std::function<bool()> work, Operation& op) override {
    start({Kind::kOffload, -1, {}, 0, 0, &op, 0, std::move(work)});
  }
  void hurry() override {}
  void cancel(Operation& op) override {
    for (Request& request : pending_) {
      if (request.operation == &op) {
        request.cancelled = true;
      }
    }
  }

  [[nodiscard]] const std::vector<Request>& requests() const { return pending_; }
  [[nodiscard]] std::size_t pending() const { return pending_.size(); }
  [[nodiscard]] std::size_t pending(Kind kind) const {
    return static_cast<std::size_t>(std::ranges::count(pending_, kind, &Request::kind));
  }
  [[nodiscard]] std::size_t started() const { return started_; }

  // Completes each pending request that can be; gives how many did.
  std::size_t run_once() {
    std::size_t completed = 0;
    const std::vector<Request> round = pending_;
    for (const Request& earlier : round) {
      const auto found = std::ranges::find(pending_, earlier.operation, &Request::operation);
      if (found == pending_.end() || (hold && hold(*found))) {
        continue;
      }
      const Request request = *found;
      std::optional<std::int32_t> result;
      if (answer) {
        result = answer(request);
      }
      if (!result) {
        result = request.cancelled ? -ECANCELED : perform(request);
      }
      if (result) {
        pending_.erase(std::ranges::find(pending_, request.operation, &Request::operation));
        request.operation->finish(*result);
        ++completed;
      }
    }
    return completed;
  }
  // Until nothing more can complete. A device that keeps the loop busy without progress fails the
  // test.
  void run() {
    for (int round = 0; run_once() > 0; ++round) {
      require(round < 100'000, "the device stops asking for more when there is nothing to do");
    }
  }
  // Completes everything as cancelled, held or not, as an event loop does at its end.
  void drain() {
    while (!pending_.empty()) {
      const Request request = pending_.front();
      pending_.erase(pending_.begin());
      request.operation->finish(-ECANCELED);
    }
  }

  // What the kernel would do now, or nothing when it would wait.
  static std::optional<std::int32_t> perform(const Request& request) {
    ssize_t result = 0;
    switch (request.kind) {
      case Kind::kPoll: {
        // io_uring reports the other side's shutdown unasked, which poll(2) does not.
        pollfd entry{request.fd, static_cast<short>(request.events | POLLRDHUP), 0};
        if (::poll(&entry, 1, 0) == 0) {
          return std::nullopt;
        }
        return entry.revents;
      }
      case Kind::kTimeout:
        return -ETIME;
      case Kind::kRead:
        if (request.offset != kNoOffset) {
          result =
              ::preadv(request.fd, request.buffers.data(), static_cast<int>(request.buffers.size()),
                       static_cast<off_t>(request.offset));
        } else {
          msghdr message{};
          message.msg_iov = const_cast<iovec*>(request.buffers.data());
          message.msg_iovlen = request.buffers.size();
          result = ::recvmsg(request.fd, &message, MSG_DONTWAIT);
          if (result < 0 && errno == ENOTSOCK) {
            result = ::readv(request.fd, message.msg_iov, static_cast<int>(message.msg_iovlen));
          }
        }
        break;
      case Kind::kSync:
        result = ::fdatasync(request.fd);
        break;
      case Kind::kAllocate:
        result =
            ::fallocate(request.fd, static_cast<int>(request.events),
                        static_cast<off_t>(request.offset), static_cast<off_t>(request.length));
        break;
      case Kind::kDefer:
        return 0;
      case Kind::kOffload:
        request.work();
        return 0;
      case Kind::kWrite: {
        if (request.offset != kNoOffset) {
          result = ::pwritev(request.fd, request.buffers.data(),
                             static_cast<int>(request.buffers.size()),
                             static_cast<off_t>(request.offset));
          break;
        }
        msghdr message{};
        message.msg_iov = const_cast<iovec*>(request.buffers.data());
        message.msg_iovlen = request.buffers.size();
        result = ::sendmsg(request.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
      }
    }
    if (result < 0 && errno == EAGAIN) {
      return std::nullopt;
    }
    return result < 0 ? -errno : static_cast<std::int32_t>(result);
  }
  // Likewise, with at most `bytes` of a transfer done.
  static std::optional<std::int32_t> perform_short(Request request, std::size_t bytes) {
    std::vector<iovec> first;
    for (iovec piece : request.buffers) {
      piece.iov_len = std::min(piece.iov_len, bytes);
      bytes -= piece.iov_len;
      if (piece.iov_len > 0) {
        first.push_back(piece);
      }
    }
    request.buffers = first;
    return perform(request);
  }

 private:
  void start(Request request) {
    require(!request.operation->pending(), "an operation is started once at a time");
    request.operation->start();
    pending_.push_back(request);
    ++started_;
  }

  std::vector<Request> pending_;
  std::size_t started_ = 0;
};

}  // namespace msb::virtio::testing
