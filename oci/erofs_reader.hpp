// SPDX-License-Identifier: Apache-2.0
// The little that the host reads out of EROFS images, which our own writer made.
#pragma once

#include "base/result.hpp"

namespace msb::oci {

// Whether `fd` is a regular file with an EROFS superblock and as long as that says.
bool is_whole_image(int fd);

// Whether the root directory is opaque, so that the layer hides all below it. Fails when the image
// cannot be read or is not one of ours.
Result<bool> has_opaque_root(int fd);

}  // namespace msb::oci
