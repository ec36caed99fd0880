// SPDX-License-Identifier: Apache-2.0
// From what a spec calls an image to what is run. What a sandbox has written lies on the layers of
// one image, so one that keeps its state keeps its image too, also when a name has moved on.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "oci/settings.hpp"
#include "oci/store/store.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::sandbox {

struct ImageChoice {
  // One of these: for msb-vmm's --image, or --rootfs; or a reference that is to be pulled first.
  std::string image;
  std::string rootfs;
  std::string missing;
  PinnedImage pin;  // for StateDirectory::pin(), once it is not missing
};

// Whether it is a directory of this host: it starts with "/", "./" or "../".
bool is_local_image(std::string_view image);

// What people call it: "python" for docker.io/library/python:3.12, and the tag of a layout.
std::string short_name(std::string_view image);

// The errno of the error when what a sandbox has written belongs to another image.
inline constexpr int kOtherImage = 116;  // ESTALE

// `directory`: what local images are relative to. `state`: null for a temporary sandbox. `afresh`:
// how one starts without what it has written, for the sentence of that error; empty: by
// `msb clean`.
Result<ImageChoice> choose_image(oci::Store& store, const oci::Settings& settings,
                                 const std::string& image, const std::string& directory,
                                 const StateDirectory* state, std::string_view afresh = "");

}  // namespace msb::sandbox
