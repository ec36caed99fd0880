// SPDX-License-Identifier: Apache-2.0
#include "launcher/words.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstring>
#include <limits>
#include <optional>

#include "protocol/msb_boot.h"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

struct NamedLimit {
  std::string_view name;
  std::uint32_t resource;
};

constexpr NamedLimit kLimits[] = {
    {"as", RLIMIT_AS},           {"core", RLIMIT_CORE},         {"cpu", RLIMIT_CPU},
    {"data", RLIMIT_DATA},       {"fsize", RLIMIT_FSIZE},       {"locks", RLIMIT_LOCKS},
    {"memlock", RLIMIT_MEMLOCK}, {"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
    {"nofile", RLIMIT_NOFILE},   {"nproc", RLIMIT_NPROC},       {"rss", RLIMIT_RSS},
    {"rtprio", RLIMIT_RTPRIO},   {"rttime", RLIMIT_RTTIME},     {"sigpending", RLIMIT_SIGPENDING},
    {"stack", RLIMIT_STACK},
};

constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint32_t kMaxSignal = 64;
// Of the kernel; the C library keeps the first two for itself (nptl(7)), but in the guest another
// library may run.
constexpr std::uint32_t kFirstRealTimeSignal = 34;

template <typename Number>
std::optional<Number> parse(std::string_view text, int base = 10) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return number;
}

std::optional<std::uint64_t> parse_bound(std::string_view text) {
  return text == "unlimited" || text == "-1" ? kNoLimit : parse<std::uint64_t>(text);
}

char upper(char letter) {
  return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
}

bool same_letters(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, upper, upper);
}

}  // namespace

Result<protocol::Limit> parse_limit(std::string_view word) {
  const std::size_t equals = word.find('=');
  const auto* const named = std::ranges::find(kLimits, word.substr(0, equals), &NamedLimit::name);
  if (equals == std::string_view::npos || named == std::end(kLimits)) {
    return fail("\"{}\" is no limit; give NAME=SOFT[:HARD], for example nofile=1024:4096", word);
  }
  const std::string_view bounds = word.substr(equals + 1);
  const std::size_t colon = bounds.find(':');
  const auto soft = parse_bound(bounds.substr(0, colon));
  const auto hard = colon == std::string_view::npos ? soft : parse_bound(bounds.substr(colon + 1));
  if (!soft || !hard || *soft > *hard) {
    return fail("\"{}\" is no limit: its numbers do not make sense", word);
  }
  return protocol::Limit{named->resource, *soft, *hard};
}

Result<std::uint32_t> parse_umask(std::string_view word) {
  constexpr std::uint32_t kMax = 0777;
  const auto mask = parse<std::uint32_t>(word, 8);
  if (!mask || *mask > kMax) {
    return fail("\"{}\" is no umask; give an octal number up to 777", word);
  }
  return *mask;
}

Result<std::uint32_t> parse_signal(std::string_view word) {
  constexpr std::string_view kPrefix = "SIG";
  constexpr std::string_view kRealTime = "RTMIN";
  if (const auto number = parse<std::uint32_t>(word);
      number && *number >= 1 && *number <= kMaxSignal) {
    return *number;
  }
  std::string_view name = word;
  if (same_letters(name.substr(0, kPrefix.size()), kPrefix)) {
    name.remove_prefix(kPrefix.size());
  }
  for (int signal = 1; signal < static_cast<int>(kFirstRealTimeSignal); ++signal) {
    const char* known = ::sigabbrev_np(signal);
    if (known != nullptr && same_letters(name, known)) {
      return static_cast<std::uint32_t>(signal);
    }
  }
  if (same_letters(name.substr(0, kRealTime.size()), kRealTime)) {
    name.remove_prefix(kRealTime.size());
    const auto offset = name.empty()            ? 0
                        : name.starts_with('+') ? parse<std::uint32_t>(name.substr(1))
                                                : std::nullopt;
    if (offset && *offset <= kMaxSignal - kFirstRealTimeSignal) {
      return kFirstRealTimeSignal + *offset;
    }
  }
  return fail("there is no signal \"{}\"", word);
}

Result<std::uint32_t> parse_process_id(std::string_view word) {
  const auto id = parse<std::uint32_t>(word);
  if (!id || *id == 0) {
    return fail("\"{}\" is no process id; `msb-vmm ps` shows them", word);
  }
  return *id;
}

Result<void> check_hostname(std::string_view name) {
  const bool fits = !name.empty() && name.size() <= MSB_BOOT_HOSTNAME_MAX &&
                    std::ranges::none_of(name, [](char letter) {
                      const auto code = static_cast<unsigned char>(letter);
                      return code <= ' ' || code == 0x7f || letter == '/';
                    });
  if (!fits) {
    return fail("--hostname \"{}\" is none: it has 1 to {} letters, without blanks and slashes",
                protocol::quote(name), MSB_BOOT_HOSTNAME_MAX);
  }
  return {};
}

Result<std::uint32_t> parse_stop_timeout(std::string_view word) {
  constexpr std::uint32_t kMaxSeconds = 600;  // as long as SHUTDOWN can say
  const auto seconds = parse<std::uint32_t>(word);
  if (!seconds || *seconds > kMaxSeconds) {
    return fail("--stop-timeout \"{}\" is not whole seconds from 0 to {}", word, kMaxSeconds);
  }
  return *seconds * 1000;
}

Result<std::uint32_t> parse_timeout(std::string_view word) {
  constexpr std::uint32_t kMaxSeconds = std::numeric_limits<std::uint32_t>::max() / 1000;
  const auto seconds = parse<std::uint32_t>(word);
  if (!seconds || *seconds == 0 || *seconds > kMaxSeconds) {
    return fail("\"{}\" is no timeout; give whole seconds up to {}", word, kMaxSeconds);
  }
  return *seconds * 1000;
}

}  // namespace msb::launcher
