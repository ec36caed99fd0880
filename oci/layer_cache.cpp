// SPDX-License-Identifier: Apache-2.0
#include "oci/layer_cache.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <utility>

#include "oci/erofs_reader.hpp"
#include "oci/erofs_writer.hpp"

namespace msb::oci {
namespace {

constexpr mode_t kDirectoryMode = 0700;
constexpr mode_t kWritableMode = 0600;
constexpr mode_t kImageMode = 0400;
constexpr std::string_view kTemporaryPrefix = ".new-";

// Creates `path` and the missing directories above it.
Result<void> make_directories(const std::string& path) {
  for (auto slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string prefix = path.substr(0, slash);
    if (::mkdir(prefix.c_str(), kDirectoryMode) != 0 && errno != EEXIST) {
      return fail_errno(errno, "cannot create the directory '{}'", prefix);
    }
    if (slash == std::string::npos) {
      return {};
    }
  }
}

// An image while it is being made. Where the file system can, it has no name until publish();
// elsewhere it has a temporary one, locked as long as its maker lives.
class Draft {
 public:
  static Result<Draft> create(int directory);
  Draft(Draft&& other) noexcept
      : directory_(other.directory_),
        fd_(std::move(other.fd_)),
        name_(std::exchange(other.name_, {})) {}
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;
  Draft& operator=(Draft&&) = delete;
  ~Draft() {
    if (!name_.empty()) {
      ::unlinkat(directory_, name_.c_str(), 0);
    }
  }

  [[nodiscard]] int fd() const { return fd_.get(); }

  // Makes the content durable, then gives it `name`, unless that exists by now.
  Result<void> publish(const std::string& name) const;

 private:
  Draft(int directory, Fd fd, std::string name)
      : directory_(directory), fd_(std::move(fd)), name_(std::move(name)) {}

  int directory_;
  Fd fd_;
  std::string name_;  // empty when it has none
};

Result<Draft> Draft::create(int directory) {
  Fd unnamed(::openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, kWritableMode));
  if (unnamed) {
    return Draft(directory, std::move(unnamed), {});
  }
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) {
    return fail_errno(errno, "cannot create a file");
  }
  for (;;) {
    std::array<unsigned char, 8> random{};
    if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
      return fail_errno(errno, "cannot get random bytes");
    }
    std::string name = fmt::format("{}{:02x}", kTemporaryPrefix, fmt::join(random, ""));
    Fd named(
        ::openat(directory, name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, kWritableMode));
    if (!named) {
      if (errno == EEXIST) {
        continue;
      }
      return fail_errno(errno, "cannot create a file");
    }
    // remove_abandoned() of another process may have come between.
    struct stat status{};
    if (::flock(named.get(), LOCK_EX | LOCK_NB) == 0 && ::fstat(named.get(), &status) == 0 &&
        status.st_nlink > 0) {
      return Draft(directory, std::move(named), std::move(name));
    }
  }
}

Result<void> Draft::publish(const std::string& name) const {
  if (::fchmod(fd_.get(), kImageMode) != 0 || ::fsync(fd_.get()) != 0) {
    return fail_errno(errno, "cannot write the layer's image to disk");
  }
  const int linked = name_.empty()
                         ? ::linkat(AT_FDCWD, fmt::format("/proc/self/fd/{}", fd_.get()).c_str(),
                                    directory_, name.c_str(), AT_SYMLINK_FOLLOW)
                         : ::linkat(directory_, name_.c_str(), directory_, name.c_str(), 0);
  if (linked != 0 && errno != EEXIST) {
    return fail_errno(errno, "cannot create '{}'", name);
  }
  return {};
}

// Deletes drafts with names whose makers were killed.
void remove_abandoned(int directory) {
  Fd listing(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!listing) {
    return;
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(listing.get()), &::closedir);
  if (!stream) {
    return;
  }
  static_cast<void>(listing.release());
  while (const dirent* entry = ::readdir(stream.get())) {
    if (!std::string_view(entry->d_name).starts_with(kTemporaryPrefix)) {
      continue;
    }
    const Fd draft(
        ::openat(directory, entry->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (draft && ::flock(draft.get(), LOCK_EX | LOCK_NB) == 0) {
      ::unlinkat(directory, entry->d_name, 0);
    }
  }
}

// The finished image `name`, or nothing when there is none, or none that can be used.
Result<std::optional<Fd>> open_image(int directory, const std::string& name) {
  Fd fd(::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) {
    if (errno == ENOENT) {
      return std::nullopt;
    }
    return fail_errno(errno, "cannot open '{}'", name);
  }
  if (!is_whole_image(fd.get())) {
    // Only damage to the disk does that.
    ::unlinkat(directory, name.c_str(), 0);
    return std::nullopt;
  }
  return fd;
}

}  // namespace

Result<LayerCache> LayerCache::open(const std::string& directory) {
  std::string path = fmt::format("{}/erofs-v{}", directory, kErofsWriterVersion);
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

Result<Fd> LayerCache::open_layer(const Layout& layout, const Layer& layer,
                                  const LayerLimits& limits) const {
  const auto context = [&](const Error& error) {
    return std::unexpected(error.within(fmt::format("layer cache '{}'", path_)));
  };
  const std::string name = layer.diff_id.hex() + ".erofs";
  auto present = open_image(directory_.get(), name);
  if (!present) {
    return context(present.error());
  }
  if (*present) {
    return std::move(**present);
  }
  const auto blob = layout.open_blob(layer.blob);
  if (!blob) {
    return std::unexpected(blob.error());
  }
  const auto draft = Draft::create(directory_.get());
  if (!draft) {
    return context(draft.error());
  }
  if (const auto converted = convert_layer(blob->get(), layer, draft->fd(), limits); !converted) {
    return std::unexpected(converted.error());
  }
  if (auto published = draft->publish(name); !published) {
    return context(published.error());
  }
  // The name, too, must survive a power cut.
  if (::fsync(directory_.get()) != 0) {
    return context(Error{"cannot write the directory to disk", errno});
  }
  auto made = open_image(directory_.get(), name);
  if (!made) {
    return context(made.error());
  }
  if (!*made) {
    return fail("layer cache '{}': '{}' was removed while it was made", path_, name);
  }
  return std::move(**made);
}

Result<std::vector<Fd>> LayerCache::open_layers(const Layout& layout, const Image& image,
                                                const LayerLimits& limits) const {
  std::vector<Fd> opened;
  for (const Layer& layer : image.layers) {
    auto fd = open_layer(layout, layer, limits);
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
  return opened;
}

}  // namespace msb::oci
