// SPDX-License-Identifier: Apache-2.0
// An image: its manifest, its configuration and its layers, as some source of documents and blobs
// gives them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "oci/image_spec.hpp"
#include "oci/piece_source.hpp"

namespace msb::oci {

// One layer of an image: the blob and the digest of the tar that it unpacks to.
struct Layer {
  Descriptor blob;
  Compression compression = Compression::kNone;
  Digest diff_id;
};

// An image as its manifest and configuration describe it, both verified.
struct Image {
  Descriptor manifest;
  Descriptor config_blob;
  ImageConfig config;
  std::vector<Layer> layers;  // lowest first; as many as config.diff_ids
};

// Where the parts of images come from: a directory, a registry, an archive.
class ImageSource {
 public:
  virtual ~ImageSource() = default;

  // The content of a document of at most kMaxDocumentSize bytes, checked against size and digest.
  virtual Result<std::string> document(const Descriptor& descriptor) = 0;

  // The content of a blob as it comes. It is not verified: who reads it does that. The source must
  // outlive it.
  virtual Result<std::unique_ptr<PieceSource>> blob(const Descriptor& descriptor) = 0;
};

// Fails, naming the document, when its content is too large, or not of the size or digest that
// `descriptor` says.
Result<void> check_document(const Descriptor& descriptor, std::string_view content);

// The entry for linux/amd64 among those that `eligible` accepts; one that names no platform is
// taken when none is better. Null when there is none. Architecture variants are not told apart: the
// order of the index decides.
template <typename Eligible>
const IndexEntry* choose_platform(const Index& index, Eligible eligible) {
  const IndexEntry* unnamed = nullptr;
  for (const IndexEntry& entry : index.entries) {
    if (!eligible(entry)) {
      continue;
    }
    if (entry.os == kOs && entry.architecture == kArchitecture) {
      return &entry;
    }
    if (unnamed == nullptr && entry.os.empty() && entry.architecture.empty()) {
      unnamed = &entry;
    }
  }
  return unnamed;
}

// The manifest that `start` leads to for linux/amd64: itself, or through up to four nested
// indexes. Fails for other media types and where an index has no image for this platform.
Result<Descriptor> find_manifest(ImageSource& source, const Descriptor& start);

// The image that a manifest describes. Fails with a sentence that names the document when one is
// missing, wrong, for another platform, has a layer of an unsupported media type, or when the
// numbers of layers and diff IDs differ.
Result<Image> load_image(ImageSource& source, const Descriptor& descriptor);

}  // namespace msb::oci
