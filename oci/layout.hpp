// SPDX-License-Identifier: Apache-2.0
// An OCI image layout directory (image-layout.md), read and verified.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "oci/image_spec.hpp"

namespace msb::oci {

// What --image named: a layout directory and, where one was given, a tag.
struct LayoutReference {
  std::string path;
  std::optional<std::string> tag;
};

// Splits LAYOUT[:TAG]. An argument that is an existing directory is a layout without a tag;
// otherwise the text after the last ':' is the tag. Fails when neither reading names an existing
// directory.
Result<LayoutReference> parse_layout_reference(std::string_view argument);

// One layer of an image: the blob and the digest of the tar that it unpacks to.
struct Layer {
  Descriptor blob;
  Compression compression = Compression::kNone;
  Digest diff_id;
};

// An image as its manifest and configuration describe it, both verified.
struct Image {
  Descriptor manifest;
  ImageConfig config;
  std::vector<Layer> layers;  // lowest first; as many as config.diff_ids
};

// Joins a verified manifest and configuration. Fails for another platform, a layer of an
// unsupported media type, or numbers of layers and diff IDs that differ.
[[nodiscard]] Result<Image> assemble_image(Descriptor manifest_descriptor, const Manifest& manifest,
                                           ImageConfig config);

// An open layout. Every blob is found by its digest, relative to the directory that was opened, and
// must be a regular file; nothing in the layout can name a path.
class Layout {
 public:
  // Fails when `path` is no directory or holds no OCI image layout of version 1.
  static Result<Layout> open(const std::string& path);

  // The image with `tag` (org.opencontainers.image.ref.name) for linux/amd64. Without a tag: the
  // only image, or the one tagged "latest". Documents are checked against digest and size; errors
  // list the tags that exist.
  [[nodiscard]] Result<Image> image(const std::optional<std::string>& tag) const;

  // A read-only descriptor of the blob, at offset 0. Fails when it is missing, no regular file, or
  // not of the size that the descriptor says. The content is not verified: who reads it does that.
  [[nodiscard]] Result<Fd> open_blob(const Descriptor& blob) const;

 private:
  Layout(std::string path, Fd directory, Index index)
      : path_(std::move(path)), directory_(std::move(directory)), index_(std::move(index)) {}

  [[nodiscard]] Result<const IndexEntry*> find_tag(const std::optional<std::string>& tag) const;
  [[nodiscard]] Result<Descriptor> find_manifest(const Descriptor& start) const;
  [[nodiscard]] Result<std::string> read_document(const Descriptor& blob) const;

  std::string path_;
  Fd directory_;
  Index index_;
};

}  // namespace msb::oci
