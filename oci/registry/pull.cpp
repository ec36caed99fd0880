// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/pull.hpp"

#include <memory>
#include <optional>
#include <utility>

namespace msb::oci {
namespace {

// A repository as a source of one image, whose first document is here already.
class RepositorySource final : public ImageSource {
 public:
  RepositorySource(const Registry& registry, const Document& first)
      : registry_(registry), first_(first) {}

  Result<std::string> document(const Descriptor& descriptor) override {
    if (descriptor.digest == first_.digest) {
      return first_.content;
    }
    // Manifests have an endpoint of their own (distribution-spec, "Pulling manifests").
    if (!is_manifest(descriptor.media_type) && !is_index(descriptor.media_type)) {
      return registry_.document(descriptor);
    }
    auto fetched = registry_.manifest(descriptor.digest.to_string());
    if (!fetched) {
      return std::unexpected(fetched.error());
    }
    if (auto checked = check_document(descriptor, fetched->content); !checked) {
      return std::unexpected(checked.error());
    }
    return std::move(fetched->content);
  }

  Result<std::unique_ptr<PieceSource>> blob(const Descriptor& descriptor) override {
    return registry_.blob(descriptor);
  }

 private:
  const Registry& registry_;
  const Document& first_;
};

// The image under this name as the store has it.
struct Present {
  Digest target;
  Image image;

  [[nodiscard]] Pulled pulled() && { return Pulled{target, std::move(image), 0, true}; }
};

Result<std::optional<Present>> find_present(Store& store, const Reference& reference) {
  const auto entry = store.find(reference.to_string());
  if (!entry) {
    return std::unexpected(entry.error());
  }
  if (!*entry) {
    return std::nullopt;
  }
  auto image = store.load_complete(**entry);
  if (!image) {
    return std::unexpected(image.error());
  }
  if (!*image) {
    return std::nullopt;
  }
  return Present{(*entry)->target, std::move(**image)};
}

Result<Pulled> pull_reference(Store& store, const Registry& registry, const Reference& reference,
                              const ImportOptions& options) {
  auto present = find_present(store, reference);
  if (!present) {
    return std::unexpected(present.error());
  }
  if (*present) {
    if (reference.digest) {
      return std::move(**present).pulled();
    }
    const auto head = registry.head(reference.tag_or_digest());
    if (!head) {
      return std::unexpected(head.error());
    }
    if (*head && (*head)->digest == (*present)->target) {
      return std::move(**present).pulled();
    }
  }
  const auto document = registry.manifest(reference.tag_or_digest());
  if (!document) {
    return std::unexpected(document.error());
  }
  if (*present && document->digest == (*present)->target) {
    return std::move(**present).pulled();
  }
  RepositorySource source(registry, *document);
  auto imported =
      store.import(source, {document->media_type, document->digest, document->content.size()},
                   {reference.to_string()}, options);
  if (!imported) {
    return std::unexpected(imported.error());
  }
  return Pulled{document->digest, std::move(imported->image), imported->received, false};
}

}  // namespace

Result<Pulled> pull(Store& store, const Registry& registry, const Reference& reference,
                    const ImportOptions& options) {
  auto pulled = pull_reference(store, registry, reference, options);
  if (!pulled) {
    return std::unexpected(pulled.error().within(fmt::format("image '{}'", reference.familiar())));
  }
  return pulled;
}

}  // namespace msb::oci
