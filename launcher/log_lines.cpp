// SPDX-License-Identifier: Apache-2.0
#include "launcher/log_lines.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

namespace msb::launcher {

namespace {

constexpr std::array<std::string_view, 2> kNames{"stdout", "stderr"};

void add_line(std::string& to, std::size_t stream, std::string_view text, std::uint64_t time_ms) {
  using Json = nlohmann::json;
  fmt::format_to(std::back_inserter(to), R"({{"time_ms":{},"stream":"{}","text":{}}})", time_ms,
                 kNames[stream], Json(text).dump(-1, ' ', false, Json::error_handler_t::replace));
  to += '\n';
}

// How long a UTF-8 sequence is that begins with `byte`; 1 for what begins none (RFC 3629).
std::size_t length_of(unsigned char byte) {
  if (byte >= 0xf0 && byte <= 0xf4) {
    return 4;
  }
  if (byte >= 0xe0 && byte <= 0xef) {
    return 3;
  }
  return byte >= 0xc2 && byte <= 0xdf ? 2 : 1;
}

// How much of `text` is in front of a character that it ends in the middle of.
std::size_t whole_characters(std::string_view text) {
  constexpr std::size_t kMostMissing = 3;
  for (std::size_t back = 1; back <= std::min(text.size(), kMostMissing); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80 || byte >= 0xc0) {
      return length_of(byte) > back ? text.size() - back : text.size();
    }
  }
  return text.size();
}

}  // namespace

std::string LogLines::append(msb_stream stream, std::span<const std::byte> bytes,
                             std::uint64_t time_ms) {
  std::string lines;
  std::string& pending = pending_[stream];
  pending.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::string_view rest = pending;
  while (true) {
    const std::string_view window = rest.substr(0, kLongest);
    const std::size_t newline = window.find('\n');
    std::size_t size = newline + 1;
    if (newline == std::string_view::npos) {
      if (rest.size() < kLongest) {
        break;
      }
      size = whole_characters(window);
    }
    add_line(lines, stream, rest.substr(0, size), time_ms);
    rest.remove_prefix(size);
  }
  pending.erase(0, pending.size() - rest.size());
  return lines;
}

std::string LogLines::flush(std::uint64_t time_ms) {
  std::string lines;
  for (std::size_t stream = 0; stream < pending_.size(); ++stream) {
    const std::size_t size = whole_characters(pending_[stream]);
    if (size > 0) {
      add_line(lines, stream, std::string_view(pending_[stream]).substr(0, size), time_ms);
      pending_[stream].erase(0, size);
    }
  }
  return lines;
}

std::string LogLines::finish(std::uint64_t time_ms) {
  std::string lines = flush(time_ms);
  for (std::size_t stream = 0; stream < pending_.size(); ++stream) {
    if (!pending_[stream].empty()) {
      add_line(lines, stream, pending_[stream], time_ms);
      pending_[stream].clear();
    }
  }
  return lines;
}

bool LogLines::partial() const {
  return std::ranges::any_of(
      pending_, [](const std::string& pending) { return whole_characters(pending) > 0; });
}

}  // namespace msb::launcher
