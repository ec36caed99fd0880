// SPDX-License-Identifier: Apache-2.0
#include "base/loop.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <deque>
#include <semaphore>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace msb {
namespace {

struct SocketPair {
  SocketPair() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    a = Fd(ends[0]);
    b = Fd(ends[1]);
  }
  Fd a, b;
};

TEST_CASE("a read completes with the bytes that were written") {
  auto loop = Loop::create();
  REQUIRE(loop);
  SocketPair pair;
  std::array<char, 8> buffer{};
  const iovec into{buffer.data(), buffer.size()};
  int got = 0;
  Operation op([&](std::int32_t result) {
    got = result;
    (*loop)->stop();
  });
  (*loop)->read(pair.a.get(), {&into, 1}, AsyncIo::kNoOffset, op);
  CHECK(op.pending());
  REQUIRE(::write(pair.b.get(), "hello", 5) == 5);
  REQUIRE((*loop)->run());
  CHECK(got == 5);
  CHECK(std::string_view(buffer.data(), 5) == "hello");
  CHECK_FALSE(op.pending());
}

TEST_CASE("posted functions run in order on the loop's thread") {
  auto loop = Loop::create();
  REQUIRE(loop);
  std::string order;
  std::thread poster([&] {
    (*loop)->post([&] { order += 'a'; });
    (*loop)->post([&] { order += 'b'; });
    (*loop)->post([&] { (*loop)->stop(); });
  });
  REQUIRE((*loop)->run());
  poster.join();
  CHECK(order == "ab");
}

TEST_CASE("a timeout completes with ETIME and a cancelled poll with ECANCELED") {
  auto loop = Loop::create();
  REQUIRE(loop);
  SocketPair pair;
  int polled = 0;
  int timed = 0;
  Operation poll([&](std::int32_t result) {
    polled = result;
    (*loop)->stop();
  });
  Operation timeout([&](std::int32_t result) {
    timed = result;
    (*loop)->cancel(poll);
  });
  (*loop)->poll(pair.a.get(), POLLIN, poll);
  (*loop)->timeout(1'000'000, timeout);
  REQUIRE((*loop)->run());
  CHECK(timed == -ETIME);
  CHECK(polled == -ECANCELED);
}

TEST_CASE("more operations than the submission queue holds all complete") {
  auto loop = Loop::create();
  REQUIRE(loop);
  constexpr int kCount = 1000;
  std::deque<Operation> operations;
  int completed = 0;
  for (int i = 0; i < kCount; ++i) {
    operations.emplace_back([&](std::int32_t result) {
      CHECK(result == -ETIME);
      if (++completed == kCount) {
        (*loop)->stop();
      }
    });
    (*loop)->timeout(1000, operations.back());
  }
  REQUIRE((*loop)->run());
  CHECK(completed == kCount);
}

TEST_CASE("a file is allocated, written, and synchronised") {
  auto loop = Loop::create();
  REQUIRE(loop);
  const Fd file(::memfd_create("loop-test", MFD_CLOEXEC));
  REQUIRE(file);
  std::vector<std::int32_t> results;
  std::array<char, 4> data{'a', 'b', 'c', 'd'};
  const iovec from{data.data(), data.size()};
  Operation sync([&](std::int32_t result) {
    results.push_back(result);
    (*loop)->stop();
  });
  Operation write([&](std::int32_t result) {
    results.push_back(result);
    (*loop)->sync(file.get(), sync);
  });
  Operation allocate([&](std::int32_t result) {
    results.push_back(result);
    (*loop)->write(file.get(), {&from, 1}, 4096, write);
  });
  (*loop)->allocate(file.get(), 0, 0, 8192, allocate);
  REQUIRE((*loop)->run());
  CHECK(results == std::vector<std::int32_t>{0, 4, 0});
  struct stat status{};
  REQUIRE(::fstat(file.get(), &status) == 0);
  CHECK(status.st_size == 8192);
}

TEST_CASE(
    "what is deferred runs behind the completions that came together, and never waits for more") {
  auto loop = Loop::create();
  REQUIRE(loop);
  std::string order;
  SocketPair pair;
  REQUIRE(::write(pair.b.get(), "x", 1) == 1);
  int turns = 0;
  Operation again([&](std::int32_t result) {
    CHECK(result == 0);
    order += 'D';
    ++turns;
    turns < 3 ? (*loop)->defer(again) : (*loop)->stop();
  });
  Operation first([&](std::int32_t) {
    order += '1';
    (*loop)->defer(again);
  });
  Operation second([&](std::int32_t) { order += '2'; });
  (*loop)->poll(pair.a.get(), POLLIN, first);
  (*loop)->poll(pair.a.get(), POLLIN, second);
  REQUIRE((*loop)->run());
  CHECK(order == "12DDD");
}

