// SPDX-License-Identifier: Apache-2.0
// A tar stream that a guest made becomes files of this host. Whatever it says, nothing outside of
// one directory is made, changed, linked to or looked at.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "oci/piece_source.hpp"

namespace msb::sandbox {

struct UnpackOptions {
  bool owners = false;  // the stream's modes as they are, and for root its owners; else the umask's
  bool top = false;     // what the stream says of the directory itself holds for it as well
};

struct Unpacked {
  std::uint64_t entries = 0;
  // Device nodes and FIFOs are left out; the name of the first, raw.
  std::uint64_t left_out = 0;
  std::string first_left_out;
};

// Reads `tar` to its end. `directory`: an open one. Files that are there are replaced, directories
// are merged, anything else in the way is an error. Set-user-ID bits, extended attributes and (but
// for root with `owners`) owners are dropped; symbolic links are made as they are, but never gone
// through, whoever made them. A file that does not come whole is removed again.
Result<Unpacked> unpack_tree(oci::PieceSource& tar, int directory, const UnpackOptions& options);

}  // namespace msb::sandbox
