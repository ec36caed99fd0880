// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: the documents of an image. The first byte chooses which one the rest is; for an
// image, a zero byte stands between manifest and configuration.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "oci/digest.hpp"
#include "oci/image_spec.hpp"
#include "oci/layout.hpp"

namespace msb::oci {
namespace {

enum class Document : std::uint8_t {
  kMarker,
  kIndex,
  kManifest,
  kConfig,
  kImage,
  kDigest,
  kMediaType
};
constexpr unsigned kDocuments = 7;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void check_digest(std::string_view text) {
  if (const auto digest = Digest::parse(text)) {
    require(digest->to_string() == text);
  }
}

void check_index(std::string_view json) {
  const auto index = parse_index(json);
  require(!index || index->entries.size() <= kMaxIndexEntries);
}

void check_image(std::string_view documents) {
  const auto zero = documents.find('\0');
  const auto manifest = parse_manifest(documents.substr(0, zero));
  auto config = parse_config(zero == std::string_view::npos ? std::string_view()
                                                            : documents.substr(zero + 1));
  if (!manifest || !config) {
    return;
  }
  require(manifest->layers.size() <= kMaxLayers);
  const Descriptor descriptor{"", Digest::of({}), 0};
  const auto image = assemble_image(descriptor, *manifest, std::move(*config));
  if (image) {
    require(image->layers.size() == manifest->layers.size());
    require(image->layers.size() == image->config.diff_ids.size());
    require(image->config.os.empty() || image->config.os == "linux");
    require(image->config.architecture.empty() || image->config.architecture == "amd64");
  }
}

}  // namespace
}  // namespace msb::oci

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb::oci;
  if (size == 0) {
    return 0;
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (static_cast<Document>(*data % kDocuments)) {
    case Document::kMarker:
      (void)check_layout_marker(text);
      break;
    case Document::kIndex:
      check_index(text);
      break;
    case Document::kManifest:
      (void)parse_manifest(text);
      break;
    case Document::kConfig:
      (void)parse_config(text);
      break;
    case Document::kImage:
      check_image(text);
      break;
    case Document::kDigest:
      check_digest(text);
      break;
    case Document::kMediaType:
      (void)layer_compression(text);
      (void)is_index(text);
      (void)is_manifest(text);
      break;
  }
  return 0;
}
