// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/registry.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "oci/printable.hpp"
#include "oci/reference.hpp"
#include "oci/registry/blob_source.hpp"
#include "oci/registry/header_fields.hpp"
#include "oci/registry/session.hpp"
#include "oci/registry/status.hpp"

namespace msb::oci {
namespace {

constexpr std::string_view kAcceptManifests =
    "Accept: application/vnd.oci.image.index.v1+json, "
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";
constexpr std::array<std::string_view, 2> kSchema1Types = {
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws"};
// A registry that cannot be asked without being sent for it.
constexpr std::array<long, 2> kNoHead = {kStatusMethodNotAllowed, kStatusNotImplemented};

struct ManifestRequest {
  RegistryRequest request;
  Reference reference;
};

// Fails for what is neither a tag nor a digest, so that nothing else gets into the path.
Result<ManifestRequest> manifest_request(const RegistrySession& session, HttpRequest::Method method,
                                         std::string_view tag_or_digest) {
  const bool is_digest = tag_or_digest.find(':') != std::string_view::npos;
  auto reference = parse_reference(fmt::format(
      "{}/{}{}{}", session.registry(), session.repository(), is_digest ? '@' : ':', tag_or_digest));
  if (!reference) {
    return std::unexpected(reference.error());
  }
  RegistryRequest request{
      .method = method,
      .path = fmt::format("/v2/{}/manifests/{}", session.repository(), reference->tag_or_digest()),
      .headers = {std::string(kAcceptManifests)},
      .subject = fmt::format("image '{}'", reference->to_string())};
  return ManifestRequest{std::move(request), std::move(*reference)};
}

// The header field Docker-Content-Digest where it is a SHA-256; other algorithms say nothing to us.
std::optional<Digest> digest_of(const HttpHead& head) {
  const std::string* field = head.find("docker-content-digest");
  const auto digest = field == nullptr ? std::nullopt : std::optional(Digest::parse(*field));
  return digest && *digest ? std::optional(**digest) : std::nullopt;
}

std::string content_type_of(const HttpHead& head) {
  const std::string* field = head.find("content-type");
  return field == nullptr ? std::string() : media_type_of(*field);
}

Result<void> check_media_type(const std::string& media_type) {
  if (is_index(media_type) || is_manifest(media_type)) {
    return {};
  }
  if (std::ranges::find(kSchema1Types, media_type) != kSchema1Types.end()) {
    return fail(
        "it exists only in Docker's manifest schema 1, which is too old to be verified; ask its "
        "maintainer to push it again");
  }
  return fail("it is of media type '{}', which is neither an image nor an index",
              printable(media_type));
}

// One attempt to fetch and verify a manifest.
Attempt<Document> fetch_manifest(RegistrySession& session, const ManifestRequest& wanted) {
  auto exchange = session.attempt(wanted.request);
  if (!exchange) {
    return std::unexpected(exchange.error());
  }
  const auto refuse = [&](const Error& error) {
    return std::unexpected(Failure{error.within(wanted.request.subject)});
  };
  const HttpHead& head = (*exchange)->head();
  std::string media_type = content_type_of(head);
  if (auto checked = check_media_type(media_type); !checked) {
    return refuse(checked.error());
  }
  auto content = (*exchange)->read_rest(kMaxDocumentSize);
  if (!content) {
    Failure failure = std::move(content.error());
    failure.error = failure.error.within(wanted.request.subject);
    return std::unexpected(std::move(failure));
  }
  const Digest digest = Digest::of(std::as_bytes(std::span(*content)));
  if (wanted.reference.digest && digest != *wanted.reference.digest) {
    return refuse(
        fail("what registry '{}' sends is {}", session.registry(), digest.to_string()).error());
  }
  if (const auto said = digest_of(head); said && *said != digest) {
    return refuse(fail("registry '{}' says that it is {}, but what it sends is {}",
                       session.registry(), said->to_string(), digest.to_string())
                      .error());
  }
  return Document{std::move(*content), std::move(media_type), digest};
}

}  // namespace

Result<Registry> Registry::create(const std::string& registry, const std::string& repository,
                                  RegistryOptions options) {
  const std::string name = registry + '/' + repository;
  const auto reference = parse_reference(name);
  if (!reference) {
    return std::unexpected(reference.error());
  }
  if (reference->registry != registry || reference->repository != repository) {
    return fail("'{}' is not the full name of a repository: that would be '{}/{}'", printable(name),
                reference->registry, reference->repository);
  }
  auto session = RegistrySession::create(registry, repository, std::move(options));
  if (!session) {
    return std::unexpected(session.error());
  }
  return Registry(std::move(*session));
}

Result<std::optional<ManifestHead>> Registry::head(std::string_view tag_or_digest) const {
  const auto wanted = manifest_request(*session_, HttpRequest::Method::kHead, tag_or_digest);
  if (!wanted) {
    return std::unexpected(wanted.error());
  }
  Retries retries = session_->retries();
  while (true) {
    const auto exchange = session_->attempt(wanted->request, kNoHead);
    if (!exchange) {
      if (auto waited = retries.wait_after(exchange.error()); !waited) {
        return std::unexpected(waited.error());
      }
      continue;
    }
    const HttpHead& answer = (*exchange)->head();
    const auto digest = digest_of(answer);
    if (answer.status != kStatusOk || !digest) {
      return std::nullopt;
    }
    std::string media_type = content_type_of(answer);
    if (auto checked = check_media_type(media_type); !checked) {
      return std::unexpected(checked.error().within(wanted->request.subject));
    }
    if (wanted->reference.digest && *digest != *wanted->reference.digest) {
      return fail("{}: registry '{}' says that it is {}", wanted->request.subject,
                  session_->registry(), digest->to_string());
    }
    const std::string* length = answer.find("content-length");
    const auto size = length == nullptr ? std::nullopt : parse_content_length(*length);
    return ManifestHead{*digest, std::move(media_type), size.value_or(0)};
  }
}

Result<Document> Registry::manifest(std::string_view tag_or_digest) const {
  const auto wanted = manifest_request(*session_, HttpRequest::Method::kGet, tag_or_digest);
  if (!wanted) {
    return std::unexpected(wanted.error());
  }
  Retries retries = session_->retries();
  while (true) {
    auto document = fetch_manifest(*session_, *wanted);
    if (document) {
      return std::move(*document);
    }
    if (auto waited = retries.wait_after(document.error()); !waited) {
      return std::unexpected(waited.error());
    }
  }
}

Result<std::string> Registry::document(const Descriptor& descriptor) const {
  const std::string name = descriptor.digest.to_string();
  if (descriptor.size > kMaxDocumentSize) {
    return fail("document {} is larger than {} bytes", name, kMaxDocumentSize);
  }
  const auto source = blob(descriptor);
  std::string content;
  content.reserve(static_cast<std::size_t>(descriptor.size));
  const auto read = for_each_piece(*source, [&](std::span<const std::byte> piece) {
    content.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    return Result<void>();
  });
  if (!read) {
    return std::unexpected(read.error());
  }
  const Digest found = Digest::of(std::as_bytes(std::span(content)));
  if (found != descriptor.digest) {
    return fail("document {} of '{}/{}' does not match its digest: its content is {}", name,
                session_->registry(), session_->repository(), found.to_string());
  }
  return content;
}

std::unique_ptr<PieceSource> Registry::blob(const Descriptor& descriptor) const {
  return std::make_unique<BlobSource>(session_, descriptor);
}

Result<bool> check_login(const std::string& registry, RegistryOptions options) {
  auto host = parse_registry_host(registry);
  if (!host) {
    return std::unexpected(host.error());
  }
  auto session = RegistrySession::create(*host, {}, std::move(options));
  if (!session) {
    return std::unexpected(session.error());
  }
  const RegistryRequest request{.method = HttpRequest::Method::kGet,
                                .path = "/v2/",
                                .headers = {},
                                .subject = fmt::format("the login at '{}'", *host)};
  constexpr std::array<long, 1> kExpected = {kStatusNotFound};
  Retries retries = (*session)->retries();
  while (true) {
    auto exchange = (*session)->attempt(request, kExpected);
    if (exchange) {
      if ((*exchange)->head().status == kStatusNotFound) {
        return fail("'{}' is not a registry: it has no /v2/", *host);
      }
      return (*session)->is_authorized();
    }
    if (auto waited = retries.wait_after(exchange.error()); !waited) {
      return std::unexpected(waited.error());
    }
  }
}

}  // namespace msb::oci
