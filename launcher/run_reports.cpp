// SPDX-License-Identifier: Apache-2.0
#include "launcher/run_reports.hpp"

#include <unistd.h>

#include <utility>

#include "launcher/complain.hpp"
#include "launcher/exit_record.hpp"

namespace msb::launcher {

using Json = nlohmann::ordered_json;

RunReports::RunReports(std::string record)
    : started_ms_(time_of_day_ms()), record_(std::move(record)) {}

Result<void> RunReports::tell_to(int pipe) {
  auto taken = EventPipe::take(pipe);
  if (!taken) {
    return std::unexpected(taken.error());
  }
  events_ = std::move(*taken);
  return {};
}

void RunReports::running(std::optional<std::uint32_t> process) {
  if (events_) {
    events_->tell("running", {{"process", process ? Json(*process) : Json()},
                              {"pid", ::getpid()},
                              {"published", published_}});
  }
}

void RunReports::detached() {
  if (events_) {
    events_->tell("detached", Json::object());
  }
}

// The record first: whoever hears of the end may look for it at once.
void RunReports::ended(const Outcome& outcome, std::vector<std::string> kernel) {
  if (std::exchange(ended_, true)) {
    return;
  }
  if (!record_.empty()) {
    const auto written =
        write_record(record_, {outcome, started_ms_, time_of_day_ms(), std::move(kernel)});
    if (!written) {
      complain(written.error().message);
    }
  }
  if (events_) {
    events_->tell("ended", {{"status", outcome.status}, {"message", outcome.message}});
  }
}

}  // namespace msb::launcher
