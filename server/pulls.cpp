// SPDX-License-Identifier: Apache-2.0
#include "server/pulls.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/spawn.hpp"
#include "oci/printable.hpp"
#include "sandbox/files.hpp"
#include "sandbox/program.hpp"

namespace msb::server {

namespace {

// A line of msb-registry's report is far shorter, and it is our own program.
constexpr std::size_t kMaxLine = 65536;
constexpr std::size_t kMaxPulls = 8;  // of different images at a time

}  // namespace

// Kept by those who wait for it.
struct Pulls::One {
  explicit One(std::string what) : reference(std::move(what)) {}
  One(const One&) = delete;
  One& operator=(const One&) = delete;
  ~One() {
    if (process && !outcome) {
      ::syscall(SYS_pidfd_send_signal, process.get(), SIGTERM, nullptr, 0);
    }
  }

  std::string reference;
  Fd process;  // its pidfd
  PullState state;
  std::optional<Outcome<void>> outcome;
  Signal changed;
};

Async<Outcome<void>> Pulls::pull(std::string reference, PullProgress progress) {
  std::erase_if(under_way_, [](const auto& one) { return one.second.expired(); });
  auto one = under_way_[reference].lock();
  if (!one) {
    if (under_way_.size() > kMaxPulls) {
      under_way_.erase(reference);
      co_return std::unexpected(
          Problem{Reason::kFull, fmt::format("{} images are being pulled", kMaxPulls), 5});
    }
    one = std::make_shared<One>(reference);
    under_way_[reference] = one;
    if (auto begun = begin(one); !begun) {
      under_way_.erase(reference);
      co_return refuse(Reason::kInternal, begun.error());
    }
  }
  while (!one->outcome) {
    if (progress) {
      progress(one->state);
    }
    co_await one->changed.wait();
  }
  co_return *one->outcome;
}

Result<void> Pulls::begin(const std::shared_ptr<One>& one) {
  const auto directory = sandbox::program_directory();
  if (!directory) {
    return std::unexpected(directory.error());
  }
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot make a pipe");
  }
  Fd reading(ends[0]);
  const Fd writing(ends[1]);
  Spawn spawn;
  spawn.null(STDIN_FILENO);
  spawn.null(STDOUT_FILENO);
  spawn.null(STDERR_FILENO);
  spawn.give(writing.get(), writing.get());
  spawn.usual_signals();
  auto child = spawn.start(
      *directory + "/msb-registry",
      {"msb", "pull", "--quiet", fmt::format("--report={}", writing.get()), "--", one->reference});
  if (!child) {
    return std::unexpected(child.error());
  }
  one->process.reset(::fcntl(child->process.get(), F_DUPFD_CLOEXEC, 0));
  asio::co_spawn(io_, follow(one, std::make_shared<Spawned>(std::move(*child)), std::move(reading)),
                 Unattended());
  return {};
}

// Reads its report to the end, whether or not somebody waits still.
Async<> Pulls::follow(std::weak_ptr<One> weak, std::shared_ptr<Spawned> child, Fd report) {
  std::string received;
  std::string error;
  bool reading = true;
  while (reading) {
    co_await await_readable(report.get());
    char piece[4096];
    const ssize_t length = ::read(report.get(), piece, sizeof piece);
    if (length < 0 && errno == EINTR) {
      continue;
    }
    reading = length > 0 && received.size() < kMaxLine;
    received.append(piece, length > 0 ? static_cast<std::size_t>(length) : 0);
    for (std::size_t end = 0; (end = received.find('\n')) != std::string::npos;) {
      const auto line = sandbox::Json::parse(received.substr(0, end), nullptr, false);
      received.erase(0, end + 1);
      if (!line.is_object()) {
        continue;
      }
      error = sandbox::text_member(line, "error").value_or(error);
      if (const auto one = weak.lock()) {
        one->state = {
            static_cast<std::uint64_t>(sandbox::number_member(line, "received").value_or(0)),
            static_cast<std::uint64_t>(sandbox::number_member(line, "total").value_or(0)),
            sandbox::text_member(line, "text").value_or("")};
        one->changed.notify();
      }
    }
  }
  const auto wait = [child] { return wait_for(*child); };
  const int status = co_await workers_.run(wait);
  if (const auto one = weak.lock()) {
    if (status == 0) {
      one->outcome.emplace();
    } else {
      one->outcome.emplace(refuse(Reason::kFailed, "{}",
                                  error.empty() ? fmt::format("the pull of '{}' was broken off",
                                                              oci::printable(one->reference))
                                                : error));
    }
    one->changed.notify();
  }
}

}  // namespace msb::server
