// SPDX-License-Identifier: Apache-2.0
// The image store: everything of images that is kept on this host, in one directory.
//
//   images.db        names, images and what belongs to them (catalog.hpp)
//   blobs/sha256/    manifests, configurations and layers as they came, by digest
//   layers/          layers as EROFS images, by diff ID (layer_cache.hpp), shared by all images
//   store.lock       held shared while files are added or opened, exclusively while they are
//   deleted
//
// Files are written and made durable before the database speaks of them, and deleted after it has
// stopped to. So a process can be killed, or the power fail, at any time: what is left then is
// files that no image has, which prune() finds.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "oci/blob_directory.hpp"
#include "oci/image.hpp"
#include "oci/store/catalog.hpp"
#include "oci/store/layer_cache.hpp"
#include "oci/store/progress.hpp"

namespace msb::oci {

struct ImportOptions {
  LayerLimits limits{};
  unsigned workers = 4;          // layers at once
  Progress* progress = nullptr;  // may be null
};

// What an import did.
struct Imported {
  Image image;
  std::uint64_t received = 0;  // bytes of blobs that were not there before
};

struct PruneOptions {
  bool all = false;      // also images with a name that no sandbox uses
  bool dry_run = false;  // only say what would go
};

struct PruneReport {
  std::vector<CatalogEntry> images;  // names, and images without one, that went
  std::uint64_t bytes = 0;           // on disk
  // Files stay where they were because an image is being added: the next prune takes them.
  bool postponed = false;
};

class Store {
 public:
  // Opens the store in the directory `home` (absolute), creating what is missing, mode 0700.
  static Result<Store> open(const std::string& home);

  // The entry of a name; nothing when it has none. `reference` is Reference::to_string()'s form.
  [[nodiscard]] Result<std::optional<CatalogEntry>> find(const std::string& reference);
  // The image whose manifest has this digest, or one that starts with these (at least six)
  // hexadecimal digits, with or without "sha256:". Nothing when the text is no such thing or there
  // is none; fails when several match.
  [[nodiscard]] Result<std::optional<CatalogEntry>> find_digest(std::string_view text);
  [[nodiscard]] Result<std::vector<CatalogEntry>> list();

  // The image, when all of its files are there: documents with the right content, blobs and
  // layers of the right length. Else nothing, and an import makes it whole.
  [[nodiscard]] Result<std::optional<Image>> load_complete(const CatalogEntry& entry);

  // The manifest and configuration of an image, verified.
  [[nodiscard]] Result<Image> load(const CatalogEntry& entry);

  // The image's layers, ready to be stacked (LayerCache::open_layers).
  [[nodiscard]] Result<std::vector<Fd>> open_layers(const Image& image);

  // Takes an image in: `target` is its manifest, or an index that leads to one. Layers are
  // converted while they are received, several at once; every byte is checked. Then it gets the
  // names (none: it is kept without one). Fails with a sentence that names the layer or document;
  // nothing of an unfinished layer stays.
  Result<Imported> import(ImageSource& source, const Descriptor& target,
                          const std::vector<std::string>& references, const ImportOptions& options);

  // Records the name for an image that is here, as import() would.
  Result<void> name(const std::string& reference, const Digest& target, const Image& image);

  // Forgets a name, and with its last name the image: its files go, but for those that other images
  // have or a sandbox uses.
  Result<PruneReport> remove(const CatalogEntry& entry);

  // Deletes images without a name, and all files that no image has. Waits for imports to end.
  Result<PruneReport> prune(const PruneOptions& options);

  [[nodiscard]] BlobDirectory& blobs() { return blobs_; }

  // A directory for files without a name, on the file system of the store.
  [[nodiscard]] int scratch() const { return blob_files_.get(); }

 private:
  Store(std::string home, Fd blob_files, BlobDirectory blobs, LayerCache layers, Catalog catalog)
      : home_(std::move(home)),
        blob_files_(std::move(blob_files)),
        blobs_(std::move(blobs)),
        layers_(std::move(layers)),
        catalog_(std::move(catalog)) {}

  [[nodiscard]] bool image_in_use(const CatalogParts& parts) const;
  Result<void> forget(const std::set<Digest>& manifests, PruneReport& report);
  Result<void> make_room(const std::set<Digest>& leaving, PruneReport& report);
  Result<void> delete_files(const CatalogParts& candidates, PruneReport& report);
  Result<void> delete_unneeded(const std::set<Digest>& blobs, const std::set<Digest>& diff_ids,
                               bool dry_run, PruneReport& report);

  std::string home_;
  Fd blob_files_;  // the directory blobs/sha256
  BlobDirectory blobs_;
  LayerCache layers_;
  Catalog catalog_;
};

}  // namespace msb::oci
