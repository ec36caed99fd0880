// SPDX-License-Identifier: Apache-2.0
#include "oci/store/layer_cache.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "oci/erofs_reader.hpp"
#include "oci/erofs_writer.hpp"
#include "oci/implied_directories.hpp"
#include "oci/store/draft.hpp"

namespace msb::oci {
namespace {

constexpr std::string_view kSuffix = ".erofs";

std::string version_name() {
  return fmt::format("erofs-v{}", kErofsWriterVersion);
}

std::string name_of(const Digest& diff_id) {
  return diff_id.hex() + std::string(kSuffix);
}

Fd open_file(int directory, const std::string& name) {
  return Fd(::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
}

}  // namespace

Result<LayerCache> LayerCache::open(const std::string& directory) {
  std::string path = directory + "/" + version_name();
  if (auto made = make_directories(path); !made) {
    return std::unexpected(made.error().within(fmt::format("layer cache '{}'", directory)));
  }
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    return fail_errno(errno, "layer cache '{}': cannot open the directory", directory);
  }
  remove_abandoned(fd.get());
  return LayerCache(std::move(path), std::move(fd));
}

Result<std::optional<Fd>> LayerCache::find(const Digest& diff_id) const {
  const std::string name = name_of(diff_id);
  for (;;) {
    Fd fd = open_file(directory_.get(), name);
    if (!fd) {
      if (errno == ENOENT) {
        return std::nullopt;
      }
      return fail_errno(errno, "layer cache '{}': cannot open '{}'", path_, name);
    }
    if (::flock(fd.get(), LOCK_SH) != 0) {
      return fail_errno(errno, "layer cache '{}': cannot lock '{}'", path_, name);
    }
    struct stat status{};
    if (::fstat(fd.get(), &status) == 0 && status.st_nlink == 0) {
      continue;  // deleted before it was locked
    }
    if (!is_whole_image(fd.get())) {
      // Only damage to the disk does that.
      ::unlinkat(directory_.get(), name.c_str(), 0);
      return std::nullopt;
    }
    return fd;
  }
}

Result<void> LayerCache::add(PieceSource& source, const Layer& layer,
                             const LayerLimits& limits) const {
  const auto context = [&](const Error& error) {
    return std::unexpected(error.within(fmt::format("layer cache '{}'", path_)));
  };
  const auto draft = Draft::create(directory_.get());
  if (!draft) {
    return context(draft.error());
  }
  if (const auto converted = convert_layer(source, layer, draft->fd(), limits); !converted) {
    return std::unexpected(converted.error());
  }
  if (auto published = draft->publish(name_of(layer.diff_id)); !published) {
    return context(published.error());
  }
  // The name, too, must survive a power cut.
  if (auto synced = sync_directory(directory_.get()); !synced) {
    return context(synced.error());
  }
  return {};
}

Result<Fd> LayerCache::open_layer(ImageSource& source, const Layer& layer,
                                  const LayerLimits& limits) const {
  auto present = find(layer.diff_id);
  if (!present) {
    return std::unexpected(present.error());
  }
  if (*present) {
    return std::move(**present);
  }
  const auto lock = MakerLock::acquire(directory_.get(), layer.diff_id.hex(), [] {});
  if (!lock) {
    return std::unexpected(lock.error().within(fmt::format("layer cache '{}'", path_)));
  }
  present = find(layer.diff_id);
  if (present && !*present) {
    const auto blob = source.blob(layer.blob);
    if (!blob) {
      return std::unexpected(blob.error());
    }
    if (auto added = add(**blob, layer, limits); !added) {
      return std::unexpected(added.error());
    }
    present = find(layer.diff_id);
  }
  if (!present) {
    return std::unexpected(present.error());
  }
  if (!*present) {
    return fail("layer cache '{}': '{}' was removed while it was made", path_,
                name_of(layer.diff_id));
  }
  return std::move(**present);
}

Result<std::vector<Fd>> LayerCache::open_layers(ImageSource& source, const Image& image,
                                                const LayerLimits& limits) const {
  std::vector<Fd> opened;
  for (const Layer& layer : image.layers) {
    auto fd = open_layer(source, layer, limits);
    if (!fd) {
      return std::unexpected(fd.error());
    }
    const auto opaque = has_opaque_root(fd->get());
    if (!opaque) {
      return std::unexpected(opaque.error().within(fmt::format("layer cache '{}'", path_)));
    }
    if (*opaque) {
      opened.clear();
    }
    opened.push_back(std::move(*fd));
  }
  auto directories = make_directory_layer(opened);
  if (!directories) {
    return std::unexpected(directories.error().within(fmt::format("layer cache '{}'", path_)));
  }
  if (*directories) {
    opened.push_back(std::move(**directories));
  }
  return opened;
}

bool LayerCache::in_use(const Digest& diff_id) const {
  const Fd fd = open_file(directory_.get(), name_of(diff_id));
  return fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0;
}

std::uint64_t LayerCache::size_of(const Digest& diff_id) const {
  struct stat status{};
  const bool found =
      ::fstatat(directory_.get(), name_of(diff_id).c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
  constexpr std::uint64_t kUnit = 512;  // stat(2), st_blocks
  return found ? static_cast<std::uint64_t>(status.st_blocks) * kUnit : 0;
}

Result<std::vector<Digest>> LayerCache::list() const {
  const auto names = list_names(directory_.get());
  if (!names) {
    return std::unexpected(names.error().within(fmt::format("layer cache '{}'", path_)));
  }
  std::vector<Digest> diff_ids;
  for (std::string_view name : *names) {
    if (!name.ends_with(kSuffix)) {
      continue;
    }
    name.remove_suffix(kSuffix.size());
    if (const auto digest = Digest::parse(fmt::format("sha256:{}", name)); digest) {
      diff_ids.push_back(*digest);
    }
  }
  return diff_ids;
}

Result<void> LayerCache::remove(const Digest& diff_id) const {
  const std::string name = name_of(diff_id);
  if (::unlinkat(directory_.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return fail_errno(errno, "layer cache '{}': cannot delete '{}'", path_, name);
  }
  return {};
}

Result<std::uint64_t> LayerCache::remove_other_versions() const {
  std::uint64_t bytes = 0;
  std::error_code error;
  const auto parent = std::filesystem::path(path_).parent_path();
  for (const auto& version : std::filesystem::directory_iterator(parent, error)) {
    const std::string name = version.path().filename();
    if (!name.starts_with("erofs-v") || name == version_name()) {
      continue;
    }
    for (const auto& file : std::filesystem::directory_iterator(version.path(), error)) {
      bytes += file.is_regular_file(error) ? file.file_size(error) : 0;
    }
    std::filesystem::remove_all(version.path(), error);
    if (error) {
      return fail("layer cache '{}': cannot delete '{}': {}", path_, version.path().string(),
                  error.message());
    }
  }
  return bytes;
}

}  // namespace msb::oci
