// SPDX-License-Identifier: Apache-2.0
// Taking an image into a store.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "oci/block_stream.hpp"
#include "oci/file_source.hpp"
#include "oci/store/draft.hpp"
#include "oci/store/store.hpp"
#include "oci/store/store_lock.hpp"

namespace msb::oci {
namespace {

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Passes pieces on, writes them into a file as well unless that is negative, and asks with their
// number whether to go on.
class WatchedSource final : public PieceSource {
 public:
  using OnBytes = std::function<Result<void>(std::uint64_t)>;

  WatchedSource(PieceSource& source, int copy, OnBytes on_bytes)
      : source_(source), copy_(copy), on_bytes_(std::move(on_bytes)) {}

  Result<std::span<const std::byte>> next() override {
    auto piece = source_.next();
    if (!piece) {
      return piece;
    }
    if (copy_ >= 0) {
      if (auto written = write_at(copy_, *piece, size_); !written) {
        return std::unexpected(written.error());
      }
    }
    size_ += piece->size();
    if (auto watched = on_bytes_(size_); !watched) {
      return std::unexpected(watched.error());
    }
    return piece;
  }

 private:
  PieceSource& source_;
  int copy_;
  OnBytes on_bytes_;
  std::uint64_t size_ = 0;
};

// Documents from the store where it has them, else from elsewhere, and then the store has them.
class KeptDocuments final : public ImageSource {
 public:
  KeptDocuments(ImageSource& source, BlobDirectory& kept, int directory)
      : source_(source), kept_(kept), directory_(directory) {}

  Result<std::string> document(const Descriptor& descriptor) override {
    const std::string name = descriptor.digest.hex();
    if (::faccessat(directory_, name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
      if (auto content = kept_.document(descriptor); content) {
        return content;
      }
      // Only damage to the disk, or another descriptor with this digest, does that.
      ::unlinkat(directory_, name.c_str(), 0);
    }
    auto content = source_.document(descriptor);
    if (!content) {
      return content;
    }
    const auto draft = Draft::create(directory_);
    if (!draft) {
      return std::unexpected(draft.error());
    }
    if (auto written = write_at(draft->fd(), std::as_bytes(std::span(*content)), 0); !written) {
      return std::unexpected(written.error());
    }
    if (auto published = draft->publish(name); !published) {
      return std::unexpected(published.error());
    }
    return content;
  }

  Result<std::unique_ptr<PieceSource>> blob(const Descriptor& descriptor) override {
    return source_.blob(descriptor);
  }

 private:
  ImageSource& source_;
  BlobDirectory& kept_;
  int directory_;
};

// The layers of one image on their way into the store, several at once.
class LayerImport {
 public:
  LayerImport(ImageSource& source, BlobDirectory& blobs, int directory, const LayerCache& cache,
              const std::vector<Layer>& layers, const ImportOptions& options)
      : source_(source),
        blobs_(blobs),
        directory_(directory),
        cache_(cache),
        layers_(layers),
        options_(options) {}

  // Gives the bytes that were received. After the first failure no layer is begun any more.
  Result<std::uint64_t> run() {
    if (options_.progress != nullptr) {
      options_.progress->begin(layers_);
    }
    const auto count = std::min<std::size_t>(std::max(1U, options_.workers), layers_.size());
    {
      std::vector<std::jthread> workers;
      for (std::size_t i = 1; i < count; ++i) {
        workers.emplace_back([this] { work(); });
      }
      work();
    }
    if (failed_) {
      return std::unexpected(*failure_);
    }
    return received_.load();
  }

 private:
  void work() {
    for (std::size_t i = next_++; i < layers_.size() && !failed_; i = next_++) {
      const auto imported = import_layer(i);
      if (imported) {
        continue;
      }
      const std::lock_guard lock(failure_mutex_);
      if (!failed_) {
        failure_ = imported.error();
        failed_ = true;
      }
    }
  }

  Result<void> import_layer(std::size_t index);
  Result<void> receive(std::size_t index);
  Result<void> convert_kept(std::size_t index, Fd blob);
  // The blob that is kept, or nothing.
  [[nodiscard]] Result<std::optional<Fd>> kept_blob(const Layer& layer) const;

  // What watches a layer on its way: when another one has failed, this one stops.
  WatchedSource::OnBytes watch(std::size_t index) {
    return [this, index](std::uint64_t received) -> Result<void> {
      if (failed_) {
        return fail("another layer failed");
      }
      report(index,
             received < layers_[index].blob.size ? LayerState::kReceiving : LayerState::kStoring,
             received);
      return {};
    };
  }

  void report(std::size_t index, LayerState state, std::uint64_t received = 0) {
    if (options_.progress != nullptr) {
      options_.progress->update(index, state, received);
    }
  }

