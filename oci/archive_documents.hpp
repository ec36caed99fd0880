// SPDX-License-Identifier: Apache-2.0
// The index of an archive that `docker save` writes: manifest.json (Docker image specification
// v1.2, "Combined Image JSON + Filesystem Changeset Format"). Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "oci/image.hpp"

namespace msb::oci {

// One image of the archive; paths are entries of the archive.
struct DockerArchiveImage {
  std::string config;
  std::vector<std::string> names;   // NAME:TAG, as they were written
  std::vector<std::string> layers;  // lowest first
};

// Fails with a sentence that names the field.
Result<std::vector<DockerArchiveImage>> parse_docker_archive(std::string_view json);

// The file above. Every image must have a configuration.
std::string write_docker_archive(const std::vector<DockerArchiveImage>& images);

// A manifest (manifest.md) for an image that came without one. Equal parts give equal bytes.
std::string write_manifest(const Descriptor& config, const std::vector<Descriptor>& layers);

// An image layout's index.json (image-layout.md) for images with full references, and its tags.
struct NamedManifest {
  Descriptor manifest;
  std::string reference;  // empty for none
  std::string tag;        // empty for none
};
std::string write_layout_index(const std::vector<NamedManifest>& manifests);
std::string write_layout_marker();

}  // namespace msb::oci
