// SPDX-License-Identifier: Apache-2.0
// Image references as Docker and OCI users write them, normalised and checked as Docker's
// distribution/reference does. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "oci/digest.hpp"

namespace msb::oci {

// The registry that names without one belong to.
inline constexpr std::string_view kDefaultRegistry = "docker.io";

// [REGISTRY/]REPOSITORY[:TAG][@DIGEST] in its full form: registry and repository are never empty,
// and at least one of tag and digest is there. Where both are, the digest says which image it is.
struct Reference {
  std::string registry;    // host or host:port; "docker.io" for Docker Hub
  std::string repository;  // "library/python"
  std::optional<std::string> tag;
  std::optional<Digest> digest;

  // "docker.io/library/python:3.12", "ghcr.io/a/b@sha256:...": parses to the same reference.
  [[nodiscard]] std::string to_string() const;
  // The short form that Docker shows, "python:3.12": parses to the same reference.
  [[nodiscard]] std::string familiar() const;
  // What a registry is asked for: the digest where there is one, else the tag.
  [[nodiscard]] std::string tag_or_digest() const;

  bool operator==(const Reference&) const = default;
};

// A name without registry is one of docker.io, one of a single component there is below library/,
// and without tag and digest the tag is "latest". Fails with a sentence that quotes the text and
// names the rule that it breaks; one that starts with "./", "../" or "/" is a path.
Result<Reference> parse_reference(std::string_view text);

// A registry as `login` and settings name it: host, host:port or [IPv6]:port, with the names of
// Docker Hub normalised to "docker.io". Fails with a sentence that quotes the text.
Result<std::string> parse_registry_host(std::string_view text);

// Where the name in `text` ends and its tag or digest starts: the position of the ':' or '@', or
// the length of the text.
[[nodiscard]] std::size_t end_of_name(std::string_view text);

}  // namespace msb::oci
