// SPDX-License-Identifier: Apache-2.0
#include "oci/image_spec.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "oci/json_object.hpp"

namespace msb::oci {
namespace {

using Json = nlohmann::json;

// media-types.md, and Docker's distribution manifest schema 2.
constexpr std::array<std::string_view, 2> kIndexTypes = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
};
constexpr std::array<std::string_view, 2> kManifestTypes = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
};
constexpr std::array<std::pair<std::string_view, Compression>, 5> kLayerTypes = {{
    {"application/vnd.oci.image.layer.v1.tar", Compression::kNone},
    {"application/vnd.oci.image.layer.v1.tar+gzip", Compression::kGzip},
    {"application/vnd.oci.image.layer.v1.tar+zstd", Compression::kZstd},
    {"application/vnd.docker.image.rootfs.diff.tar", Compression::kNone},
    {"application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::kGzip},
}};

constexpr std::string_view kLayoutVersion = "1.0.0";
constexpr std::string_view kRefName = "org.opencontainers.image.ref.name";
constexpr std::uint64_t kMaxBlobSize = std::uint64_t{1}
                                       << 50;  // bytes; no registry takes a blob of a pebibyte
constexpr std::uint64_t kSchemaVersion = 2;
constexpr std::size_t kMaxStrings = 65536;  // in one array of strings

// The member `name` of `object`, or null where it is absent or JSON's null, which Docker writes for
// empty lists.
const Json* find(const Json& object, std::string_view name) {
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

Result<std::string> optional_string(const Json& object, std::string_view name) {
  const Json* value = find(object, name);
  if (value == nullptr) {
    return std::string();
  }
  if (!value->is_string()) {
    return fail("field '{}' is not a string", name);
  }
  const auto& text = value->get_ref<const std::string&>();
  if (text.find('\0') != std::string::npos) {
    return fail("field '{}' contains a zero byte", name);
  }
  return text;
}

Result<std::string> required_string(const Json& object, std::string_view name) {
  Result<std::string> text = optional_string(object, name);
  if (text && text->empty()) {
    return fail("field '{}' is missing", name);
  }
  return text;
}

// The member `name` if it is of `type`; absent counts as an empty value where `required` is false.
Result<const Json*> typed_member(const Json& object, std::string_view name, Json::value_t type,
                                 bool required) {
  const Json* value = find(object, name);
  if (value == nullptr) {
    if (required) {
      return fail("field '{}' is missing", name);
    }
    return nullptr;
  }
  if (value->type() != type) {
    return fail("field '{}' is not an {}", name, type == Json::value_t::array ? "array" : "object");
  }
  return value;
}

Result<std::vector<std::string>> string_list(const Json& object, std::string_view name) {
  const auto array = typed_member(object, name, Json::value_t::array, false);
  if (!array) {
    return std::unexpected(array.error());
  }
  std::vector<std::string> list;
  if (*array == nullptr) {
    return list;
  }
  if ((*array)->size() > kMaxStrings) {
    return fail("field '{}' has more than {} elements", name, kMaxStrings);
  }
  for (const Json& element : **array) {
    if (!element.is_string()) {
      return fail("field '{}' has an element that is not a string", name);
    }
    const auto& text = element.get_ref<const std::string&>();
    if (text.find('\0') != std::string::npos) {
      return fail("field '{}' has an element with a zero byte", name);
    }
    list.push_back(text);
  }
  return list;
}

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
  IndexEntry entry{
      .descriptor = std::move(*descriptor), .os = {}, .architecture = {}, .ref_name = {}};
  struct Member {
    std::string_view object;
    std::string_view name;
    std::string* into;
  };
  for (const Member& member : {Member{"platform", "os", &entry.os},
                               Member{"platform", "architecture", &entry.architecture},
                               Member{"annotations", kRefName, &entry.ref_name}}) {
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
    return fail("field 'mediaType' is '{}', which is another kind of document", *media_type);
  }
  if (document.contains(other)) {
    return fail(
        "the document is ambiguous: it has a field '{}' that belongs to another kind of document",
        other);
  }
  return {};
}

}  // namespace

bool is_index(std::string_view media_type) {
  return std::ranges::find(kIndexTypes, media_type) != kIndexTypes.end();
}

bool is_manifest(std::string_view media_type) {
  return std::ranges::find(kManifestTypes, media_type) != kManifestTypes.end();
}

Result<Compression> layer_compression(std::string_view media_type) {
  for (const auto& [name, compression] : kLayerTypes) {
    if (name == media_type) {
      return compression;
    }
  }
  return fail("layers of media type '{}' are not supported", media_type);
}

Result<void> check_layout_marker(std::string_view json) {
  const auto document = parse_json_object(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  const auto version = required_string(*document, "imageLayoutVersion");
  if (!version) {
    return std::unexpected(version.error());
  }
  if (*version != kLayoutVersion) {
    return fail("layout version '{}' is not supported, only {}", *version, kLayoutVersion);
  }
  return {};
}

Result<Index> parse_index(std::string_view json) {
  const auto document = parse_json_object(json);
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
  const auto document = parse_json_object(json);
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

Result<ImageConfig> parse_config(std::string_view json) {
  const auto document = parse_json_object(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  const auto rootfs = typed_member(*document, "rootfs", Json::value_t::object, true);
  if (!rootfs) {
    return std::unexpected(rootfs.error());
  }
  const auto diff_ids = string_list(**rootfs, "diff_ids");
  if (!diff_ids) {
    return std::unexpected(diff_ids.error());
  }
  ImageConfig config;
  for (const std::string& text : *diff_ids) {
    const auto digest = Digest::parse(text);
    if (!digest) {
      return std::unexpected(digest.error().within("field 'diff_ids'"));
    }
    config.diff_ids.push_back(*digest);
  }

  const auto execution = typed_member(*document, "config", Json::value_t::object, false);
  if (!execution) {
    return std::unexpected(execution.error());
  }
  static const Json kEmpty = Json::object();
  const Json& defaults = *execution == nullptr ? kEmpty : **execution;
  struct Text {
    const Json& object;
    std::string_view name;
    std::string* into;
  };
  for (const Text& field :
       {Text{*document, "os", &config.os}, Text{*document, "architecture", &config.architecture},
        Text{defaults, "WorkingDir", &config.working_dir}, Text{defaults, "User", &config.user},
        Text{defaults, "StopSignal", &config.stop_signal}}) {
    auto text = optional_string(field.object, field.name);
    if (!text) {
      return std::unexpected(text.error());
    }
    *field.into = std::move(*text);
  }
  struct List {
    std::string_view name;
    std::vector<std::string>* into;
  };
  for (const List& field : {List{"Env", &config.env}, List{"Entrypoint", &config.entrypoint},
                            List{"Cmd", &config.cmd}}) {
    auto list = string_list(defaults, field.name);
    if (!list) {
      return std::unexpected(list.error());
    }
    *field.into = std::move(*list);
  }
  return config;
}

}  // namespace msb::oci
