// SPDX-License-Identifier: Apache-2.0
// A sandbox's control socket (docs/control.md), from the side of who asks. What answers is a
// supervisor of this user's; it may hang, or be gone.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::sandbox {

class ControlClient {
 public:
  using Json = nlohmann::ordered_json;

  // Fails when nobody serves the socket.
  static Result<ControlClient> connect(const std::string& path);

  // Asks, and waits for the answer. Fails with the answer's sentence when it is an error, and when
  // none comes within `patience` (code ETIMEDOUT).
  Result<Json> call(const std::string& method, const Json& parameters = Json::object(),
                    std::chrono::milliseconds patience = std::chrono::seconds(10));
  // After `subscribe`: the next event; nothing when the sandbox has ended.
  Result<std::optional<Json>> next_event(
      std::optional<std::chrono::milliseconds> patience = std::nullopt);

  // The supervisor, as a pidfd: readable once it has ended. Fails when it has.
  [[nodiscard]] Result<Fd> supervisor() const;

 private:
  explicit ControlClient(Fd socket) : socket_(std::move(socket)) {}
  // A line without its newline; nothing at the end.
  Result<std::optional<std::string>> read_line(
      std::optional<std::chrono::steady_clock::time_point> deadline);

  Fd socket_;
  std::string received_;
  std::int64_t last_id_ = 0;
};

// Waits until a pidfd's process has ended; false when it has not within `patience`.
bool wait_for_end(const Fd& process, std::chrono::milliseconds patience);

}  // namespace msb::sandbox
