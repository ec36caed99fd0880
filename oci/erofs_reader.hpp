// SPDX-License-Identifier: Apache-2.0
// The little that the host reads out of EROFS images, which our own writer made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "oci/erofs_format.hpp"

namespace msb::oci {

// Fills `bytes` from the image's `offset`; false where it ends before.
bool read_image_at(int fd, std::span<std::byte> bytes, std::uint64_t offset);

// Fails when there is none of ours.
Result<erofs::Superblock> read_superblock(int fd);

// Whether `fd` is a regular file with an EROFS superblock and as long as that says.
bool is_whole_image(int fd);

// Whether the root directory is opaque, so that the layer hides all below it. Fails when the image
// cannot be read or is not one of ours.
Result<bool> has_opaque_root(int fd);

}  // namespace msb::oci
