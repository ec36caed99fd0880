// SPDX-License-Identifier: Apache-2.0
#include "cli/progress_display.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "cli/text.hpp"

namespace msb::cli {
namespace {

using oci::LayerState;
using Seconds = std::chrono::duration<double>;

constexpr auto kDrawInterval = std::chrono::milliseconds(100);
constexpr std::size_t kNameDigits = 12;
constexpr std::size_t kBarWidth = 24;
constexpr std::size_t kDefaultColumns = 80;
constexpr Seconds kFirstRate{0.5};  // before that a rate says nothing

bool is_over(LayerState state) {
  return state == LayerState::kDone || state == LayerState::kPresent;
}

// "8.1 MB/s, 3 s left", or less when that is not known.
std::string format_rate(std::uint64_t received, std::uint64_t size, Seconds elapsed) {
  if (elapsed < kFirstRate || received == 0) {
    return "";
  }
  const double rate = static_cast<double>(received) / elapsed.count();
  std::string text = fmt::format(", {}/s", format_size(static_cast<std::uint64_t>(rate)));
  if (received < size) {
    const std::chrono::seconds left(
        static_cast<std::int64_t>(static_cast<double>(size - received) / rate));
    text += fmt::format(", {} left", format_duration(left));
  }
  return text;
}

std::string bar(std::uint64_t received, std::uint64_t size) {
  const double part = size == 0 ? 1 : static_cast<double>(received) / static_cast<double>(size);
  const auto filled = std::min(kBarWidth, static_cast<std::size_t>(part * kBarWidth));
  return fmt::format("[{}{}]", std::string(filled, '='), std::string(kBarWidth - filled, ' '));
}

std::size_t columns_of(std::FILE* stream) {
  winsize size{};
  return ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col
                                                                              : kDefaultColumns;
}

}  // namespace

std::string format_layer(const LayerProgress& layer, std::size_t width) {
  std::string line;
  switch (layer.state) {
    case LayerState::kQueued:
      line = fmt::format("{}  waiting", layer.name);
      break;
    case LayerState::kPresent:
      line = fmt::format("{}  is here already", layer.name);
      break;
    case LayerState::kElsewhere:
      line = fmt::format("{}  another process is fetching it", layer.name);
      break;
    case LayerState::kReceiving:
      line = fmt::format("{}  {} {} / {}{}", layer.name, bar(layer.received, layer.size),
                         format_size(layer.received), format_size(layer.size),
                         format_rate(layer.received, layer.size, layer.elapsed));
      break;
    case LayerState::kStoring:
      line = fmt::format("{}  {} {}, writing to disk", layer.name, bar(layer.received, layer.size),
                         format_size(layer.size));
      break;
    case LayerState::kDone:
      line = fmt::format(
          "{}  {}{}", layer.name, format_size(layer.size),
          layer.elapsed < kFirstRate
              ? ""
              : fmt::format(" in {}", format_duration(std::chrono::seconds(std::max<std::int64_t>(
                                          1, static_cast<std::int64_t>(layer.elapsed.count()))))));
      break;
  }
  line.resize(std::min(line.size(), width));
  return line;
}

std::string format_total(const std::vector<LayerProgress>& layers, Seconds elapsed) {
  std::uint64_t received = 0;
  std::uint64_t size = 0;
  std::size_t over = 0;
  for (const LayerProgress& layer : layers) {
    over += is_over(layer.state) ? 1 : 0;
    if (layer.state != LayerState::kPresent) {
      received += layer.received;
      size += layer.size;
    }
  }
  return fmt::format("{} of {} layers, {} / {}{}", over, layers.size(), format_size(received),
                     format_size(size), format_rate(received, size, elapsed));
}

ProgressDisplay::Kind ProgressDisplay::kind_for(std::FILE* stream) {
  return ::isatty(::fileno(stream)) == 1 ? Kind::kTerminal : Kind::kLines;
}

ProgressDisplay::~ProgressDisplay() {
  erase();
}

void ProgressDisplay::begin(const std::vector<oci::Layer>& layers) {
  const std::lock_guard lock(mutex_);
  erase();
  begun_ = Clock::now();
  layers_.clear();
  for (const oci::Layer& layer : layers) {
    layers_.push_back(
        {.name = layer.blob.digest.hex().substr(0, kNameDigits), .size = layer.blob.size});
  }
  started_.assign(layers.size(), begun_);
}

void ProgressDisplay::update(std::size_t index, LayerState state, std::uint64_t received) {
  const std::lock_guard lock(mutex_);
  LayerProgress& layer = layers_[index];
  const auto now = Clock::now();
  const bool changed = layer.state != state;
  if (changed && state == LayerState::kReceiving) {
    started_[index] = now;
  }
  layer.state = state;
  layer.received = received;
  layer.elapsed = now - started_[index];
  if (kind_ == Kind::kQuiet || (!changed && now - drawn_at_ < kDrawInterval)) {
    return;
  }
  if (changed && (is_over(state) || (kind_ == Kind::kLines && state == LayerState::kElsewhere))) {
    say(format_layer(layer, std::string::npos));
  }
  if (kind_ == Kind::kTerminal) {
    erase();
    draw();
  }
}

void ProgressDisplay::notice(const std::string& sentence) {
  const std::lock_guard lock(mutex_);
  if (kind_ == Kind::kQuiet) {
    return;
  }
  say(sentence);
  draw();
}

// A stream that takes nothing more, a full disk for example, does not end what is told about.
void ProgressDisplay::write(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stream_);
  std::fflush(stream_);
}

// A line that stays.
void ProgressDisplay::say(const std::string& line) {
  erase();
  write(line + "\n");
}

void ProgressDisplay::draw() {
  if (kind_ != Kind::kTerminal) {
    return;
  }
  drawn_at_ = Clock::now();
  const std::size_t width = columns_of(stream_) - 1;
  std::string text;
  for (const LayerProgress& layer : layers_) {
    if (layer.state != LayerState::kQueued && !is_over(layer.state)) {
      text += format_layer(layer, width) + "\n";
      ++drawn_lines_;
    }
  }
  if (drawn_lines_ > 0) {
    std::string total = format_total(layers_, drawn_at_ - begun_);
    total.resize(std::min(total.size(), width));
    text += total + "\n";
    ++drawn_lines_;
  }
  write(text);
}

// Takes away what draw() drew: cursor up, then clear to the end of the screen (ECMA-48, CUU, ED).
void ProgressDisplay::erase() {
  if (drawn_lines_ > 0) {
    write(fmt::format("\x1b[{}A\r\x1b[J", drawn_lines_));
    drawn_lines_ = 0;
  }
}

}  // namespace msb::cli