  ImageSource& source_;
  BlobDirectory& blobs_;
  int directory_;
  const LayerCache& cache_;
  const std::vector<Layer>& layers_;
  const ImportOptions& options_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::uint64_t> received_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex failure_mutex_;
  std::optional<Error> failure_;
};

Result<std::optional<Fd>> LayerImport::kept_blob(const Layer& layer) const {
  auto blob = blobs_.open(layer.blob);
  if (blob) {
    return std::move(*blob);
  }
  if (blob.error().code != ENOENT) {
    // It has another length than it had, or is no file: damage, or meddling.
    const std::string name = layer.blob.digest.hex();
    if (::unlinkat(directory_, name.c_str(), 0) != 0 && errno != ENOENT) {
      return std::unexpected(blob.error());
    }
  }
  return std::nullopt;
}

Result<void> LayerImport::import_layer(std::size_t index) {
  const Layer& layer = layers_[index];
  const auto is_here = [&]() -> Result<bool> {
    const auto blob = kept_blob(layer);
    if (!blob) {
      return std::unexpected(blob.error());
    }
    const auto image = cache_.find(layer.diff_id);
    if (!image) {
      return std::unexpected(image.error());
    }
    return *blob && *image;
  };
  auto here = is_here();
  if (here && !*here) {
    const auto lock = MakerLock::acquire(directory_, layer.blob.digest.hex(),
                                         [&] { report(index, LayerState::kElsewhere); });
    if (!lock) {
      return std::unexpected(lock.error());
    }
    here = is_here();
    if (here && !*here) {
      auto blob = kept_blob(layer);
      if (!blob) {
        return std::unexpected(blob.error());
      }
      return *blob ? convert_kept(index, std::move(**blob)) : receive(index);
    }
  }
  if (!here) {
    return std::unexpected(here.error());
  }
  report(index, LayerState::kPresent, layer.blob.size);
  return {};
}

Result<void> LayerImport::receive(std::size_t index) {
  const Layer& layer = layers_[index];
  report(index, LayerState::kReceiving);
  const auto blob = source_.blob(layer.blob);
  if (!blob) {
    return std::unexpected(blob.error());
  }
  const auto draft = Draft::create(directory_);
  if (!draft) {
    return std::unexpected(draft.error());
  }
  WatchedSource recorded(**blob, draft->fd(), watch(index));
  if (auto added = cache_.add(recorded, layer, options_.limits); !added) {
    return added;
  }
  if (auto published = draft->publish(layer.blob.digest.hex()); !published) {
    return published;
  }
  received_ += layer.blob.size;
  report(index, LayerState::kDone, layer.blob.size);
  return {};
}

Result<void> LayerImport::convert_kept(std::size_t index, Fd blob) {
  const Layer& layer = layers_[index];
  report(index, LayerState::kReceiving);
  FileSource file(std::move(blob));
  WatchedSource counted(file, /*copy=*/-1, watch(index));
  auto added = cache_.add(counted, layer, options_.limits);
  if (!added && added.error().code == 0) {
    // It was whole when it was stored, so the disk has damaged it; the next attempt fetches it.
    ::unlinkat(directory_, layer.blob.digest.hex().c_str(), 0);
  }
  if (!added) {
    return added;
  }
  report(index, LayerState::kDone, layer.blob.size);
  return {};
}

}  // namespace

Result<Imported> Store::import(ImageSource& source, const Descriptor& target,
                               const std::vector<std::string>& references,
                               const ImportOptions& options) {
  const auto lock = StoreLock::acquire(home_, StoreLock::Kind::kShared);
  if (!lock) {
    return std::unexpected(lock.error());
  }
  const auto manifest = find_manifest(source, target);
  if (!manifest) {
    return std::unexpected(manifest.error());
  }
  KeptDocuments documents(source, blobs_, blob_files_.get());
  auto image = load_image(documents, *manifest);
  if (!image) {
    return std::unexpected(image.error());
  }
  const auto received =
      LayerImport(source, blobs_, blob_files_.get(), layers_, image->layers, options).run();
  if (!received) {
    return std::unexpected(received.error());
  }
  if (auto synced = sync_directory(blob_files_.get()); !synced) {
    return std::unexpected(synced.error());
  }
  if (references.empty()) {
    if (auto named = name("", target.digest, *image); !named) {
      return std::unexpected(named.error());
    }
  }
  for (const std::string& reference : references) {
    if (auto named = name(reference, target.digest, *image); !named) {
      return std::unexpected(named.error());
    }
  }
  return Imported{std::move(*image), *received};
}

Result<void> Store::name(const std::string& reference, const Digest& target, const Image& image) {
  return catalog_.record(reference, target, image, now());
}

}  // namespace msb::oci
