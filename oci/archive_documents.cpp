// SPDX-License-Identifier: Apache-2.0
#include "oci/archive_documents.hpp"

#include <utility>

#include "oci/json_document.hpp"

namespace msb::oci {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::size_t kMaxArchiveImages = 1024;

OrderedJson describe(const Descriptor& descriptor) {
  return {{"mediaType", descriptor.media_type},
          {"digest", descriptor.digest.to_string()},
          {"size", descriptor.size}};
}

}  // namespace

Result<std::vector<DockerArchiveImage>> parse_docker_archive(std::string_view json) {
  const auto document = parse_json(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  if (!document->is_array()) {
    return fail("the document is not a JSON array");
  }
  if (document->size() > kMaxArchiveImages) {
    return fail("the archive lists more than {} images", kMaxArchiveImages);
  }
  std::vector<DockerArchiveImage> images;
  for (const Json& element : *document) {
    if (!element.is_object()) {
      return fail("an image is not a JSON object");
    }
    auto config = required_string(element, "Config");
    auto names = string_list(element, "RepoTags");
    auto layers = string_list(element, "Layers");
    if (!config || !names || !layers) {
      return std::unexpected(!config ? config.error() : !names ? names.error() : layers.error());
    }
    if (layers->size() > kMaxLayers) {
      return fail("an image has {} layers, more than the {} that are supported", layers->size(),
                  kMaxLayers);
    }
    images.push_back({std::move(*config), std::move(*names), std::move(*layers)});
  }
  return images;
}

std::string write_docker_archive(const std::vector<DockerArchiveImage>& images) {
  OrderedJson document = OrderedJson::array();
  for (const DockerArchiveImage& image : images) {
    document.push_back(
        {{"Config", image.config}, {"RepoTags", image.names}, {"Layers", image.layers}});
  }
  return document.dump();
}

std::string write_manifest(const Descriptor& config, const std::vector<Descriptor>& layers) {
  OrderedJson list = OrderedJson::array();
  for (const Descriptor& layer : layers) {
    list.push_back(describe(layer));
  }
  const OrderedJson document = {{"schemaVersion", 2},
                                {"mediaType", kManifestMediaType},
                                {"config", describe(config)},
                                {"layers", std::move(list)}};
  return document.dump();
}

std::string write_layout_index(const std::vector<NamedManifest>& manifests) {
  OrderedJson list = OrderedJson::array();
  for (const NamedManifest& named : manifests) {
    OrderedJson entry = describe(named.manifest);
    OrderedJson annotations = OrderedJson::object();
    if (!named.reference.empty()) {
      annotations[kImageNameAnnotation] = named.reference;
    }
    if (!named.tag.empty()) {
      annotations[kRefNameAnnotation] = named.tag;
    }
    if (!annotations.empty()) {
      entry["annotations"] = std::move(annotations);
    }
    list.push_back(std::move(entry));
  }
  const OrderedJson document = {
      {"schemaVersion", 2}, {"mediaType", kIndexMediaType}, {"manifests", std::move(list)}};
  return document.dump();
}

std::string write_layout_marker() {
  const OrderedJson document = {{"imageLayoutVersion", "1.0.0"}};
  return document.dump();
}

}  // namespace msb::oci
