// SPDX-License-Identifier: Apache-2.0
#include "cli/pull_report.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "cli/context.hpp"
#include "cli/text.hpp"

namespace msb::cli {

namespace {

constexpr std::chrono::milliseconds kInterval{200};

void write_line(int fd, const Json& document) {
  const std::string line = document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  // Whoever does not read any more wants no report.
  [[maybe_unused]] const ssize_t written = ::write(fd, line.data(), line.size());
}

}  // namespace

void PullReport::begin(const std::vector<oci::Layer>& layers) {
  const std::lock_guard lock(mutex_);
  received_.assign(layers.size(), 0);
  over_.assign(layers.size(), false);
  total_ = std::accumulate(
      layers.begin(), layers.end(), std::uint64_t{0},
      [](std::uint64_t sum, const oci::Layer& layer) { return sum + layer.blob.size; });
  tell(fmt::format("{} layers, {}", layers.size(), format_size(total_)));
}

void PullReport::update(std::size_t index, oci::LayerState state, std::uint64_t received) {
  const std::lock_guard lock(mutex_);
  if (index >= received_.size()) {
    return;
  }
  const bool over = state == oci::LayerState::kPresent || state == oci::LayerState::kDone;
  const bool changed = over && !over_[index];
  received_[index] = std::max(received_[index], received);
  over_[index] = over_[index] || over;
  if (changed || Clock::now() - told_ >= kInterval) {
    tell(fmt::format("{} of {} layers", std::ranges::count(over_, true), over_.size()));
  }
}

void PullReport::fail(int fd, const std::string& sentence) {
  write_line(fd, {{"error", sentence}});
}

void PullReport::tell(const std::string& text) {
  told_ = Clock::now();
  write_line(fd_,
             {{"received", std::accumulate(received_.begin(), received_.end(), std::uint64_t{0})},
              {"total", total_},
              {"text", text}});
}

}  // namespace msb::cli
