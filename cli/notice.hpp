// SPDX-License-Identifier: Apache-2.0
// What a command waits for, told on a terminal once that takes longer than one likes to wait.
#pragma once

#include <chrono>
#include <string>

namespace msb::cli {

// So long a wait is no wait yet.
inline constexpr std::chrono::milliseconds kSoon{500};

class Notice {
 public:
  // "Stopping web"
  explicit Notice(std::string text) : text_(std::move(text)) {}
  Notice(const Notice&) = delete;
  Notice& operator=(const Notice&) = delete;
  // Takes back what was shown.
  ~Notice();

  // Once, and only where standard error is a terminal.
  void show();

 private:
  const std::string text_;
  bool shown_ = false;
};

}  // namespace msb::cli
