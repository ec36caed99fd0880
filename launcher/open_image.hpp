// SPDX-License-Identifier: Apache-2.0
// From what the user calls an image to its configuration and its layers as descriptors.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "oci/image_spec.hpp"

namespace msb::launcher {

struct OpenImage {
  oci::ImageConfig config;
  std::vector<Fd> layers;  // EROFS images, lowest first
};

// Opens the image that `argument` names: the directory of an OCI image layout, LAYOUT or
// LAYOUT:TAG, when there is one; else a reference to an image of the store, which is pulled first
// when the store does not have it. Layers that were never used are converted first. A pull is
// broken off when nobody reads the pipe `starter` any more; negative: there is none.
Result<OpenImage> open_image(const std::string& argument, int starter = -1);

}  // namespace msb::launcher
