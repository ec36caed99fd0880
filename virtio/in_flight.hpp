// SPDX-License-Identifier: Apache-2.0
// The requests of a device that the host still works on.
#pragma once

#include <functional>
#include <list>
#include <utility>
#include <vector>

#include "base/async_io.hpp"

namespace msb::virtio {

// `Request` derives from InFlight<Request>::Entry and has a member `operation`, whose completion
// ends with finish() or starts it again. All calls on the loop's thread.
template <typename Request>
class InFlight {
 public:
  class Entry {
   private:
    friend InFlight;
    typename std::list<Request>::iterator position_;
  };

  // A new one, made from `arguments`.
  template <typename... Arguments>
  Request& start(Arguments&&... arguments) {
    Request& request = requests_.emplace_front(std::forward<Arguments>(arguments)...);
    request.position_ = requests_.begin();
    return request;
  }

  // It is no longer under way. It lives until sweep(), since this is called from inside its own
  // completion; who waits for the last one is told.
  void finish(Request& request) {
    finished_.splice(finished_.begin(), requests_, request.position_);
    if (requests_.empty()) {
      for (const std::function<void()>& waiter : std::exchange(waiters_, {})) {
        waiter();
      }
    }
  }

  // Of those under way, in no order; `visit` may not finish any.
  template <typename Visit>
  void for_each(const Visit& visit) {
    for (Request& request : requests_) {
      visit(request);
    }
  }

  // Destroys what has finished; not from inside a completion.
  void sweep() { finished_.clear(); }

  // Asks the host to give up on all of them; they finish soon, done or not.
  void cancel(AsyncIo& io) {
    for (Request& request : requests_) {
      io.cancel(request.operation);
    }
  }

  // Calls `waiter` once none is under way, which may be at once.
  void when_none(std::function<void()> waiter) {
    if (requests_.empty()) {
      waiter();
    } else {
      waiters_.push_back(std::move(waiter));
    }
  }

 private:
  std::list<Request> requests_;
  std::list<Request> finished_;
  std::vector<std::function<void()>> waiters_;
};

}  // namespace msb::virtio
