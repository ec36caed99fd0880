// SPDX-License-Identifier: Apache-2.0
#include "sandbox/tree_sink.hpp"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <optional>
#include <ranges>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "oci/printable.hpp"
#include "oci/tar_reader.hpp"

namespace msb::sandbox {

namespace {

using oci::FileType;
using oci::TarEntry;

// What may follow the end of the archive, so that a guest that goes on for ever is noticed: tar
// pads to 10 KiB.
constexpr std::uint64_t kMaxTrailer = std::uint64_t{1} << 20;

// Opens below `directory`, never through a symbolic link.
Fd open_beneath(int directory, const std::string& path, std::uint64_t flags, mode_t mode = 0) {
  open_how how{};
  how.flags = flags | O_CLOEXEC | O_NOFOLLOW;
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return Fd(static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how)));
}

// A name from the stream: the directory that it is in, and the name there; both empty for the
// top itself.
struct Place {
  std::string directory;
  std::string name;

  [[nodiscard]] bool is_top() const { return name.empty(); }
  [[nodiscard]] std::string path() const {
    return directory.empty() ? name : fmt::format("{}/{}", directory, name);
  }
};

Result<Place> parse_place(std::string_view path) {
  if (path.starts_with('/')) {
    return fail("the name is absolute");
  }
  if (path.size() >= PATH_MAX) {
    return fail("the name is longer than {} bytes", PATH_MAX - 1);
  }
  Place place;
  for (const auto part : std::views::split(path, '/')) {
    const std::string_view name(part.begin(), part.end());
    if (name.empty() || name == ".") {
      continue;
    }
    if (name == ".." || name.find('\0') != std::string_view::npos) {
      return fail("the name leads out of the directory");
    }
    place = Place{place.path(), std::string(name)};
  }
  return place;
}

// A directory that was made, whose mode and time are set once nothing more comes into it.
struct MadeDirectory {
  std::string path;
  oci::Metadata metadata;
};

class TreeSink {
 public:
  TreeSink(oci::TarReader& reader, int top, const UnpackOptions& options)
      : reader_(reader), top_(top), options_(options), mask_(::umask(0)) {
    ::umask(mask_);
  }

  Result<void> add(const TarEntry& entry);
  Result<void> finish();
  [[nodiscard]] Unpacked& done() { return done_; }

 private:
  // The directory of `place`, made when it is missing; valid until the next call.
  Result<int> parent_of(const Place& place);
  Result<void> make_parents(const std::string& path);
  Result<void> clear(int parent, const std::string& name);
  Result<void> add_directory(const TarEntry& entry, const Place& place);
  Result<void> add_file(const TarEntry& entry, const Place& place);
  Result<void> add_hard_link(const TarEntry& entry, const Place& place);
  Result<void> add_symlink(const TarEntry& entry, const Place& place);
  Result<void> write_content(const TarEntry& entry, int file);
  Result<void> set_metadata(int file, const oci::Metadata& metadata) const;

  oci::TarReader& reader_;
  const int top_;
  const UnpackOptions options_;
  const mode_t mask_;
  std::vector<MadeDirectory> made_;
  // The parent of the entry before, which most have too.
  Fd parent_;
  std::string parent_path_;
  Unpacked done_;
};

Result<void> TreeSink::add(const TarEntry& entry) {
  const auto place = parse_place(entry.entry.path);
  if (!place) {
    return std::unexpected(place.error());
  }
  ++done_.entries;
  if (entry.hard_link) {
    return add_hard_link(entry, *place);
  }
  switch (entry.entry.type) {
    case FileType::kDirectory:
      return add_directory(entry, *place);
    case FileType::kRegular:
      return add_file(entry, *place);
    case FileType::kSymlink:
      return add_symlink(entry, *place);
    default:
      if (done_.left_out++ == 0) {
        done_.first_left_out = entry.entry.path;
      }
      return {};
  }
}

