// SPDX-License-Identifier: Apache-2.0
#include "oci/image_spec.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "oci/json_document.hpp"
#include "oci/printable.hpp"

namespace msb::oci {
namespace {

// media-types.md, and Docker's distribution manifest schema 2.
constexpr std::array<std::string_view, 2> kIndexTypes = {
    kIndexMediaType,
    "application/vnd.docker.distribution.manifest.list.v2+json",
};
constexpr std::array<std::string_view, 2> kManifestTypes = {
    kManifestMediaType,
    "application/vnd.docker.distribution.manifest.v2+json",
};
constexpr std::array<std::string_view, 5> kConfigTypes = {
    kConfigMediaType,
    "application/vnd.docker.container.image.v1+json",
    // What registries and clients of Docker's early days put there.
    "application/octet-stream",
    "application/json",
    "",
};
constexpr std::array<std::pair<std::string_view, Compression>, 5> kLayerTypes = {{
    {kLayerMediaType, Compression::kNone},
    {kGzipLayerMediaType, Compression::kGzip},
    {kZstdLayerMediaType, Compression::kZstd},
    {"application/vnd.docker.image.rootfs.diff.tar", Compression::kNone},
    {"application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::kGzip},
}};

constexpr std::string_view kGzipMagic = "\x1f\x8b";
constexpr std::string_view kZstdMagic = "\x28\xb5\x2f\xfd";
constexpr std::string_view kLayoutVersion = "1.0.0";
constexpr std::uint64_t kMaxBlobSize = std::uint64_t{1}
                                       << 50;  // bytes; no registry takes a blob of a pebibyte
constexpr std::uint64_t kSchemaVersion = 2;

// descriptor.md, "Properties".
Result<Descriptor> parse_descriptor(const Json& json) {
  if (!json.is_object()) {
    return fail("a descriptor is not a JSON object");
  }
  auto media_type = required_string(json, "mediaType");
  if (!media_type) {
    return std::unexpected(media_type.error());
  }
  const auto digest_text = required_string(json, "digest");
  if (!digest_text) {
    return std::unexpected(digest_text.error());
  }
  const auto digest = Digest::parse(*digest_text);
  if (!digest) {
    return std::unexpected(digest.error());
  }
  const Json* size = find(json, "size");
  if (size == nullptr) {
    return fail("field 'size' of {} is missing", *digest_text);
  }
  if (!size->is_number_unsigned() || size->get<std::uint64_t>() > kMaxBlobSize) {
    return fail("field 'size' of {} is not a number of bytes up to {}", *digest_text, kMaxBlobSize);
  }
  return Descriptor{std::move(*media_type), *digest, size->get<std::uint64_t>()};
}

// The platform and the tag of an index entry.
Result<IndexEntry> parse_index_entry(const Json& json) {
  auto descriptor = parse_descriptor(json);
  if (!descriptor) {
    return std::unexpected(descriptor.error());
  }
  IndexEntry entry{.descriptor = std::move(*descriptor),
                   .os = {},
                   .architecture = {},
                   .ref_name = {},
                   .image_name = {}};
  struct Member {
    std::string_view object;
    std::string_view name;
    std::string* into;
  };
  for (const Member& member : {Member{"platform", "os", &entry.os},
                               Member{"platform", "architecture", &entry.architecture},
                               Member{"annotations", kRefNameAnnotation, &entry.ref_name},
                               Member{"annotations", kImageNameAnnotation, &entry.image_name}}) {
    const auto object = typed_member(json, member.object, Json::value_t::object, false);
    if (!object) {
      return std::unexpected(object.error());
    }
    if (*object == nullptr) {
      continue;
    }
    auto text = optional_string(**object, member.name);
    if (!text) {
      return std::unexpected(text.error());
    }
    *member.into = std::move(*text);
  }
  return entry;
}

// A document that can be read both as an index and as a manifest means different things to
// different readers (GHSA-qq97-vm5h-rrhg): `other` is the member that only the other kind has.
Result<void> check_kind(const Json& document, std::string_view other,
                        bool (*is_kind)(std::string_view)) {
  const Json* version = find(document, "schemaVersion");
  if (version == nullptr || !version->is_number_unsigned() ||
      version->get<std::uint64_t>() != kSchemaVersion) {
    return fail("field 'schemaVersion' is not {}", kSchemaVersion);
  }
  const auto media_type = optional_string(document, "mediaType");
  if (!media_type) {
    return std::unexpected(media_type.error());
  }
  if (!media_type->empty() && !is_kind(*media_type)) {
    return fail("field 'mediaType' is '{}', which is another kind of document",
                printable(*media_type));
  }
  if (document.contains(other)) {
    return fail(
        "the document is ambiguous: it has a field '{}' that belongs to another kind of document",
        other);
  }
  return {};
}

}  // namespace

std::string list_platforms(const Index& index) {
  constexpr std::size_t kMaxListed = 20;
  std::vector<std::string> platforms;
  for (const IndexEntry& entry : index.entries) {
    // Attestations call themselves so.
    if (!entry.os.empty() && entry.os != "unknown") {
      platforms.push_back(printable(fmt::format("{}/{}", entry.os, entry.architecture)));
    }
  }
  std::ranges::sort(platforms);
  platforms.erase(std::ranges::unique(platforms).begin(), platforms.end());
  if (platforms.empty()) {
    return "none";
  }
  const bool shortened = platforms.size() > kMaxListed;
  platforms.resize(std::min(platforms.size(), kMaxListed));
  return fmt::format("{}{}", fmt::join(platforms, ", "), shortened ? ", ..." : "");
}

bool is_index(std::string_view media_type) {
  return std::ranges::find(kIndexTypes, media_type) != kIndexTypes.end();
}

bool is_manifest(std::string_view media_type) {
  return std::ranges::find(kManifestTypes, media_type) != kManifestTypes.end();
}

Result<void> check_config_type(std::string_view media_type) {
  if (std::ranges::find(kConfigTypes, media_type) == kConfigTypes.end()) {
    return fail("it is no image, for its configuration is of media type '{}'",
                printable(media_type));
  }
  return {};
}

Compression detect_compression(std::string_view first_bytes) {
  return first_bytes.starts_with(kGzipMagic)   ? Compression::kGzip
         : first_bytes.starts_with(kZstdMagic) ? Compression::kZstd
                                               : Compression::kNone;
}

Result<Compression> layer_compression(std::string_view media_type) {
  for (const auto& [name, compression] : kLayerTypes) {
    if (name == media_type) {
      return compression;
    }
  }
  return fail("layers of media type '{}' are not supported", printable(media_type));
}

Result<void> check_layout_marker(std::string_view json) {
  const auto document = parse_object(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  const auto version = required_string(*document, "imageLayoutVersion");
  if (!version) {
    return std::unexpected(version.error());
  }
  if (*version != kLayoutVersion) {
    return fail("layout version '{}' is not supported, only {}", printable(*version),
                kLayoutVersion);
  }
  return {};
}

Result<Index> parse_index(std::string_view json) {
  const auto document = parse_object(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  if (auto checked = check_kind(*document, "layers", &is_index); !checked) {
    return std::unexpected(checked.error());
  }
  const auto manifests = typed_member(*document, "manifests", Json::value_t::array, true);
  if (!manifests) {
    return std::unexpected(manifests.error());
  }
  if ((*manifests)->size() > kMaxIndexEntries) {
    return fail("the index has more than {} entries", kMaxIndexEntries);
  }
  Index index;
  for (const Json& element : **manifests) {
    auto entry = parse_index_entry(element);
    if (!entry) {
      return std::unexpected(entry.error());
    }
    index.entries.push_back(std::move(*entry));
  }
  return index;
}

Result<Manifest> parse_manifest(std::string_view json) {
  const auto document = parse_object(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  if (auto checked = check_kind(*document, "manifests", &is_manifest); !checked) {
    return std::unexpected(checked.error());
  }
  const auto config = typed_member(*document, "config", Json::value_t::object, true);
  if (!config) {
    return std::unexpected(config.error());
  }
  auto config_descriptor = parse_descriptor(**config);
  if (!config_descriptor) {
    return std::unexpected(config_descriptor.error());
  }
  const auto layers = typed_member(*document, "layers", Json::value_t::array, true);
  if (!layers) {
    return std::unexpected(layers.error());
  }
  if ((*layers)->size() > kMaxLayers) {
    return fail("the image has {} layers, more than the {} that are supported", (*layers)->size(),
                kMaxLayers);
  }
  Manifest manifest{.config = std::move(*config_descriptor), .layers = {}};
  for (const Json& element : **layers) {
    auto layer = parse_descriptor(element);
    if (!layer) {
      return std::unexpected(layer.error());
    }
    manifest.layers.push_back(std::move(*layer));
  }
  return manifest;
}

}  // namespace msb::oci
