// SPDX-License-Identifier: Apache-2.0
// `msb image`: what is in the store.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"

namespace msb::cli {

struct PruneWords {
  bool all = false;
  bool dry_run = false;
};

Result<void> list_images(Format format);
// Always a document: an array with one element for each reference.
Result<void> inspect_images(const std::vector<std::string>& references);
Result<void> show_history(const std::string& reference, bool whole, Format format);
// Removes those that there are; fails afterwards when one was not there.
Result<void> remove_images(const std::vector<std::string>& references, Format format);
Result<void> prune_images(const PruneWords& words, Format format);

}  // namespace msb::cli