Result<void> TreeSink::finish() {
  // What is below a directory comes before the directory that it needs to be searched for.
  for (const MadeDirectory& made : std::views::reverse(made_)) {
    const Fd directory =
        open_beneath(top_, made.path.empty() ? "." : made.path, O_RDONLY | O_DIRECTORY);
    auto set = directory ? set_metadata(directory.get(), made.metadata)
                         : Result<void>(fail_errno(errno, "cannot open it"));
    if (!set) {
      return std::unexpected(
          set.error().within(fmt::format("directory '{}'", oci::printable(made.path))));
    }
  }
  return {};
}

Result<int> TreeSink::parent_of(const Place& place) {
  if (parent_ && parent_path_ == place.directory) {
    return parent_.get();
  }
  const std::string path = place.directory.empty() ? "." : place.directory;
  Fd parent = open_beneath(top_, path, O_PATH | O_DIRECTORY);
  if (!parent && errno == ENOENT) {
    if (auto made = make_parents(place.directory); !made) {
      return std::unexpected(made.error());
    }
    parent = open_beneath(top_, path, O_PATH | O_DIRECTORY);
  }
  if (!parent) {
    return fail_errno(errno, "what it is in is no directory, or is reached by a symbolic link");
  }
  parent_ = std::move(parent);
  parent_path_ = place.directory;
  return parent_.get();
}

Result<void> TreeSink::make_parents(const std::string& path) {
  for (std::size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end == 0 ? 0 : end + 1);
    const auto place = parse_place(path.substr(0, end));
    const Fd above =
        open_beneath(top_, place->directory.empty() ? "." : place->directory, O_PATH | O_DIRECTORY);
    if (!above || (::mkdirat(above.get(), place->name.c_str(), 0777) != 0 && errno != EEXIST)) {
      return fail_errno(errno, "cannot make the directory that it is in");
    }
  }
  return {};
}

// Removes what has the name, unless it is a directory.
Result<void> TreeSink::clear(int parent, const std::string& name) {
  if (::unlinkat(parent, name.c_str(), 0) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot replace what has that name");
  }
  return {};
}