TEST_CASE("drain cancels what is pending") {
  auto loop = Loop::create();
  REQUIRE(loop);
  SocketPair pair;
  int result_seen = 0;
  Operation op([&](std::int32_t result) { result_seen = result; });
  (*loop)->poll(pair.a.get(), POLLIN, op);
  (*loop)->drain();
  CHECK(result_seen == -ECANCELED);
  CHECK_FALSE(op.pending());
}

TEST_CASE("a watched eventfd is noticed for every signal that comes after the last notice") {
  auto loop = Loop::create();
  REQUIRE(loop);
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  std::atomic<std::uint64_t> given = 0;
  std::uint64_t seen = 0;
  constexpr std::uint64_t kSignals = 20'000;
  Operation op([&](std::int32_t result) {
    seen = given.load();
    if (result > 0 && !op.pending()) {
      (*loop)->watch(event.get(), op);
    }
    if (seen == kSignals) {
      (*loop)->stop();
    }
  });
  (*loop)->watch(event.get(), op);
  // Far more than the ring has room for, before anybody looks.
  const std::uint64_t one = 1;
  for (std::uint64_t i = 0; i < kSignals / 2; ++i) {
    given.fetch_add(1);
    REQUIRE(::write(event.get(), &one, sizeof one) == sizeof one);
  }
  std::thread signaller([&] {
    for (std::uint64_t i = 0; i < kSignals / 2; ++i) {
      given.fetch_add(1);
      if (::write(event.get(), &one, sizeof one) != sizeof one) {
        return;
      }
    }
  });
  REQUIRE((*loop)->run());
  signaller.join();
  CHECK(seen == kSignals);
  (*loop)->drain();
  CHECK_FALSE(op.pending());
}

TEST_CASE("a file that is kept is the one that was meant, also when its number has another later") {
  auto loop = Loop::create();
  REQUIRE(loop);
  const auto read_one = [&](int fd) {
    char byte = 0;
    const iovec into{&byte, 1};
    Operation op([&](std::int32_t result) {
      CHECK(result == 1);
      (*loop)->stop();
    });
    (*loop)->read(fd, {&into, 1}, 0, op);
    REQUIRE((*loop)->run());
    return byte;
  };
  const auto make = [](char content) {
    Fd file(::memfd_create("kept", MFD_CLOEXEC));
    REQUIRE(::write(file.get(), &content, 1) == 1);
    return file;
  };
  // More than there is room for: the rest is not kept, and works all the same.
  std::vector<Fd> files;
  for (char content = 'A'; content < 'A' + 40; ++content) {
    files.push_back(make(content));
    (*loop)->keep_file(files.back().get());
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    CHECK(read_one(files[i].get()) == static_cast<char>('A' + i));
  }
  const int number = files.front().get();
  (*loop)->forget_file(number);
  files.front() = make('z');
  REQUIRE(::dup3(files.front().get(), number, O_CLOEXEC) == number);
  const Fd again(number);
  CHECK(read_one(again.get()) == 'z');
}

TEST_CASE("what always has more to do leaves others their turn") {
  auto loop = Loop::create();
  REQUIRE(loop);
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  const std::uint64_t one = 1;
  int turns = 0;
  bool deferred_done = false;
  bool read_done = false;
  const auto stop_when_done = [&] {
    if (deferred_done && read_done) {
      (*loop)->stop();
    }
  };
  Operation deferred([&](std::int32_t) {
    deferred_done = true;
    stop_when_done();
  });
  SocketPair pair;
  char byte = 0;
  const iovec into{&byte, 1};
  Operation read([&](std::int32_t) {
    read_done = true;
    stop_when_done();
  });
  Operation busy([&](std::int32_t result) {
    if (result < 0) {
      return;
    }
    if (turns++ == 0) {
      (*loop)->defer(deferred);
      (*loop)->read(pair.a.get(), {&into, 1}, AsyncIo::kNoOffset, read);
      REQUIRE(::write(pair.b.get(), "x", 1) == 1);
    }
    if (turns < 1000) {
      REQUIRE(::write(event.get(), &one, sizeof one) == sizeof one);
    } else {
      (*loop)->stop();
    }
  });
  (*loop)->watch(event.get(), busy);
  REQUIRE(::write(event.get(), &one, sizeof one) == sizeof one);
  REQUIRE((*loop)->run());
  CHECK(deferred_done);
  CHECK(read_done);
  CHECK(turns < 100);
  (*loop)->drain();
}

