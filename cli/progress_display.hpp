// SPDX-License-Identifier: Apache-2.0
// The progress of a pull or a load, on standard error: lines that move on a terminal, plain lines
// elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <vector>

#include "oci/store/progress.hpp"

namespace msb::cli {

// What a display needs to know of one layer.
struct LayerProgress {
  std::string name;  // the first digits of its digest
  std::uint64_t size = 0;
  std::uint64_t received = 0;
  oci::LayerState state = oci::LayerState::kQueued;
  std::chrono::duration<double> elapsed{};  // since it began to be received
};

// One line for a layer at most `width` columns wide: name, bar, bytes, rate, time left.
std::string format_layer(const LayerProgress& layer, std::size_t width);
// One line for all: how many, bytes, rate over `elapsed`, time left.
std::string format_total(const std::vector<LayerProgress>& layers,
                         std::chrono::duration<double> elapsed);

class ProgressDisplay final : public oci::Progress {
 public:
  enum class Kind : std::uint8_t { kQuiet, kLines, kTerminal };

  // kTerminal where `stream` is one, else kLines.
  static Kind kind_for(std::FILE* stream);

  ProgressDisplay(std::FILE* stream, Kind kind) : stream_(stream), kind_(kind) {}
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;
  ~ProgressDisplay() override;

  void begin(const std::vector<oci::Layer>& layers) override;
  void update(std::size_t index, oci::LayerState state, std::uint64_t received) override;

  // A sentence for the user, above what moves. Not when quiet.
  void notice(const std::string& sentence);

 private:
  using Clock = std::chrono::steady_clock;

  void write(const std::string& text);
  void say(const std::string& line);
  void draw();
  void erase();

  std::FILE* stream_;
  Kind kind_;
  std::mutex mutex_;
  std::vector<LayerProgress> layers_;
  std::vector<Clock::time_point> started_;
  Clock::time_point begun_;
  Clock::time_point drawn_at_;
  int drawn_lines_ = 0;
};

}  // namespace msb::cli