Result<void> TreeSink::add_directory(const TarEntry& entry, const Place& place) {
  if (place.is_top()) {
    if (options_.top) {
      made_.push_back({"", entry.entry.metadata});
    }
    return {};
  }
  const auto parent = parent_of(place);
  if (!parent) {
    return std::unexpected(parent.error());
  }
  if (::mkdirat(*parent, place.name.c_str(), 0700) == 0) {
    made_.push_back({place.path(), entry.entry.metadata});
    return {};
  }
  struct stat status{};
  if (errno != EEXIST ||
      ::fstatat(*parent, place.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return fail_errno(errno, "cannot make the directory");
  }
  if (!S_ISDIR(status.st_mode)) {
    return fail("something that is no directory has that name");
  }
  return {};
}

Result<void> TreeSink::add_file(const TarEntry& entry, const Place& place) {
  if (place.is_top()) {
    return fail("it has no name");
  }
  const auto parent = parent_of(place);
  if (!parent) {
    return std::unexpected(parent.error());
  }
  if (auto cleared = clear(*parent, place.name); !cleared) {
    return cleared;
  }
  const Fd file = open_beneath(*parent, place.name, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (!file) {
    return fail_errno(errno, "cannot make the file");
  }
  auto written = write_content(entry, file.get());
  if (written) {
    written = set_metadata(file.get(), entry.entry.metadata);
  }
  if (!written) {
    ::unlinkat(*parent, place.name.c_str(), 0);
  }
  return written;
}

Result<void> TreeSink::write_content(const TarEntry& entry, int file) {
  std::uint64_t end = 0;
  while (true) {
    const auto data = reader_.next_data();
    if (!data) {
      return std::unexpected(data.error());
    }
    if (!*data) {
      break;
    }
    std::span<const std::byte> left = (*data)->bytes;
    end = (*data)->offset;
    while (!left.empty()) {
      const ssize_t length = ::pwrite(file, left.data(), left.size(), static_cast<off_t>(end));
      if (length < 0) {
        return fail_errno(errno, "cannot write it");
      }
      end += static_cast<std::uint64_t>(length);
      left = left.subspan(static_cast<std::size_t>(length));
    }
  }
  if (end < entry.size && ::ftruncate(file, static_cast<off_t>(entry.size)) != 0) {
    return fail_errno(errno, "cannot make it {} bytes long", entry.size);
  }
  return {};
}

Result<void> TreeSink::add_symlink(const TarEntry& entry, const Place& place) {
  const std::string target(entry.entry.link_target);
  if (place.is_top() || target.empty() || target.size() >= PATH_MAX) {
    return fail("the symbolic link has no name or no target that this host could have");
  }
  const auto parent = parent_of(place);
  if (!parent) {
    return std::unexpected(parent.error());
  }
  if (auto cleared = clear(*parent, place.name); !cleared) {
    return cleared;
  }
  if (::symlinkat(target.c_str(), *parent, place.name.c_str()) != 0) {
    return fail_errno(errno, "cannot make the symbolic link");
  }
  return {};
}

// Of a symbolic link it is the link that gets another name (linkat(2) without AT_SYMLINK_FOLLOW).
Result<void> TreeSink::add_hard_link(const TarEntry& entry, const Place& place) {
  const auto target = parse_place(*entry.hard_link);
  if (!target) {
    return std::unexpected(target.error().within("its target"));
  }
  if (place.is_top() || target->is_top()) {
    return fail("the hard link has no name or no target");
  }
  const Fd from =
      open_beneath(top_, target->directory.empty() ? "." : target->directory, O_PATH | O_DIRECTORY);
  if (!from) {
    return fail_errno(errno, "cannot reach its target");
  }
  const auto parent = parent_of(place);
  if (!parent) {
    return std::unexpected(parent.error());
  }
  if (target->path() == place.path()) {
    return {};
  }
  if (auto cleared = clear(*parent, place.name); !cleared) {
    return cleared;
  }
  if (::linkat(from.get(), target->name.c_str(), *parent, place.name.c_str(), 0) != 0) {
    return fail_errno(errno, "cannot link it to '{}'", oci::printable(*entry.hard_link));
  }
  return {};
}

Result<void> TreeSink::set_metadata(int file, const oci::Metadata& metadata) const {
  if (options_.owners && ::geteuid() == 0 && ::fchown(file, metadata.uid, metadata.gid) != 0) {
    return fail_errno(errno, "cannot give it to user {}", metadata.uid);
  }
  const mode_t mode = metadata.permissions & 0777;
  if (::fchmod(file, options_.owners ? mode : mode & ~mask_) != 0) {
    return fail_errno(errno, "cannot set its mode");
  }
  const std::array<timespec, 2> times = {
      {{0, UTIME_OMIT}, {metadata.mtime_seconds, static_cast<long>(metadata.mtime_nanoseconds)}}};
  if (::futimens(file, times.data()) != 0) {
    return fail_errno(errno, "cannot set its time");
  }
  return {};
}

// So that what the sender says at the end, which may be that it failed, is heard.
Result<void> read_trailer(oci::PieceSource& tar) {
  std::uint64_t length = 0;
  return oci::for_each_piece(tar, [&](std::span<const std::byte> piece) -> Result<void> {
    length += piece.size();
    return length <= kMaxTrailer ? Result<void>()
                                 : fail("the sandbox goes on sending behind the end of the files");
  });
}

}  // namespace

Result<Unpacked> unpack_tree(oci::PieceSource& tar, int directory, const UnpackOptions& options) {
  oci::TarReader reader(tar);
  TreeSink sink(reader, directory, options);
  while (true) {
    const auto entry = reader.next_entry();
    if (!entry) {
      return std::unexpected(entry.error());
    }
    if (!*entry) {
      break;
    }
    if (auto added = sink.add(**entry); !added) {
      return std::unexpected(
          added.error().within(fmt::format("'{}'", oci::printable((*entry)->entry.path))));
    }
  }
  if (auto finished = sink.finish(); !finished) {
    return std::unexpected(finished.error());
  }
  if (auto ended = read_trailer(tar); !ended) {
    return std::unexpected(ended.error());
  }
  return std::move(sink.done());
}

}  // namespace msb::sandbox
