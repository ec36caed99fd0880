// SPDX-License-Identifier: Apache-2.0
// What sandboxes use, as their agents say: asked all at the same time, again and again.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/loop.hpp"
#include "base/result.hpp"
#include "protocol/msb_exec.h"
#include "protocol/requests.hpp"
#include "sandbox/runtime_directory.hpp"

namespace msb::sandbox {

// Of one sandbox. The numbers are the guest's.
struct MetricsSample {
  msb_metrics values{};
  std::optional<double> cpu_percent;  // of one processor, since the sample before
};

// How busy a guest was between two looks, in percent of one processor; nothing when its clock did
// not go on.
std::optional<double> cpu_percent(const msb_metrics& before, const msb_metrics& now);

class MetricsSampler {
 public:
  static Result<std::unique_ptr<MetricsSampler>> create();
  MetricsSampler(const MetricsSampler&) = delete;
  MetricsSampler& operator=(const MetricsSampler&) = delete;
  ~MetricsSampler();

  // Asks these, by their ids, and waits until all have answered, `patience` is over, or `stop`
  // (unless it is negative; always the same) is readable. One that did not answer the time before
  // is not asked again, nor waited for, before it has.
  Result<void> sample(const std::vector<Running>& sandboxes, std::chrono::milliseconds patience,
                      int stop = -1);
  // What one answered to the last question; nothing when it has not.
  [[nodiscard]] std::optional<MetricsSample> find(const std::string& id) const;

 private:
  struct Agent {
    std::optional<protocol::Requests> requests;
    std::optional<msb_metrics> before;
    std::optional<MetricsSample> answer;
    bool asked = false;
  };

  explicit MetricsSampler(std::unique_ptr<Loop> loop);
  void ask(const Running& sandbox);
  void on_answer(Agent& agent, const protocol::Answer<msb_metrics>& answer);

  std::unique_ptr<Loop> loop_;
  std::map<std::string, std::unique_ptr<Agent>> agents_;
  std::size_t awaited_ = 0;  // answers of this round
  std::uint64_t round_ = 0;
  bool over_ = false;  // this round
  Operation patience_;
  Operation stop_;
};

}  // namespace msb::sandbox
