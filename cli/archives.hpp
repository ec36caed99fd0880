// SPDX-License-Identifier: Apache-2.0
// `msb load` and `msb save`
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"
#include "oci/store/archive_writer.hpp"

namespace msb::cli {

struct LoadOptions {
  std::string input;  // a file, "-" for standard input, or the directory of an OCI image layout
  std::string name;   // in place of the archive's own; empty for that
  bool quiet = false;
  Format format = Format::kTable;
};

struct SaveOptions {
  std::string output;  // a file, or "-" for standard output
  std::vector<std::string> references;
  oci::ArchiveKind kind = oci::ArchiveKind::kOci;
};

// Prints a line, or a document, for each image.
Result<void> load(const LoadOptions& options);

// A file appears under its name only when it is whole.
Result<void> save(const SaveOptions& options);

}  // namespace msb::cli
