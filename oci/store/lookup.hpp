// SPDX-License-Identifier: Apache-2.0
// From what a user writes to an image of the store.
#pragma once

#include <optional>
#include <string_view>

#include "base/result.hpp"
#include "oci/settings.hpp"
#include "oci/store/store.hpp"

namespace msb::oci {

// The image that `text` means: a reference, with the settings' aliases; or the digest of a
// manifest, or at least six first digits of one. Nothing when the store has none. Fails when the
// text is neither, or digits mean several images.
Result<std::optional<CatalogEntry>> find_image(Store& store, const Settings& settings,
                                               std::string_view text);

// The same; fails with what to do when the store has none.
Result<CatalogEntry> get_image(Store& store, const Settings& settings, std::string_view text);

}  // namespace msb::oci
