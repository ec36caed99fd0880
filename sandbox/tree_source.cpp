// SPDX-License-Identifier: Apache-2.0
#include "sandbox/tree_source.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "sandbox/tar_writer.hpp"

namespace msb::sandbox {

namespace {

constexpr std::size_t kPiece = std::size_t{256} << 10;  // bytes

// The names in a directory, the first one last.
Result<std::vector<std::string>> read_names(int directory, const std::string& path) {
  Fd copy(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(copy ? ::fdopendir(copy.get()) : nullptr,
                                                   ::closedir);
  if (!stream) {
    return fail_errno(errno, "cannot read the directory '{}'", path);
  }
  [[maybe_unused]] const int owned = copy.release();
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) {
      break;
    }
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
  }
  if (errno != 0) {
    return fail_errno(errno, "cannot read the directory '{}'", path);
  }
  std::ranges::sort(names, std::greater());
  return names;
}

Result<std::string> read_target(int directory, const std::string& entry, const std::string& path) {
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlinkat(directory, entry.c_str(), target.data(), target.size());
  if (length < 0) {
    return fail_errno(errno, "cannot read the symbolic link '{}'", path);
  }
  return std::string(target.data(), static_cast<std::size_t>(length));
}

oci::FileType type_of(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return oci::FileType::kDirectory;
    case S_IFLNK:
      return oci::FileType::kSymlink;
    case S_IFIFO:
      return oci::FileType::kFifo;
    default:
      return oci::FileType::kRegular;
  }
}

}  // namespace

Result<TreeSource> TreeSource::open(const std::string& path, TreeOptions options) {
  TreeSource source(std::move(options));
  const std::string name = source.options_.name;
  auto begun = name.empty() ? source.enter(AT_FDCWD, path, path, "")
                            : source.add(AT_FDCWD, path, path, name);
  if (!begun) {
    return std::unexpected(begun.error());
  }
  return source;
}

Result<std::span<const std::byte>> TreeSource::next() {
  if (given_) {
    piece_.clear();
  }
  given_ = true;
  while (piece_.size() < kPiece && !ended_) {
    if (auto stepped = step(); !stepped) {
      return std::unexpected(stepped.error());
    }
  }
  return piece_;
}

Result<void> TreeSource::step() {
  if (file_) {
    return read_content();
  }
  while (!levels_.empty() && levels_.back().names.empty()) {
    levels_.pop_back();
  }
  if (levels_.empty()) {
    ended_ = true;
    append_tar_end(piece_);
    return {};
  }
  Level& level = levels_.back();
  const std::string entry = std::move(level.names.back());
  level.names.pop_back();
  return add(level.directory.get(), entry, fmt::format("{}/{}", level.path, entry),
             level.name + entry);
}

Result<void> TreeSource::add(int directory, const std::string& entry, const std::string& path,
                             const std::string& name) {
  struct stat status{};
  if (::fstatat(directory, entry.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return fail_errno(errno, "cannot look at '{}'", path);
  }
  switch (status.st_mode & S_IFMT) {
    case S_IFREG:
      return open_file(directory, entry, path, name);
    case S_IFDIR:
      add_header(status, name + "/", "");
      return enter(directory, entry, path, name + "/");
    case S_IFLNK: {
      const auto target = read_target(directory, entry, path);
      if (!target) {
        return std::unexpected(target.error());
      }
      add_header(status, name, *target);
      return {};
    }
    case S_IFIFO:
      add_header(status, name, "");
      return {};
    default:
      if (left_out_++ == 0) {
        first_left_out_ = path;
      }
      return {};
  }
}

Result<void> TreeSource::enter(int directory, const std::string& entry, const std::string& path,
                               std::string name) {
  Fd opened(::openat(directory, entry.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) {
    return fail_errno(errno, "cannot open the directory '{}'", path);
  }
  auto names = read_names(opened.get(), path);
  if (!names) {
    return std::unexpected(names.error());
  }
  levels_.push_back({std::move(opened), path, std::move(name), std::move(*names)});
  return {};
}

Result<void> TreeSource::open_file(int directory, const std::string& entry, const std::string& path,
                                   const std::string& name) {
  // Should it be something else by now, opening it must not wait.
  Fd opened(::openat(directory, entry.c_str(),
                     O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!opened) {
    return fail_errno(errno, "cannot open '{}'", path);
  }
  struct stat status{};
  if (::fstat(opened.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail("'{}' changed while it was copied", path);
  }
  file_ = std::move(opened);
  file_path_ = path;
  file_size_ = file_left_ = static_cast<std::uint64_t>(status.st_size);
  add_header(status, name, "");
  return {};
}

// Exactly as much as the header says.
Result<void> TreeSource::read_content() {
  const std::size_t before = piece_.size();
  const auto wanted =
      static_cast<std::size_t>(std::min<std::uint64_t>(file_left_, kPiece - before));
  piece_.resize(before + wanted);
  const ssize_t length = wanted == 0 ? 0 : ::read(file_.get(), piece_.data() + before, wanted);
  if (length < 0) {
    return fail_errno(errno, "cannot read '{}'", file_path_);
  }
  if (length == 0 && wanted > 0) {
    return fail("'{}' became shorter while it was copied", file_path_);
  }
  piece_.resize(before + static_cast<std::size_t>(length));
  file_left_ -= static_cast<std::uint64_t>(length);
  if (file_left_ == 0) {
    append_tar_padding(piece_, file_size_);
    file_.reset();
  }
  return {};
}

void TreeSource::add_header(const struct stat& status, const std::string& name,
                            const std::string& target) {
  TarFile file{.type = type_of(status.st_mode),
               .name = name,
               .link_target = target,
               .metadata = {.permissions = static_cast<std::uint16_t>(status.st_mode & 07777),
                            .uid = options_.owners ? status.st_uid : 0,
                            .gid = options_.owners ? status.st_gid : 0,
                            .mtime_seconds = status.st_mtim.tv_sec,
                            .mtime_nanoseconds = 0},
               .size = 0};
  if (options_.owners) {
    file.metadata.mtime_nanoseconds = static_cast<std::uint32_t>(status.st_mtim.tv_nsec);
  }
  if (file.type == oci::FileType::kRegular) {
    file.size = static_cast<std::uint64_t>(status.st_size);
  }
  append_tar_header(piece_, file);
}

}  // namespace msb::sandbox
