// SPDX-License-Identifier: Apache-2.0
// `msb server start` and `msb mcp` as msb-server has them, which carries them out: msb itself
// starts faster without what that takes.
#include <unistd.h>

#include "cli/server.hpp"

namespace msb::cli {

Result<int> start_server(const ServerWords& words) {
  const auto status = server::serve(words.serve);
  if (!status && words.serve.ready >= 0) {
    // Whoever started us in the background tells it.
    const std::string line = fmt::format("error {}\n", status.error().message);
    [[maybe_unused]] const ssize_t written = ::write(words.serve.ready, line.data(), line.size());
  }
  // Coroutines that are suspended still refer to what would be destroyed on the way out.
  if (status) {
    ::_exit(*status);
  }
  return status;
}

Result<int> serve_mcp() {
  const auto status = server::serve_mcp_on_stdio();
  if (status) {
    ::_exit(*status);
  }
  return status;
}

}  // namespace msb::cli
