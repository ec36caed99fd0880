// SPDX-License-Identifier: Apache-2.0
// `msb ps`, `inspect`, `port`, `stop`, `kill`, `pause`, `resume`, `wait`, `exec` and `attach`:
// sandboxes that run.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"
#include "cli/entering.hpp"
#include "cli/stopping.hpp"

namespace msb::cli {

struct NamedWords {
  std::string file;                // -f
  std::vector<std::string> names;  // of sandboxes
  Format format = Format::kTable;
};

Result<void> ps(Format format);
// Always a document: an array with one element for each.
Result<void> inspect(const NamedWords& words);
Result<void> show_ports(const NamedWords& words);
Result<void> stop(const NamedWords& words, const StopWords& how);
// `method`: pause or resume.
Result<void> set_paused(const NamedWords& words, const std::string& method);
// The exit status of the last of them.
Result<int> wait_for_sandboxes(const NamedWords& words);
Result<int> exec(const NamedWords& words, const ExecWords& how);
Result<int> attach(const NamedWords& words, bool from_start);

}  // namespace msb::cli
