// SPDX-License-Identifier: Apache-2.0
#include "oci/store/lookup.hpp"

#include <utility>

#include "oci/printable.hpp"
#include "oci/reference.hpp"

namespace msb::oci {
namespace {

// An image that was pulled by a tag and is asked for by the digest that the tag stood for.
Result<std::optional<CatalogEntry>> find_by_target(Store& store, const Reference& reference) {
  auto entries = store.list();
  if (!entries) {
    return std::unexpected(entries.error());
  }
  for (CatalogEntry& entry : *entries) {
    const auto name = parse_reference(entry.reference);
    if (name && name->registry == reference.registry && name->repository == reference.repository &&
        (entry.target == *reference.digest || entry.manifest.digest == *reference.digest)) {
      return std::move(entry);
    }
  }
  return std::nullopt;
}

}  // namespace

Result<std::optional<CatalogEntry>> find_image(Store& store, const Settings& settings,
                                               std::string_view text) {
  const auto reference = resolve_reference(settings, text);
  if (reference) {
    auto entry = store.find(reference->to_string());
    if (!entry || *entry) {
      return entry;
    }
    if (reference->digest) {
      auto by_target = find_by_target(store, *reference);
      if (!by_target || *by_target) {
        return by_target;
      }
    }
  }
  auto by_digest = store.find_digest(text);
  if (by_digest && !*by_digest && !reference) {
    return std::unexpected(reference.error());
  }
  return by_digest;
}

Result<CatalogEntry> get_image(Store& store, const Settings& settings, std::string_view text) {
  auto entry = find_image(store, settings, text);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  if (!*entry) {
    return fail("there is no image '{}' here; pull it with `msb pull {}`", printable(text),
                printable(text));
  }
  return std::move(**entry);
}

}  // namespace msb::oci
