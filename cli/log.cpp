// SPDX-License-Identifier: Apache-2.0
#include "cli/log.hpp"

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <limits>
#include <utility>

#include "base/fd.hpp"
#include "cli/copy_words.hpp"
#include "cli/target.hpp"
#include "cli/text.hpp"
#include "sandbox/locked_file.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::cli {

namespace {

using sandbox::LogLine;
using sandbox::LogReader;
using sandbox::LogStream;

constexpr std::size_t kEnough = std::size_t{64} << 10;  // bytes to write at once
constexpr std::int64_t kSecond = 1000;                  // milliseconds

// Whether a sandbox still runs is asked so often: nothing tells when a lock becomes free.
constexpr int kLookInterval = 250;  // milliseconds

std::int64_t milliseconds_now() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string stamp(std::int64_t time_ms) {
  const std::string whole = time_ms < 0 ? "" : format_time(time_ms / kSecond);
  return whole.empty()
             ? ""
             : fmt::format("{}.{:03}Z ", whole.substr(0, whole.size() - 1), time_ms % kSecond);
}

// Where a sandbox's log is, and the lock that is held while it runs.
struct LogPlace {
  std::string log;
  std::string lock;
};

LogPlace place_of(const Target& target) {
  if (!target.who.state.empty()) {
    const sandbox::StateDirectory state(target.who.state);
    return {state.log(), state.file("lock")};
  }
  return {target.running->directory + "/output", target.running->directory + "/lock"};
}

// What changes a log: more in it, and a new one in its place.
class LogWatch {
 public:
  static Result<LogWatch> create(const std::string& log) {
    LogWatch watch(Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)), log);
    const std::string directory = directory_of(log);
    if (!watch.events_ ||
        ::inotify_add_watch(watch.events_.get(), directory.c_str(), IN_CREATE | IN_MOVED_TO) < 0) {
      return fail_errno(errno, "cannot watch '{}'", directory);
    }
    watch.renew();
    return watch;
  }

  [[nodiscard]] int fd() const { return events_.get(); }

  // Takes what has happened.
  void renew() {
    std::array<char, 4096> events{};
    while (::read(events_.get(), events.data(), events.size()) > 0) {
    }
    // Adds what now has the name; what is watched already stays so. When there is none yet the
    // directory says when there is.
    ::inotify_add_watch(events_.get(), log_.c_str(), IN_MODIFY | IN_DONT_FOLLOW);
  }

 private:
  LogWatch(Fd events, std::string log) : events_(std::move(events)), log_(std::move(log)) {}
  Fd events_;
  std::string log_;
};

class Follower {
 public:
  Follower(LogReader& reader, LogReader::Each each, LogPrinter& printer)
      : reader_(reader), each_(std::move(each)), printer_(printer) {}

  Result<void> show() {
    auto done = reader_.file() ? reader_.read(each_) : open_late();
    auto flushed = printer_.flush();
    return done ? flushed : done;
  }

  // Until the sandbox has ended and all is shown.
  Result<void> follow(const LogPlace& place) {
    auto watch = LogWatch::create(place.log);
    if (!watch) {
      return std::unexpected(watch.error());
    }
    while (true) {
      // In this order: nothing is written any more once it is free.
      const auto runs = sandbox::is_locked(place.lock);
      if (auto shown = show(); !shown) {
        return shown;
      }
      if (!runs || !*runs) {
        return runs ? Result<void>() : std::unexpected(runs.error());
      }
      pollfd entry{watch->fd(), POLLIN, 0};
      if (::poll(&entry, 1, kLookInterval) < 0 && errno != EINTR) {
        return fail_errno(errno, "cannot wait for the log");
      }
      watch->renew();
    }
  }

 private:
  Result<void> open_late() {
    const auto opened = reader_.open();
    if (!opened) {
      return std::unexpected(opened.error());
    }
    return *opened ? reader_.read(each_) : Result<void>();
  }

  LogReader& reader_;
  LogReader::Each each_;
  LogPrinter& printer_;
};

