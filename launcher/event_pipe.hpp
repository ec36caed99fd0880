// SPDX-License-Identifier: Apache-2.0
// What happens to a sandbox, told to the program that started it: an inherited pipe that gets one
// JSON object a line.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::launcher {

// SIGPIPE must be ignored in the process.
class EventPipe {
 public:
  // Takes the writing end `fd`. Fails when it is not one, or a standard stream.
  static Result<EventPipe> take(int fd);

  // `details`: what there is to say besides the event's name, an object. Never waits: a reader that
  // does not read loses it, and what comes later if that cuts a line.
  void tell(std::string_view event, const nlohmann::ordered_json& details);
  [[nodiscard]] int get() const { return pipe_.get(); }

 private:
  explicit EventPipe(Fd pipe) : pipe_(std::move(pipe)) {}
  Fd pipe_;
  bool broken_ = false;
};

}  // namespace msb::launcher
