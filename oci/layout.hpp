// SPDX-License-Identifier: Apache-2.0
// An OCI image layout directory (image-layout.md), read and verified.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "oci/blob_directory.hpp"
#include "oci/image.hpp"
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

// An open layout.
class Layout {
 public:
  // Fails when `path` is no directory or holds no OCI image layout of version 1.
  static Result<Layout> open(const std::string& path);

  // The image with `tag` (org.opencontainers.image.ref.name) for linux/amd64. Without a tag: the
  // only image, or the one tagged "latest". Documents are checked against digest and size; errors
  // list the tags that exist.
  [[nodiscard]] Result<Image> image(const std::optional<std::string>& tag);

  [[nodiscard]] const Index& index() const { return index_; }
  [[nodiscard]] BlobDirectory& blobs() { return blobs_; }

 private:
  Layout(std::string name, BlobDirectory blobs, Index index)
      : name_(std::move(name)), blobs_(std::move(blobs)), index_(std::move(index)) {}

  [[nodiscard]] Result<const IndexEntry*> find_tag(const std::optional<std::string>& tag) const;

  std::string name_;  // as messages say it
  BlobDirectory blobs_;
  Index index_;
};

}  // namespace msb::oci
