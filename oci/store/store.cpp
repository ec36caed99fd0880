// SPDX-License-Identifier: Apache-2.0
#include "oci/store/store.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "oci/store/draft.hpp"
#include "oci/store/store_lock.hpp"

namespace msb::oci {
namespace {

constexpr std::size_t kMinDigits = 6;  // of a digest, to name an image by

std::uint64_t disk_size(int directory, const std::string& name) {
  struct stat status{};
  constexpr std::uint64_t kUnit = 512;  // stat(2), st_blocks
  return ::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0
             ? static_cast<std::uint64_t>(status.st_blocks) * kUnit
             : 0;
}

// Digests that images need.
struct Needed {
  std::set<Digest> blobs;
  std::set<Digest> diff_ids;

  void add(const CatalogParts& parts) {
    blobs.insert(parts.documents.begin(), parts.documents.end());
    for (const CatalogLayer& layer : parts.layers) {
      blobs.insert(layer.blob);
      diff_ids.insert(layer.diff_id);
    }
  }
};

Result<Needed> needed_by(Catalog& catalog, const std::vector<CatalogEntry>& entries) {
  Needed needed;
  for (const CatalogEntry& entry : entries) {
    const auto parts = catalog.parts(entry.manifest.digest);
    if (!parts) {
      return std::unexpected(parts.error());
    }
    needed.add(*parts);
  }
  return needed;
}

}  // namespace

Result<Store> Store::open(const std::string& home) {
  const auto context = [&](const Error& error) {
    return std::unexpected(error.within(fmt::format("image store '{}'", home)));
  };
  const std::string blob_path = home + "/blobs/sha256";
  if (auto made = make_directories(blob_path); !made) {
    return context(made.error());
  }
  Fd directory(::open(home.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  Fd blob_files(::open(blob_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || !blob_files) {
    return fail_errno(errno, "image store '{}': cannot open the directory", home);
  }
  remove_abandoned(blob_files.get());
  auto layers = LayerCache::open(home + "/layers");
  if (!layers) {
    return std::unexpected(layers.error());
  }
  auto catalog = Catalog::open(home + "/images.db");
  if (!catalog) {
    return std::unexpected(catalog.error());
  }
  return Store(home, std::move(blob_files), BlobDirectory(std::move(directory)), std::move(*layers),
               std::move(*catalog));
}

Result<std::optional<CatalogEntry>> Store::find(const std::string& reference) {
  return catalog_.find(reference);
}

Result<std::optional<CatalogEntry>> Store::find_digest(std::string_view text) {
  constexpr std::string_view kPrefix = "sha256:";
  if (text.starts_with(kPrefix)) {
    text.remove_prefix(kPrefix.size());
  }
  if (text.size() < kMinDigits || text.size() > 2 * Digest::kSize ||
      text.find_first_not_of("0123456789abcdef") != std::string_view::npos) {
    return std::nullopt;
  }
  auto entries = catalog_.find_prefix(text);
  if (!entries) {
    return std::unexpected(entries.error());
  }
  if (entries->empty()) {
    return std::nullopt;
  }
  const Digest& first = entries->front().manifest.digest;
  if (!std::ranges::all_of(
          *entries, [&](const CatalogEntry& entry) { return entry.manifest.digest == first; })) {
    return fail("several images have a digest that starts with {}: give more of it", text);
  }
  return std::move(entries->front());
}

Result<std::vector<CatalogEntry>> Store::list() {
  return catalog_.list();
}

Result<std::optional<Image>> Store::load_complete(const CatalogEntry& entry) {
  auto image = load_image(blobs_, entry.manifest);
  if (!image) {
    return std::nullopt;
  }
  for (const Layer& layer : image->layers) {
    const auto converted = layers_.find(layer.diff_id);
    if (!converted) {
      return std::unexpected(converted.error());
    }
    if (!*converted || !blobs_.open(layer.blob)) {
      return std::nullopt;
    }
  }
  return std::move(*image);
}

Result<Image> Store::load(const CatalogEntry& entry) {
  auto image = load_image(blobs_, entry.manifest);
  if (!image) {
    return std::unexpected(image.error().within(fmt::format(
        "image '{}' cannot be used; pull it again",
        entry.reference.empty() ? entry.manifest.digest.to_string() : entry.reference)));
  }
  return image;
}

Result<std::vector<Fd>> Store::open_layers(const Image& image) {
  const auto lock = StoreLock::acquire(home_, StoreLock::Kind::kShared);
  if (!lock) {
    return std::unexpected(lock.error());
  }
  return layers_.open_layers(blobs_, image);
}

// A running sandbox holds the locks of the layers that it stacks; the topmost is always one of
// them.
bool Store::image_in_use(const CatalogParts& parts) const {
  return !parts.layers.empty() && layers_.in_use(parts.layers.back().diff_id);
}

Result<PruneReport> Store::remove(const CatalogEntry& entry) {
  PruneReport report;
  // Before the names go, so that nobody adds the image's files again in between.
  const auto lock = StoreLock::acquire(home_, StoreLock::Kind::kExclusiveNow);
  if (!lock && lock.error().code != EWOULDBLOCK) {
    return std::unexpected(lock.error());
  }
  const auto parts = catalog_.parts(entry.manifest.digest);
  const auto names = catalog_.find_manifest(entry.manifest.digest);
  if (!parts || !names) {
    return std::unexpected(parts ? names.error() : parts.error());
  }
  const bool last = names->size() <= 1 || entry.reference.empty();
  auto forgotten = !last  ? catalog_.remove_name(entry.reference)
                   : lock ? forget({entry.manifest.digest}, report)
                          : catalog_.remove_image(entry.manifest.digest);
  if (!forgotten) {
    return std::unexpected(forgotten.error());
  }
  report.images.push_back(entry);
  if (!last) {
    return report;
  }
  if (!lock) {
    report.postponed = true;
    return report;
  }
  if (auto deleted = delete_files(*parts, report); !deleted) {
    return std::unexpected(deleted.error());
  }
  return report;
}

// Takes images out of the index, with the exclusive lock held. The index needs some room even to
// shrink, and on a full disk that must not be why nothing can be deleted.
Result<void> Store::forget(const std::set<Digest>& manifests, PruneReport& report) {
  for (const Digest& manifest : manifests) {
    auto removed = catalog_.remove_image(manifest);
    if (!removed && removed.error().code == ENOSPC) {
      removed = make_room(manifests, report);
      removed = removed ? catalog_.remove_image(manifest) : removed;
    }
    if (!removed) {
      return removed;
    }
  }
  return {};
}

// Deletes the converted layers that only these images have and no sandbox uses. Should an image
// stay after all, they are made again from its blobs.
Result<void> Store::make_room(const std::set<Digest>& leaving, PruneReport& report) {
  const auto entries = catalog_.list();
  if (!entries) {
    return std::unexpected(entries.error());
  }
  Needed going;
  Needed staying;
  for (const CatalogEntry& entry : *entries) {
    const auto parts = catalog_.parts(entry.manifest.digest);
    if (!parts) {
      return std::unexpected(parts.error());
    }
    (leaving.contains(entry.manifest.digest) ? going : staying).add(*parts);
  }
  for (const Digest& diff_id : going.diff_ids) {
    if (!staying.diff_ids.contains(diff_id) && !layers_.in_use(diff_id)) {
      report.bytes += layers_.size_of(diff_id);
      if (auto removed = layers_.remove(diff_id); !removed) {
        return removed;
      }
    }
  }
  return {};
}

// Deletes those of an image's files that no other image has and no sandbox uses.
Result<void> Store::delete_files(const CatalogParts& candidates, PruneReport& report) {
  const auto entries = catalog_.list();
  if (!entries) {
    return std::unexpected(entries.error());
  }
  const auto needed = needed_by(catalog_, *entries);
  if (!needed) {
    return std::unexpected(needed.error());
  }
  Needed going;
  going.add(candidates);
  for (const Digest& blob : going.blobs) {
    if (!needed->blobs.contains(blob)) {
      report.bytes += disk_size(blob_files_.get(), blob.hex());
      if (::unlinkat(blob_files_.get(), blob.hex().c_str(), 0) != 0 && errno != ENOENT) {
        return fail_errno(errno, "cannot delete blob {}", blob.to_string());
      }
    }
  }
  for (const Digest& diff_id : going.diff_ids) {
    if (!needed->diff_ids.contains(diff_id) && !layers_.in_use(diff_id)) {
      report.bytes += layers_.size_of(diff_id);
      if (auto removed = layers_.remove(diff_id); !removed) {
        return removed;
      }
    }
  }
  return {};
}

Result<PruneReport> Store::prune(const PruneOptions& options) {
  PruneReport report;
  const auto lock = StoreLock::acquire(home_, StoreLock::Kind::kExclusive);
  if (!lock) {
    return std::unexpected(lock.error());
  }
  const auto entries = catalog_.list();
  if (!entries) {
    return std::unexpected(entries.error());
  }
  Needed needed;
  std::set<Digest> leaving;
  for (const CatalogEntry& entry : *entries) {
    const auto parts = catalog_.parts(entry.manifest.digest);
    if (!parts) {
      return std::unexpected(parts.error());
    }
    if ((options.all || entry.reference.empty()) && !image_in_use(*parts)) {
      report.images.push_back(entry);
      leaving.insert(entry.manifest.digest);
    } else {
      needed.add(*parts);
    }
  }
  if (!options.dry_run) {
    if (auto forgotten = forget(leaving, report); !forgotten) {
      return std::unexpected(forgotten.error());
    }
  }
  if (auto deleted = delete_unneeded(needed.blobs, needed.diff_ids, options.dry_run, report);
      !deleted) {
    return std::unexpected(deleted.error());
  }
  return report;
}

Result<void> Store::delete_unneeded(const std::set<Digest>& blobs, const std::set<Digest>& diff_ids,
                                    bool dry_run, PruneReport& report) {
  const auto files = list_names(blob_files_.get());
  if (!files) {
    return std::unexpected(files.error());
  }
  for (const std::string& name : *files) {
    // What is no blob at all does not belong here.
    const auto digest = Digest::parse("sha256:" + name);
    if (digest && blobs.contains(*digest)) {
      continue;
    }
    report.bytes += disk_size(blob_files_.get(), name);
    if (!dry_run && ::unlinkat(blob_files_.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
      return fail_errno(errno, "cannot delete blob '{}'", name);
    }
  }
  const auto layers = layers_.list();
  if (!layers) {
    return std::unexpected(layers.error());
  }
  for (const Digest& diff_id : *layers) {
    if (diff_ids.contains(diff_id) || layers_.in_use(diff_id)) {
      continue;
    }
    report.bytes += layers_.size_of(diff_id);
    if (dry_run) {
      continue;
    }
    if (auto removed = layers_.remove(diff_id); !removed) {
      return removed;
    }
  }
  if (!dry_run) {
    const auto others = layers_.remove_other_versions();
    if (!others) {
      return std::unexpected(others.error());
    }
    report.bytes += *others;
  }
  return {};
}

}  // namespace msb::oci
