// SPDX-License-Identifier: Apache-2.0
#include "server/async.hpp"

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

namespace msb::server {

namespace {

// Whether somebody cancelled the timer before it was over.
Async<bool> sleep(asio::steady_timer& timer) {
  boost::system::error_code error;
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none) {
    throw boost::system::system_error(asio::error::operation_aborted);
  }
  co_return error == asio::error::operation_aborted;
}

}  // namespace

class Signal::Waiting {
 public:
  Waiting(Signal& signal, asio::steady_timer& timer)
      : all_(signal.waiting_), place_(all_.insert(all_.end(), &timer)) {}
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() { all_.erase(place_); }

 private:
  std::list<asio::steady_timer*>& all_;
  std::list<asio::steady_timer*>::iterator place_;
};

Async<bool> Signal::wait(Clock::time_point deadline) {
  asio::steady_timer timer(co_await asio::this_coro::executor, deadline);
  const Waiting waiting(*this, timer);
  co_return co_await sleep(timer);
}

Async<bool> Signal::wait_for_either(Signal& one, Signal& other, Clock::time_point deadline) {
  asio::steady_timer timer(co_await asio::this_coro::executor, deadline);
  const Waiting waiting(one, timer);
  const Waiting waiting_too(other, timer);
  co_return co_await sleep(timer);
}

void Signal::notify() {
  for (asio::steady_timer* timer : waiting_) {
    timer->cancel();
  }
}

Async<> await_readable(int fd) {
  // Of the descriptor itself: a copy cannot be made when there are no more, and whoever waits for
  // an end would then never hear of it.
  asio::posix::stream_descriptor watched(co_await asio::this_coro::executor, fd);
  struct Leave {
    asio::posix::stream_descriptor& watched;
    ~Leave() { watched.release(); }
  };
  const Leave leave{watched};
  co_await watched.async_wait(asio::posix::stream_descriptor::wait_read, asio::use_awaitable);
}

}  // namespace msb::server
