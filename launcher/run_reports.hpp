// SPDX-License-Identifier: Apache-2.0
// What becomes of a sandbox, for the program that started it (--events) and for later (--record).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "launcher/event_pipe.hpp"
#include "launcher/outcome.hpp"

namespace msb::launcher {

class RunReports {
 public:
  // `record`: a path; empty: none.
  explicit RunReports(std::string record);

  // Takes the writing end of a pipe. Fails as EventPipe::take() does.
  Result<void> tell_to(int pipe);
  // The pipe, which has an error (poll(2)) once nobody reads it; negative: there is none.
  [[nodiscard]] int starter() const { return events_ ? events_->get() : -1; }
  // Milliseconds since 1970.
  [[nodiscard]] std::uint64_t started_ms() const { return started_ms_; }
  // The ports of this host that lead into it: an array.
  void set_published(nlohmann::ordered_json published) { published_ = std::move(published); }

  // `process`: the command's id, if there is one.
  void running(std::optional<std::uint32_t> process);
  void detached();
  // Counts once. `kernel`: what the guest's kernel said last.
  void ended(const Outcome& outcome, std::vector<std::string> kernel);

 private:
  const std::uint64_t started_ms_;
  const std::string record_;
  std::optional<EventPipe> events_;
  nlohmann::ordered_json published_ = nlohmann::ordered_json::array();
  bool ended_ = false;
};

}  // namespace msb::launcher
