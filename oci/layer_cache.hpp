// SPDX-License-Identifier: Apache-2.0
// Converted layers kept in one directory, each under its diff ID, so that a layer is converted
// once.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "oci/layer.hpp"
#include "oci/layout.hpp"

namespace msb::oci {

// A directory of EROFS images. Safe to use from several processes at once: an image gets its final
// name only when it is complete and on disk, and whoever comes second uses the first one's. Killing
// a process leaves nothing half-made.
class LayerCache {
 public:
  // Opens the cache in `directory`, creating it and missing parents (mode 0700). Images made by
  // another version of the EROFS writer lie in other subdirectories and are not used.
  static Result<LayerCache> open(const std::string& directory);

  // A read-only descriptor of the EROFS image of `layer`, converted now when it is missing. Fails
  // as convert_layer does, or when the directory cannot be written.
  [[nodiscard]] Result<Fd> open_layer(const Layout& layout, const Layer& layer,
                                      const LayerLimits& limits = {}) const;

  // The EROFS images of the whole image, lowest first, ready to be stacked. Layers that a higher
  // one hides entirely (an opaque whiteout of the root) are left out, since overlayfs ignores
  // opacity of a layer's root.
  [[nodiscard]] Result<std::vector<Fd>> open_layers(const Layout& layout, const Image& image,
                                                    const LayerLimits& limits = {}) const;

 private:
  LayerCache(std::string path, Fd directory)
      : path_(std::move(path)), directory_(std::move(directory)) {}

  std::string path_;
  Fd directory_;  // of the current writer version
};

}  // namespace msb::oci
