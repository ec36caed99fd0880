// SPDX-License-Identifier: Apache-2.0
// `msb init`, `add`, `remove`, `list`, `status` and `clean`: the Sandboxfile, and what its
// sandboxes have kept.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"
#include "cli/spec_options.hpp"

namespace msb::cli {

struct AddWords {
  std::string file;  // -f
  std::vector<std::string> names;
  std::string image;
  std::vector<std::string> depends_on;
  std::vector<std::string> scripts;  // NAME=BODY
  std::string start;                 // the body of the script "start"
  std::vector<std::string> command;  // what came behind "--"
};

struct CleanWords {
  std::string file;                // -f
  std::vector<std::string> names;  // none: the whole project
  bool force = false;              // all of a project that still has its Sandboxfile
  bool user = false;               // the user's own: scratch files, installed sandboxes
  bool all = false;                // both
};

// `where`: a directory, or the file; empty: here.
Result<void> init(const std::string& where);
Result<void> add(const AddWords& words, const SpecWords& spec);
Result<void> remove(const std::string& file, const std::vector<std::string>& names);
Result<void> list(const std::string& file, Format format);
Result<void> status(const std::string& file, const std::vector<std::string>& names, Format format);
Result<void> clean(const CleanWords& words);

}  // namespace msb::cli
