// SPDX-License-Identifier: Apache-2.0
// The JSON documents of an image: index, manifest and configuration, in OCI's form (image-spec v1)
// and in Docker's (schema 2). Parsing is pure; who fetched a document has already checked its
// digest and size.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "oci/digest.hpp"

namespace msb::oci {

// Bounds on what a document may ask for. Registries refuse manifests over 4 MiB.
inline constexpr std::size_t kMaxDocumentSize = 4U << 20;  // bytes
inline constexpr std::size_t kMaxDocumentDepth = 64;       // nested objects and arrays
inline constexpr std::size_t kMaxLayers = 500;
inline constexpr std::size_t kMaxIndexEntries = 4096;

// How the bytes of a layer blob are packed.
enum class Compression { kNone, kGzip, kZstd };

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
  std::string ref_name;  // org.opencontainers.image.ref.name
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

// The parts of config.md that running a container needs. Absent fields are empty.
struct ImageConfig {
  std::string os;
  std::string architecture;
  std::vector<std::string> env;  // "NAME=value"
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::string working_dir;
  std::string user;  // user[:group], names or numbers
  std::string stop_signal;
  std::vector<Digest> diff_ids;  // lowest layer first
};

[[nodiscard]] bool is_index(std::string_view media_type);
[[nodiscard]] bool is_manifest(std::string_view media_type);

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
