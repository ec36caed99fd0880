// SPDX-License-Identifier: Apache-2.0
// The JSON documents of an image: index, manifest and configuration, in OCI's form (image-spec v1)
// and in Docker's (schema 2). Parsing is pure; who fetched a document has already checked its
// digest and size.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "oci/digest.hpp"

namespace msb::oci {

// Bounds on what a document may ask for. Registries refuse manifests over 4 MiB.
inline constexpr std::size_t kMaxDocumentSize = 4U << 20;  // bytes
inline constexpr std::size_t kMaxDocumentDepth = 64;       // nested objects and arrays
// overlayfs stacks 500 (OVL_MAX_STACK), and one may be ours (implied_directories.hpp).
inline constexpr std::size_t kMaxLayers = 499;
inline constexpr std::size_t kMaxIndexEntries = 4096;

// The platform of our guests, in the names of Go that images use (image-index.md, "platform").
inline constexpr std::string_view kOs = "linux";
inline constexpr std::string_view kArchitecture = "amd64";

// media-types.md
inline constexpr std::string_view kIndexMediaType = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kManifestMediaType = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kConfigMediaType = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kLayerMediaType = "application/vnd.oci.image.layer.v1.tar";
inline constexpr std::string_view kGzipLayerMediaType =
    "application/vnd.oci.image.layer.v1.tar+gzip";
inline constexpr std::string_view kZstdLayerMediaType =
    "application/vnd.oci.image.layer.v1.tar+zstd";

// annotations.md; the second is containerd's and Docker's, for the full reference.
inline constexpr std::string_view kRefNameAnnotation = "org.opencontainers.image.ref.name";
inline constexpr std::string_view kImageNameAnnotation = "io.containerd.image.name";

// How the bytes of a layer blob are packed.
enum class Compression { kNone, kGzip, kZstd };

// What the first bytes of a file say about it (RFC 1952, 2.3.1; RFC 8878, 3.1.1).
[[nodiscard]] Compression detect_compression(std::string_view first_bytes);

// Reference to a blob (descriptor.md).
struct Descriptor {
  std::string media_type;
  Digest digest;
  std::uint64_t size = 0;  // bytes
};

// An entry of an index (image-index.md, annotations.md). Absent fields are empty.
struct IndexEntry {
  Descriptor descriptor;
  std::string os;
  std::string architecture;
  std::string ref_name;    // kRefNameAnnotation
  std::string image_name;  // kImageNameAnnotation, in archives
};

// image-index.md
struct Index {
  std::vector<IndexEntry> entries;
};

// manifest.md
struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;  // lowest first
};

// One step of an image's making (config.md, "history"). Absent fields are empty.
struct HistoryEntry {
  std::string created;  // RFC 3339
  std::string created_by;
  std::string comment;
  bool empty_layer = false;
};

// config.md. Absent fields are empty.
struct ImageConfig {
  std::string os;
  std::string architecture;
  std::string created;  // RFC 3339
  std::string author;
  std::vector<std::string> env;  // "NAME=value"
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::string working_dir;
  std::string user;  // user[:group], names or numbers
  std::string stop_signal;
  std::vector<std::string> volumes;        // paths
  std::vector<std::string> exposed_ports;  // "80/tcp", "53/udp", "8080"
  std::map<std::string, std::string> labels;
  std::vector<HistoryEntry> history;  // lowest first
  std::vector<Digest> diff_ids;       // lowest layer first
};

// The platforms of an index, as an error message shows them.
[[nodiscard]] std::string list_platforms(const Index& index);

[[nodiscard]] bool is_index(std::string_view media_type);
[[nodiscard]] bool is_manifest(std::string_view media_type);

// Fails, by name, where a manifest's configuration says that it describes something else than an
// image: a chart, a plugin, a signature (image-spec, manifest.md, "Guidelines for Artifact Usage").
[[nodiscard]] Result<void> check_config_type(std::string_view media_type);

// Fails for what is not a layer of ours, by name: encrypted layers, foreign ("nondistributable")
// layers, artifacts.
[[nodiscard]] Result<Compression> layer_compression(std::string_view media_type);

// Accepts the content of a layout's `oci-layout` file (image-layout.md); fails for another version.
[[nodiscard]] Result<void> check_layout_marker(std::string_view json);

// Each fails with one sentence that names the field: not JSON, too large or too deep, a missing
// field, a wrong type, a number out of range, a bad digest, too many entries.
[[nodiscard]] Result<Index> parse_index(std::string_view json);
[[nodiscard]] Result<Manifest> parse_manifest(std::string_view json);
[[nodiscard]] Result<ImageConfig> parse_config(std::string_view json);

}  // namespace msb::oci