TEST_CASE(
    "offloaded work runs in order on one other thread, which begins as it is told, and completes") {
  auto loop = Loop::create();
  REQUIRE(loop);
  std::vector<int> order;
  std::thread::id worker;
  bool prepared = false;
  (*loop)->on_worker_start([&] {
    worker = std::this_thread::get_id();
    prepared = true;
  });
  std::deque<Operation> operations;
  int left = 100;
  for (int i = 0; i < 100; ++i) {
    Operation& op = operations.emplace_back([&](std::int32_t result) {
      CHECK(result == 0);
      if (--left == 0) {
        (*loop)->stop();
      }
    });
    (*loop)->offload(
        [&, i] {
          if (std::this_thread::get_id() == worker) {
            order.push_back(i);
          }
          return true;
        },
        op);
  }
  REQUIRE((*loop)->run());
  CHECK(prepared);
  CHECK(worker != std::this_thread::get_id());
  CHECK(order.size() == 100);
  CHECK(std::ranges::is_sorted(order));
}

TEST_CASE("offloaded work that has not begun is cancelled, and what has is waited for") {
  auto loop = Loop::create();
  REQUIRE(loop);
  std::binary_semaphore begun(0);
  std::binary_semaphore go(0);
  std::atomic<int> ran = 0;
  std::vector<std::int32_t> results;
  const auto note = [&](std::int32_t result) {
    results.push_back(result);
    if (results.size() == 3) {
      (*loop)->stop();
    }
  };
  Operation first(note);
  Operation second(note);
  Operation third(note);
  (*loop)->offload(
      [&] {
        begun.release();
        go.acquire();
        ++ran;
        return true;
      },
      first);
  begun.acquire();
  (*loop)->offload([&] { return ++ran > 0; }, second);
  (*loop)->offload([&] { return ++ran > 0; }, third);
  (*loop)->cancel(first);
  (*loop)->cancel(second);
  go.release();
  REQUIRE((*loop)->run());
  CHECK(ran == 2);
  std::ranges::sort(results);
  CHECK(results == std::vector<std::int32_t>{-ECANCELED, 0, 0});
  // At the end of the loop as well.
  Operation held([&](std::int32_t result) { CHECK(result == 0); });
  Operation late([&](std::int32_t result) { CHECK(result == -ECANCELED); });
  (*loop)->offload(
      [&] {
        begun.release();
        go.acquire();
        return true;
      },
      held);
  begun.acquire();
  (*loop)->offload([&] { return ++ran > 0; }, late);
  std::thread releaser([&] { go.release(); });
  (*loop)->drain();
  releaser.join();
  CHECK_FALSE(held.pending());
  CHECK_FALSE(late.pending());
}

TEST_CASE("offloaded work that nobody waits for completes with something else, or in a hurry") {
  auto loop = Loop::create();
  REQUIRE(loop);
  std::atomic<int> ran = 0;
  int completed = 0;
  std::deque<Operation> operations;
  const auto offload = [&](bool waited_for) {
    Operation& op = operations.emplace_back([&](std::int32_t result) {
      CHECK(result == 0);
      ++completed;
      (*loop)->stop();
    });
    (*loop)->offload(
        [&, waited_for] {
          ++ran;
          return waited_for;
        },
        op);
  };
  const auto wait = [&](int count) {
    while (ran < count) {
      std::this_thread::yield();
    }
  };
  // With another one that is waited for.
  offload(false);
  wait(1);
  CHECK(completed == 0);
  offload(true);
  REQUIRE((*loop)->run());
  CHECK(completed == 2);
  // With what happens to complete.
  offload(false);
  Operation* again = nullptr;
  Operation other([&](std::int32_t) {
    if (completed < 3) {
      (*loop)->timeout(100'000, *again);
    }
  });
  again = &other;
  (*loop)->timeout(1, other);
  REQUIRE((*loop)->run());
  CHECK(completed == 3);
  // In a hurry, whether it was done before that or is done after it.
  for (const bool before : {true, false}) {
    offload(false);
    if (before) {
      wait(4);
    }
    (*loop)->hurry();
    REQUIRE((*loop)->run());
  }
  CHECK(completed == 5);
  // At the end.
  offload(false);
  wait(6);
  (*loop)->drain();
  CHECK(completed == 6);
  for (const Operation& op : operations) {
    CHECK_FALSE(op.pending());
  }
}

}  // namespace
}  // namespace msb
