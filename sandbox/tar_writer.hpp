// SPDX-License-Identifier: Apache-2.0
// Headers of a tar stream (POSIX pax), put together. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "oci/layer_tree.hpp"

namespace msb::sandbox {

// What a header says of one file.
struct TarFile {
  oci::FileType type = oci::FileType::kRegular;  // no device
  std::string name;
  std::string link_target;  // of a symbolic link
  oci::Metadata metadata;
  std::uint64_t size = 0;  // of a regular file, bytes
};

// Appends the header, with an extended one in front of it for what it has no room for.
void append_tar_header(std::vector<std::byte>& stream, const TarFile& file);

// Appends the zeros that follow `size` bytes of content up to the next block.
void append_tar_padding(std::vector<std::byte>& stream, std::uint64_t size);

// Appends the end of an archive.
void append_tar_end(std::vector<std::byte>& stream);

}  // namespace msb::sandbox
