// SPDX-License-Identifier: Apache-2.0
#include "cli/byte_progress.hpp"

#include <unistd.h>

#include "cli/context.hpp"
#include "cli/text.hpp"

namespace msb::cli {

namespace {

constexpr std::chrono::milliseconds kFirst{500};
constexpr std::chrono::milliseconds kInterval{100};

}  // namespace

ByteProgress::ByteProgress(oci::PieceSource& source)
    : source_(source),
      shown_(::isatty(STDERR_FILENO) == 1),
      begun_(Clock::now()),
      next_draw_(begun_ + kFirst) {}

ByteProgress::~ByteProgress() {
  if (drawn_) {
    write_error("\r\x1b[K");
  }
}

Result<std::span<const std::byte>> ByteProgress::next() {
  const auto piece = source_.next();
  if (!shown_ || !piece) {
    return piece;
  }
  bytes_ += piece->size();
  const auto now = Clock::now();
  if (now >= next_draw_) {
    const double seconds = std::chrono::duration<double>(now - begun_).count();
    const auto rate = static_cast<std::uint64_t>(static_cast<double>(bytes_) / seconds);
    write_error(fmt::format("\r\x1b[K{}, {}/s", format_size(bytes_), format_size(rate)));
    drawn_ = true;
    next_draw_ = now + kInterval;
  }
  return piece;
}

}  // namespace msb::cli
