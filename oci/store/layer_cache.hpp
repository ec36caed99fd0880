// SPDX-License-Identifier: Apache-2.0
// Converted layers kept in one directory, each under its diff ID, so that a layer is converted
// once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "oci/image.hpp"
#include "oci/layer.hpp"

namespace msb::oci {

// A directory of EROFS images. Safe to use from several processes at once: an image gets its final
// name only when it is complete and on disk, and of several that want the same one, one makes it
// while the others wait. Killing a process leaves nothing half-made.
//
// Descriptors that it gives hold a shared lock of their file (flock(2)), and so does every
// process that they are passed to: a layer whose file can be locked exclusively is used by nobody.
class LayerCache {
 public:
  // Opens the cache in `directory`, creating it and missing parents (mode 0700). Images made by
  // another version of the EROFS writer lie in other subdirectories and are not used.
  static Result<LayerCache> open(const std::string& directory);

  // A read-only descriptor of a finished image, or nothing when there is none, or none that is
  // whole.
  [[nodiscard]] Result<std::optional<Fd>> find(const Digest& diff_id) const;

  // Converts a layer whose blob `source` gives, and keeps it; one that is there by then stays.
  // Fails as convert_layer does, or when the directory cannot be written.
  [[nodiscard]] Result<void> add(PieceSource& source, const Layer& layer,
                                 const LayerLimits& limits = {}) const;

  // A read-only descriptor of the EROFS image of `layer`, converted now when it is missing.
  [[nodiscard]] Result<Fd> open_layer(ImageSource& source, const Layer& layer,
                                      const LayerLimits& limits = {}) const;

  // The EROFS images of the whole image, lowest first, ready to be stacked. Layers that a higher
  // one hides entirely (an opaque whiteout of the root) are left out, since overlayfs ignores
  // opacity of a layer's root.
  [[nodiscard]] Result<std::vector<Fd>> open_layers(ImageSource& source, const Image& image,
                                                    const LayerLimits& limits = {}) const;

  // Whether a process has the image open that find() gave it. False where there is none.
  [[nodiscard]] bool in_use(const Digest& diff_id) const;

  // The bytes that an image takes on disk, 0 where there is none.
  [[nodiscard]] std::uint64_t size_of(const Digest& diff_id) const;

  // The diff IDs of all images, in no order.
  [[nodiscard]] Result<std::vector<Digest>> list() const;

  // Deletes an image; one that is not there is deleted already. Those who have it open keep it.
  [[nodiscard]] Result<void> remove(const Digest& diff_id) const;

  // Deletes the images that other versions of the EROFS writer made; gives their bytes.
  [[nodiscard]] Result<std::uint64_t> remove_other_versions() const;

 private:
  LayerCache(std::string path, Fd directory)
      : path_(std::move(path)), directory_(std::move(directory)) {}

  std::string path_;
  Fd directory_;  // of the current writer version
};

}  // namespace msb::oci
