// SPDX-License-Identifier: Apache-2.0
// From what a spec calls an image to what is run. What a sandbox has written lies on the layers of
// one image, so one that keeps its state keeps its image too, also when a name has moved on.
#pragma once

#include <optional>
#include <string>

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

// `directory`: what local images are relative to. `state`: null for a temporary sandbox. Fails when
// the state belongs to another image.
Result<ImageChoice> choose_image(oci::Store& store, const oci::Settings& settings,
                                 const std::string& image, const std::string& directory,
                                 const StateDirectory* state);

}  // namespace msb::sandbox
