// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/retries.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>

namespace msb::oci {
namespace {

using std::chrono::milliseconds;

constexpr unsigned kMaxFailures = 6;
constexpr unsigned kMaxUnreachable = 3;
constexpr unsigned kMaxTotal = 200;
constexpr unsigned kMaxDoublings = 5;
constexpr std::chrono::seconds kLongestRetryAfter{60};

std::string describe(std::chrono::seconds duration) {
  constexpr std::chrono::minutes kMinutes{2};
  constexpr std::chrono::hours kHours{2};
  if (duration < kMinutes) {
    return fmt::format("{} s", duration.count());
  }
  if (duration < kHours) {
    return fmt::format("{} minutes", std::chrono::ceil<std::chrono::minutes>(duration).count());
  }
  return fmt::format("{} hours", std::chrono::ceil<std::chrono::hours>(duration).count());
}

// The delay after so many failures, up to a quarter longer: clients that failed together do not all
// come back together.
milliseconds delay_after(unsigned failures, milliseconds first) {
  thread_local std::minstd_rand random{std::random_device{}()};
  const milliseconds delay = first * (1U << std::min(failures - 1, kMaxDoublings));
  return delay + milliseconds(std::uniform_int_distribution<milliseconds::rep>(
                     0, delay.count() / 4)(random));
}

// False when a stop was requested.
bool sleep_for(milliseconds delay, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any condition;
  std::unique_lock lock(mutex);
  condition.wait_for(lock, stop, delay, [] { return false; });
  return !stop.stop_requested();
}

}  // namespace

Result<void> Retries::wait_after(const Failure& failure) {
  ++failures_;
  ++total_;
  const bool hopeless =
      failure.kind == Failure::Kind::kFinal || failure.kind == Failure::Kind::kNoTls;
  const unsigned most =
      failure.kind == Failure::Kind::kUnreachable ? kMaxUnreachable : kMaxFailures;
  if (hopeless || failures_ >= most || total_ >= kMaxTotal) {
    return std::unexpected(failure.error);
  }
  milliseconds delay = delay_after(failures_, policy_.first_delay);
  if (failure.retry_after) {
    if (*failure.retry_after > kLongestRetryAfter) {
      return fail("{}; come back in {}", failure.error.message, describe(*failure.retry_after));
    }
    delay = std::max(delay, milliseconds(*failure.retry_after));
  }
  if (policy_.notice) {
    policy_.notice(fmt::format("retrying in {} s: {}",
                               std::chrono::round<std::chrono::seconds>(delay).count(),
                               failure.error.message));
  }
  if (!sleep_for(delay, policy_.stop)) {
    return fail("{}; waiting for another try was cancelled", failure.error.message);
  }
  return {};
}

}  // namespace msb::oci
