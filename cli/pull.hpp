// SPDX-License-Identifier: Apache-2.0
// `msb pull`
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"

namespace msb::cli {

struct PullOptions {
  std::vector<std::string> references;
  bool quiet = false;
  bool insecure = false;
  unsigned timeout = 30;  // seconds without a byte
  Format format = Format::kTable;
  int errors = -1;  // a descriptor that gets the sentence of an error instead of standard error
  int report = -1;  // one that gets progress and errors as PullReport writes them, instead
};

// Prints NAME@DIGEST, or a document, for each reference; progress goes to standard error. Stops at
// the first that fails.
Result<void> pull(const PullOptions& options);

}  // namespace msb::cli
