// SPDX-License-Identifier: Apache-2.0
// Coroutines of the server. All of them run on the one thread of its io_context, so that nothing
// between two suspensions needs a lock; what blocks runs on the threads of a Workers.
//
// A coroutine that is cancelled, because its client has gone for example, leaves its suspension by
// the exception boost::system::system_error (operation_aborted): whoever owns something gives it
// back in a destructor.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace msb::server {

namespace asio = boost::asio;

template <typename T = void>
using Async = asio::awaitable<T>;

// Something that coroutines wait for to happen. They look first, and again after every wait:
//
//   while (!ready) { co_await signal.wait(); }
//
// What co_await gives is put into a variable before it is a condition, and what has captures, a
// braced structure or a ?: is named before it is handed to a coroutine: g++ 12 makes code that
// crashes of the short forms.
class Signal {
 public:
  using Clock = std::chrono::steady_clock;

  Signal() = default;
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  // Until notify(), or `deadline`; whether it was the former. To be kept alive meanwhile by whoever
  // waits.
  Async<bool> wait(Clock::time_point deadline = Clock::time_point::max());
  // The same, for one of two.
  static Async<bool> wait_for_either(Signal& one, Signal& other,
                                     Clock::time_point deadline = Clock::time_point::max());
  // Wakes all that wait now. They run later, never inside the call.
  void notify();

 private:
  class Waiting;  // one that waits, in the list

  std::list<asio::steady_timer*> waiting_;
};

// A callback's value, which comes once, soon or late. `begin` gets the callback.
template <typename T>
Async<T> await_callback(std::function<void(std::function<void(T)>)> begin) {
  struct Outcome {
    std::optional<T> value;
    Signal come;
  };
  const auto outcome = std::make_shared<Outcome>();
  begin([outcome](T value) {
    outcome->value.emplace(std::move(value));
    outcome->come.notify();
  });
  while (!outcome->value) {
    co_await outcome->come.wait();
  }
  co_return std::move(*outcome->value);
}

// Runs `work` to its end also when the coroutine that waits for it is cancelled: its result is
// dropped then.
template <typename T>
Async<T> shield(Async<T> work) {
  struct Outcome {
    std::optional<T> value;
    std::exception_ptr error;
    Signal come;
  };
  const auto outcome = std::make_shared<Outcome>();
  // Apart, for g++ 12 destroys function objects and braced structures in an expression with
  // co_await twice.
  const auto executor = co_await asio::this_coro::executor;
  asio::co_spawn(executor, std::move(work), [outcome](std::exception_ptr error, T value) {
    outcome->error = std::move(error);
    outcome->value.emplace(std::move(value));
    outcome->come.notify();
  });
  while (!outcome->value) {
    co_await outcome->come.wait();
  }
  if (outcome->error) {
    std::rethrow_exception(outcome->error);
  }
  co_return std::move(*outcome->value);
}

// The completion of a coroutine that nobody waits for: what it throws is a mistake of ours, and
// comes out of io_context::run().
struct Unattended {
  void operator()(const std::exception_ptr& error) const {
    if (error) {
      std::rethrow_exception(error);
    }
  }
};

// Threads for what blocks.
class Workers {
 public:
  Workers(asio::io_context& io, std::size_t threads) : io_(io), pool_(threads) {}
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  // Waits for what runs.
  ~Workers() { pool_.join(); }

  // Runs `work` there, to its end also when the coroutine is cancelled: its result is dropped then.
  template <typename Work>
  Async<std::invoke_result_t<Work&>> run(Work work) {
    struct Outcome {
      std::optional<std::invoke_result_t<Work&>> value;
      std::exception_ptr error;
    };
    using Shared = std::shared_ptr<Outcome>;
    // In two steps, for g++ 12 destroys what a function object in a co_await expression has
    // captured twice.
    std::function<void(std::function<void(Shared)>)> begin =
        [this, shared = std::make_shared<Work>(std::move(work))](std::function<void(Shared)> done) {
          asio::post(pool_, [this, shared, done = std::move(done),
                             guard = asio::make_work_guard(io_)]() mutable {
            const auto outcome = std::make_shared<Outcome>();
            try {
              outcome->value.emplace((*shared)());
            } catch (...) {
              outcome->error = std::current_exception();
            }
            shared.reset();
            asio::post(io_, [done = std::move(done), outcome] { done(outcome); });
          });
        };
    const Shared outcome = co_await await_callback<Shared>(std::move(begin));
    if (outcome->error) {
      std::rethrow_exception(outcome->error);
    }
    co_return std::move(*outcome->value);
  }

 private:
  asio::io_context& io_;
  asio::thread_pool pool_;
};

// Until there is something to read from `fd`, or it has ended (of a pidfd: its process). To be kept
// open meanwhile, and awaited by one coroutine at a time.
Async<> await_readable(int fd);

// One at a time: whoever holds it lets go by destroying what enter() gave.
class Gate {
 public:
  class Pass {
   public:
    explicit Pass(Gate& gate) : gate_(&gate) {}
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr) {
        gate_->taken_ = false;
        gate_->free_.notify();
      }
    }

   private:
    Gate* gate_;
  };

  // To be kept alive by whoever waits, or has a pass.
  Async<Pass> enter() {
    while (taken_) {
      co_await free_.wait();
    }
    taken_ = true;
    co_return Pass(*this);
  }

 private:
  bool taken_ = false;
  Signal free_;
};

}  // namespace msb::server
