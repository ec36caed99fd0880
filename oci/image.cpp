// SPDX-License-Identifier: Apache-2.0
#include "oci/image.hpp"

#include <utility>

#include "oci/printable.hpp"

namespace msb::oci {
namespace {

constexpr int kMaxNestedIndexes = 4;

// Joins a verified manifest and configuration.
Result<Image> assemble(const Descriptor& descriptor, const Manifest& manifest, ImageConfig config) {
  if (!(config.os.empty() || config.os == kOs) ||
      !(config.architecture.empty() || config.architecture == kArchitecture)) {
    return fail("the image is for {}/{}, not for {}/{}", printable(config.os),
                printable(config.architecture), kOs, kArchitecture);
  }
  if (manifest.layers.size() != config.diff_ids.size()) {
    return fail("the manifest lists {} layers but the configuration {} diff IDs",
                manifest.layers.size(), config.diff_ids.size());
  }
  std::vector<Layer> layers;
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    const Descriptor& blob = manifest.layers[i];
    const auto compression = layer_compression(blob.media_type);
    if (!compression) {
      return std::unexpected(compression.error().within("layer " + blob.digest.to_string()));
    }
    layers.push_back(Layer{blob, *compression, config.diff_ids[i]});
  }
  return Image{descriptor, manifest.config, std::move(config), std::move(layers)};
}

}  // namespace

Result<void> check_document(const Descriptor& descriptor, std::string_view content) {
  const std::string name = descriptor.digest.to_string();
  if (content.size() > kMaxDocumentSize) {
    return fail("document {} is larger than {} bytes", name, kMaxDocumentSize);
  }
  if (content.size() != descriptor.size) {
    return fail("document {} has {} bytes, its descriptor says {}", name, content.size(),
                descriptor.size);
  }
  const Digest found = Digest::of(std::as_bytes(std::span(content)));
  if (found != descriptor.digest) {
    return fail("document {} does not match its digest: its content is {}", name,
                found.to_string());
  }
  return {};
}

Result<Descriptor> find_manifest(ImageSource& source, const Descriptor& start) {
  Descriptor current = start;
  for (int depth = 0; depth <= kMaxNestedIndexes; ++depth) {
    if (is_manifest(current.media_type)) {
      return current;
    }
    if (!is_index(current.media_type)) {
      return fail("{} is of media type '{}', which is neither an image nor an index",
                  current.digest.to_string(), printable(current.media_type));
    }
    const auto text = source.document(current);
    if (!text) {
      return std::unexpected(text.error());
    }
    const auto index = parse_index(*text);
    if (!index) {
      return std::unexpected(index.error().within("index " + current.digest.to_string()));
    }
    const IndexEntry* entry = choose_platform(*index, [](const IndexEntry&) { return true; });
    if (entry == nullptr) {
      return fail("index {} has no image for {}/{}; it has {}", current.digest.to_string(), kOs,
                  kArchitecture, list_platforms(*index));
    }
    current = entry->descriptor;
  }
  return fail("indexes nest deeper than {} levels", kMaxNestedIndexes);
}

Result<Image> load_image(ImageSource& source, const Descriptor& descriptor) {
  const auto manifest_text = source.document(descriptor);
  if (!manifest_text) {
    return std::unexpected(manifest_text.error());
  }
  const auto manifest = parse_manifest(*manifest_text);
  if (!manifest) {
    return std::unexpected(manifest.error().within("manifest " + descriptor.digest.to_string()));
  }
  if (auto checked = check_config_type(manifest->config.media_type); !checked) {
    return std::unexpected(checked.error());
  }
  const auto config_text = source.document(manifest->config);
  if (!config_text) {
    return std::unexpected(config_text.error());
  }
  auto config = parse_config(*config_text);
  if (!config) {
    return std::unexpected(
        config.error().within("configuration " + manifest->config.digest.to_string()));
  }
  return assemble(descriptor, *manifest, std::move(*config));
}

}  // namespace msb::oci