std::unexpected<Error> nothing_written(const std::string& name, const Target& target) {
  if (target.running) {
    return fail("'{}' has no log: it keeps none, or nothing was written yet", name);
  }
  return fail("'{}' has no log: it has not run yet", name);
}

}  // namespace

Result<void> LogPrinter::add(const LogLine& line) {
  const LogStream stream = format_ == Format::kJson ? LogStream::kOutput : line.stream;
  if (stream != stream_ || waiting_.size() >= kEnough) {
    if (auto flushed = flush(); !flushed) {
      return flushed;
    }
    stream_ = stream;
  }
  waiting_ += shown(line);
  return {};
}

std::string LogPrinter::shown(const LogLine& line) {
  if (format_ == Format::kJson) {
    const Json document = {{"time_ms", line.time_ms},
                           {"stream", line.stream == LogStream::kOutput ? "stdout" : "stderr"},
                           {"text", line.text}};
    return document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  bool& inside = inside_[line.stream == LogStream::kOutput ? 0 : 1];
  const std::string before = timestamps_ && !inside ? stamp(line.time_ms) : "";
  inside = !line.text.ends_with('\n');
  return before + line.text;
}

Result<void> LogPrinter::flush() {
  const bool to_output = stream_ == LogStream::kOutput;
  std::string_view left = waiting_;
  while (!left.empty()) {
    const ssize_t length =
        ::write(to_output ? STDOUT_FILENO : STDERR_FILENO, left.data(), left.size());
    if (length < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot write to standard {}", to_output ? "output" : "error");
    }
    left.remove_prefix(length < 0 ? 0 : static_cast<std::size_t>(length));
  }
  waiting_.clear();
  return {};
}

Result<std::int64_t> parse_since(const std::string& text, std::int64_t now_ms) {
  std::int64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, code] = std::from_chars(text.data(), end, number);
  const std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  constexpr std::array<std::pair<std::string_view, std::int64_t>, 5> kUnits = {
      {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}}};
  for (const auto& [name, seconds] : kUnits) {
    if (code == std::errc() && number >= 0 && unit == name &&
        number <= std::numeric_limits<std::int64_t>::max() / (seconds * kSecond)) {
      return now_ms - number * seconds * kSecond;
    }
  }
  if (const auto time = parse_time(text)) {
    return *time * kSecond;
  }
  return fail(
      "--since is a time, as 2026-11-25T08:43:29Z, or how long ago, as 90s, 10m, 2h or 3d; "
      "it is not '{}'",
      text);
}

Result<void> log(const LogWords& words) {
  std::int64_t since = std::numeric_limits<std::int64_t>::min();
  if (!words.since.empty()) {
    const auto parsed = parse_since(words.since, milliseconds_now());
    if (!parsed) {
      return std::unexpected(parsed.error());
    }
    since = *parsed;
  }
  const auto targets = Targets::look(words.file);
  if (!targets) {
    return std::unexpected(targets.error());
  }
  const auto target = targets->find(words.name);
  if (!target) {
    return std::unexpected(target.error());
  }
  const LogPlace place = place_of(*target);
  LogReader reader(place.log);
  const auto opened = reader.open(words.tail);
  if (!opened) {
    return std::unexpected(opened.error());
  }
  if (!*opened && !(words.follow && target->running)) {
    return nothing_written(words.name, *target);
  }
  LogPrinter printer(words.format, words.timestamps);
  Follower follower(
      reader,
      [&](const LogLine& line) {
        return line.time_ms < since ? Result<void>() : printer.add(line);
      },
      printer);
  auto shown = words.follow ? follower.follow(place) : follower.show();
  if (!shown) {
    return shown;
  }
  if (words.follow || !target->running) {
    reader.finish();
  }
  if (reader.bad_lines() > 0) {
    complain(fmt::format("passed over {} line{} of '{}' that no sandbox has written",
                         reader.bad_lines(), reader.bad_lines() == 1 ? "" : "s", place.log));
  }
  return {};
}

}  // namespace msb::cli
