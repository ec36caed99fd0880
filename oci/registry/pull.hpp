// SPDX-License-Identifier: Apache-2.0
// From a registry into the store.
#pragma once

#include "base/result.hpp"
#include "oci/reference.hpp"
#include "oci/registry/registry.hpp"
#include "oci/store/store.hpp"

namespace msb::oci {

struct Pulled {
  Digest target;  // what the reference stands for: an index or a manifest
  Image image;
  std::uint64_t received = 0;  // bytes of blobs
  bool was_present = false;    // nothing had to be fetched
};

// Makes the image that `reference` names complete in `store`, under that name. `registry` is one
// for the reference's registry and repository. What the store has whole and the registry still
// means by the name costs one HEAD request, and none where the reference has a digest. Fails with a
// sentence that names the reference, and the layer or document where it is one's fault.
Result<Pulled> pull(Store& store, const Registry& registry, const Reference& reference,
                    const ImportOptions& options);

}  // namespace msb::oci
