// SPDX-License-Identifier: Apache-2.0
// The Model Context Protocol on standard input and output: a message a line, each of either era
// (modelcontextprotocol.io/specification/2026-07-28/basic/transports, "stdio").
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "server/app.hpp"
#include "server/async.hpp"
#include "server/keys.hpp"

namespace msb::server {

// Serves one client with the rights of `key`, until standard input ends, SIGTERM or SIGINT comes,
// or nobody reads standard output, for which SIGPIPE has to be ignored. Requests are served at the
// same time; when the input ends, those that are under way have a moment to finish. At the end the
// client's ephemeral sandboxes are removed.
Async<> serve_stdio(App& app, Key key);

// Cuts what comes in pieces into lines. Pure.
class MessageLines {
 public:
  static constexpr std::size_t kLongest = std::size_t{32} << 20;  // bytes

  struct Line {
    std::string text;       // without its end; empty when it was
    bool too_long = false;  // more than kLongest
  };

  explicit MessageLines(std::size_t longest = kLongest) : longest_(longest) {}
  void add(std::string_view bytes);
  // The next one whose end has come.
  std::optional<Line> next();
  // What is left at the end of the input.
  std::optional<Line> finish();

 private:
  // `size`: of the line at begin_, whose end is behind it.
  Line take(std::size_t size);

  std::size_t longest_;
  std::string bytes_;
  std::size_t begin_ = 0;   // of what was not given yet
  std::size_t looked_ = 0;  // up to here no line ends
  bool passing_ = false;    // over the rest of a line that is too long
};

}  // namespace msb::server
