// SPDX-License-Identifier: Apache-2.0
// Directories that a layer has something in but does not list. Unpacked one over the other, such a
// layer leaves them as they are. A layer that is converted on its own has to make them up (0755 of
// root), and overlayfs shows a directory as the topmost layer that has it.
#pragma once

#include <optional>
#include <span>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::oci {

// A layer to be put on top of `layers` (EROFS images of ours, lowest first, kept by the caller),
// in memory: the directories that a layer made up, as the layers below it describe them. Nothing
// where all of them are described by the topmost layer that has them, or by none. Fails when an
// image is damaged, or when the images have so many such directories that they cannot be searched
// in reasonable time.
Result<std::optional<Fd>> make_directory_layer(std::span<const Fd> layers);

}  // namespace msb::oci
