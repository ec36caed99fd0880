// SPDX-License-Identifier: Apache-2.0
// One repository of a registry, to be pulled from (OCI distribution-spec v1.1, "Pull").
//
//   auto registry = Registry::create("docker.io", "library/python", options);
//   auto manifest = registry->manifest("3.12");         // verified
//   auto config = registry->document(descriptor);       // verified
//   auto layer = registry->blob(layer_descriptor);      // a stream; its reader verifies the digest
//
// A request is first made anonymously; when the registry asks for it, with a token or with
// credentials. Network errors, 408, 429 and 5xx are retried with growing delays.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"
#include "oci/image_spec.hpp"
#include "oci/piece_source.hpp"
#include "oci/registry/credentials.hpp"
#include "oci/settings.hpp"

namespace msb::oci {

struct RegistryOptions {
  Settings settings = default_settings();

  // Asked at most once, when the registry first wants to know who asks. Absent, or giving nothing:
  // everything is anonymous. When it fails, the pull goes on anonymously, and its failure becomes
  // part of the error if access is denied. For `msb pull`: DockerConfig::find.
  std::function<Result<std::optional<Credentials>>(const std::string& registry)> credentials;

  // As if the registry were in settings.insecure_registries: HTTPS without verification and, where
  // the registry does not speak TLS, plain HTTP; of its token server and redirects too.
  bool insecure = false;

  // A transfer that brings no byte for so long is cut and retried.
  std::chrono::milliseconds stall_timeout = std::chrono::seconds(30);

  // The first delay of a retry; each further one is twice as long. Tests make it short.
  std::chrono::milliseconds retry_delay = std::chrono::seconds(1);

  // Told what the user may want to know while waiting, one sentence each: "retrying in 4 s: ...".
  // Called from whatever thread asks the registry, from one at a time.
  std::function<void(const std::string& sentence)> notice;

  // Ends all waiting when a stop is requested: what is under way fails with "... was cancelled".
  std::stop_token stop;
};

// What a registry says about a manifest without sending it.
struct ManifestHead {
  Digest digest;
  std::string media_type;
  std::uint64_t size = 0;  // bytes; 0 when the registry does not say
};

// A manifest or index. `digest` is that of `content`.
struct Document {
  std::string content;
  std::string media_type;  // one that is_index() or is_manifest()
  Digest digest;
};

class RegistrySession;

// Safe to use from several threads at once; connections are kept and used again. Cheap to copy: all
// copies share connections and tokens.
class Registry {
 public:
  // Makes no request. Fails when `registry` (a Reference's) is no host, or `repository` no name.
  static Result<Registry> create(const std::string& registry, const std::string& repository,
                                 RegistryOptions options);

  // Asks with one HEAD request (and those that a token takes) what `tag_or_digest` is. Nothing when
  // the registry does not say, or not by SHA-256; then manifest() tells. Fails as manifest() does.
  [[nodiscard]] Result<std::optional<ManifestHead>> head(std::string_view tag_or_digest) const;

  // Fails when it does not exist or access is denied (one sentence, for registries do not always
  // tell the two apart), when it is larger than kMaxDocumentSize, neither an image nor an index, or
  // not of the digest that was asked for or that the registry says; and when the registry cannot be
  // reached, answers with errors or stalls, after retries.
  [[nodiscard]] Result<Document> manifest(std::string_view tag_or_digest) const;

  // A blob of at most kMaxDocumentSize, such as a configuration, with size and digest checked.
  [[nodiscard]] Result<std::string> document(const Descriptor& descriptor) const;

  // The bytes of a blob. A transfer that is cut or stalls goes on where it ended. next() fails at
  // the first byte beyond descriptor.size, when the blob ends before it, and as manifest() does.
  // The digest is the reader's to check. May outlive the Registry.
  [[nodiscard]] std::unique_ptr<PieceSource> blob(const Descriptor& descriptor) const;

 private:
  explicit Registry(std::shared_ptr<RegistrySession> session) : session_(std::move(session)) {}

  std::shared_ptr<RegistrySession> session_;
};

// Whether `registry` accepts options.credentials: for `msb login`. True when it does; false when it
// lets everybody in, so that they were not checked. Fails when it refuses them.
Result<bool> check_login(const std::string& registry, RegistryOptions options);

}  // namespace msb::oci
