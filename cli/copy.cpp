// SPDX-License-Identifier: Apache-2.0
#include "cli/copy.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "cli/byte_progress.hpp"
#include "cli/context.hpp"
#include "cli/copy_words.hpp"
#include "cli/output_file.hpp"
#include "cli/target.hpp"
#include "oci/file_source.hpp"
#include "oci/printable.hpp"
#include "protocol/msb_exec.h"
#include "sandbox/file_client.hpp"
#include "sandbox/tree_sink.hpp"
#include "sandbox/tree_source.hpp"

namespace msb::cli {

namespace {

using oci::printable;
using protocol::FileEntry;
using sandbox::FileClient;

constexpr const char* kStream = "-";
constexpr std::uint32_t kRoot = 0;

// What can be read only from where it is: a pipe.
class PipeSource final : public oci::PieceSource {
 public:
  explicit PipeSource(int fd) : fd_(fd), buffer_(kBuffer) {}

  Result<std::span<const std::byte>> next() override {
    ssize_t length = 0;
    while ((length = ::read(fd_, buffer_.data(), buffer_.size())) < 0) {
      if (errno != EINTR) {
        return fail_errno(errno, "cannot read standard input");
      }
    }
    return std::span(buffer_).first(static_cast<std::size_t>(length));
  }

 private:
  static constexpr std::size_t kBuffer = std::size_t{256} << 10;  // bytes

  int fd_;
  std::vector<std::byte> buffer_;
};

Result<void> write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t length = ::write(fd, bytes.data(), bytes.size());
    if (length < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot write {}", path);
    }
    bytes = bytes.subspan(length < 0 ? 0 : static_cast<std::size_t>(length));
  }
  return {};
}

CopyKind kind_of(mode_t mode) {
  return S_ISDIR(mode) ? CopyKind::kDirectory : CopyKind::kOther;
}

void tell_left_out(std::uint64_t count, const std::string& first) {
  if (count > 0) {
    complain(fmt::format("left out {} special file{}, such as '{}'", count, count == 1 ? "" : "s",
                         printable(first)));
  }
}

// One side of a copy: files in a sandbox.
class Guest {
 public:
  Guest(FileClient client, std::string name) : client_(std::move(client)), name_(std::move(name)) {}

  FileClient& client() { return client_; }
  // "web:/etc", as the user writes it.
  [[nodiscard]] std::string show(const std::string& path) const {
    return fmt::format("'{}:{}'", name_, printable(path));
  }
  [[nodiscard]] Error within(const Error& error, const std::string& path) const {
    return error.within(show(path));
  }
  // Nothing when there is no such file.
  Result<std::optional<FileEntry>> look(const std::string& path, bool follow) {
    auto entry = client_.stat(path, follow);
    if (entry) {
      return std::move(*entry);
    }
    if (entry.error().code == ENOENT) {
      return std::nullopt;
    }
    return std::unexpected(within(entry.error(), path));
  }

 private:
  FileClient client_;
  std::string name_;
};

Result<struct stat> look_at_host(const std::string& path, bool follow) {
  struct stat status{};
  if (::fstatat(AT_FDCWD, path.c_str(), &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) {
    return fail_errno(errno, "cannot look at '{}'", path);
  }
  return status;
}

// --- Into a sandbox ---

Result<CopyPlace> place_in_guest(Guest& guest, const CopyPath& source, CopyKind kind,
                                 const CopyPath& destination) {
  const auto there = guest.look(destination.path, /*follow=*/true);
  if (!there) {
    return std::unexpected(there.error());
  }
  const std::string shown = guest.show(destination.path);
  auto place =
      choose_copy_place(source, kind, destination,
                        *there ? kind_of((*there)->fields.mode) : CopyKind::kMissing, shown);
  if (!place || place->content) {
    return place;
  }
  // What the name stands for now, when it goes into a directory.
  const auto existing = guest.look(place->path, /*follow=*/false);
  if (!existing) {
    return std::unexpected(existing.error());
  }
  if (*existing && S_ISDIR((*existing)->fields.mode) != (kind == CopyKind::kDirectory)) {
    return fail("{} is {} directory", guest.show(place->path),
                kind == CopyKind::kDirectory ? "no" : "a");
  }
  return place;
}

// A missing parent is the user's mistake; the guest would make it.
Result<void> check_parent(Guest& guest, const std::string& path) {
  const std::string parent = directory_of(path);
  const auto there = guest.look(parent, /*follow=*/true);
  if (!there) {
    return std::unexpected(there.error());
  }
  if (!*there || !S_ISDIR((*there)->fields.mode)) {
    return fail("there is no directory {}", guest.show(parent));
  }
  return {};
}

Result<void> send_tar(Guest& guest, oci::PieceSource& tar, const std::string& directory,
                      bool archive) {
  ByteProgress progress(tar);
  const std::uint32_t owner = archive ? protocol::kSameOwner : kRoot;
  const auto sent =
      guest.client().unpack(directory, {.user = owner, .group = owner, .flags = 0}, progress);
  return sent ? Result<void>() : std::unexpected(guest.within(sent.error(), directory));
}

Result<void> send_file(Guest& guest, const std::string& source, const std::string& path,
                       bool archive) {
  // Should it be something else by now, opening it must not wait.
  Fd file(::open(source.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat status{};
  if (!file || ::fstat(file.get(), &status) != 0) {
    return fail_errno(errno, "cannot open '{}'", source);
  }
  const auto replaced = guest.look(path, /*follow=*/true);
  if (!replaced) {
    return std::unexpected(replaced.error());
  }
  // What is no regular file, as /dev/null, is written into.
  const bool special = *replaced && !S_ISREG((*replaced)->fields.mode);
  const std::uint32_t mode = status.st_mode & (archive ? 07777U : 0777U);
  const std::uint32_t user = archive ? status.st_uid : kRoot;
  const std::uint32_t group = archive ? status.st_gid : kRoot;
  oci::FileSource content(std::move(file));
  ByteProgress progress(content);
  const auto written = guest.client().write(path,
                                            {.mode = mode,
                                             .user = user,
                                             .group = group,
                                             .flags = special ? 0U : std::uint32_t{MSB_FILE_ATOMIC},
                                             .offset = 0},
                                            progress);
  auto done = written ? Result<void>() : std::unexpected(written.error());
  if (done && archive && *replaced && !special) {
    // It has taken those of the file that it replaced. The owner first: that changes the mode.
    done = guest.client().chown(path, user, group);
    if (done) {
      done = guest.client().chmod(path, mode);
    }
  }
  return done ? done : std::unexpected(guest.within(done.error(), path));
}

Result<void> send_tree(Guest& guest, const std::string& source, const CopyPlace& place,
                       bool into_existing, bool archive) {
  const bool content = place.content && into_existing;
  auto tree = sandbox::TreeSource::open(
      source, {.name = content ? "" : name_of(place.path), .owners = archive});
  if (!tree) {
    return std::unexpected(tree.error());
  }
  auto sent = send_tar(guest, *tree, content ? place.path : directory_of(place.path), archive);
  tell_left_out(tree->left_out(), tree->first_left_out());
  return sent;
}

// What `-L` makes of the source.
Result<std::string> resolve_host(const std::string& path, bool follow) {
  if (!follow) {
    return path;
  }
  const std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr),
                                                        std::free);
  if (!resolved) {
    return fail_errno(errno, "cannot follow '{}'", path);
  }
  return std::string(resolved.get());
}

Result<void> copy_in(Guest& guest, const CopyWords& words, const CopyPath& destination) {
  if (words.source == kStream) {
    PipeSource tar(STDIN_FILENO);
    return send_tar(guest, tar, destination.path, words.archive);
  }
  const CopyPath source = parse_copy_path(words.source);
  // A slash at the end of a link says that what it leads to is meant, as everywhere.
  const auto path = resolve_host(source.path, words.follow_link || source.directory);
  if (!path) {
    return std::unexpected(path.error());
  }
  const auto status = look_at_host(*path, /*follow=*/false);
  if (!status) {
    return std::unexpected(status.error());
  }
  if (!S_ISREG(status->st_mode) && !S_ISDIR(status->st_mode) && !S_ISLNK(status->st_mode)) {
    return fail("'{}' is neither a file, a directory nor a symbolic link", words.source);
  }
  const auto place = place_in_guest(guest, source, kind_of(status->st_mode), destination);
  if (!place) {
    return std::unexpected(place.error());
  }
  if (auto checked = check_parent(guest, place->path); !checked) {
    return checked;
  }
  if (S_ISREG(status->st_mode)) {
    return send_file(guest, *path, place->path, words.archive);
  }
  const auto existing = guest.look(place->path, /*follow=*/true);
  if (!existing) {
    return std::unexpected(existing.error());
  }
  return send_tree(guest, *path, *place, existing->has_value(), words.archive);
}

// --- Out of a sandbox ---

// The directory that a path leads to, also where that is a symbolic link.
std::string inside(const std::string& path) {
  return path == "/" ? path : path + "/.";
}

Result<void> receive_stream(Guest& guest, const std::string& path) {
  if (::isatty(STDOUT_FILENO) == 1) {
    return fail("a tar stream is nothing for a terminal: redirect it, or name a file");
  }
  const auto tar = guest.client().pack(path);
  auto written = oci::for_each_piece(*tar, [](std::span<const std::byte> piece) {
    return write_all(STDOUT_FILENO, piece, "to standard output");
  });
  return written ? written : std::unexpected(guest.within(written.error(), path));
}

mode_t file_mask() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return mask;
}

timespec time_of(std::int64_t nanoseconds) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  timespec time{nanoseconds / kSecond, nanoseconds % kSecond};
  if (time.tv_nsec < 0) {
    --time.tv_sec;
    time.tv_nsec += kSecond;
  }
  return time;
}

Result<void> receive_file(Guest& guest, const std::string& path, const FileEntry& entry,
                          const std::string& destination, bool archive) {
  auto output = OutputFile::create(destination);
  if (!output) {
    return std::unexpected(output.error());
  }
  const auto content = guest.client().read(path);
  ByteProgress progress(*content);
  auto written = oci::for_each_piece(progress, [&](std::span<const std::byte> piece) {
    return write_all(output->fd(), piece, fmt::format("'{}'", destination));
  });
  if (!written) {
    return std::unexpected(guest.within(written.error(), path));
  }
  struct stat status{};
  if (::fstat(output->fd(), &status) == 0 && S_ISREG(status.st_mode)) {
    // Never its set-user-ID bits, and never its owner.
    const std::array<timespec, 2> times = {{{0, UTIME_OMIT}, time_of(entry.fields.modified_ns)}};
    const mode_t mode = entry.fields.mode & 0777 & (archive ? 0777U : ~file_mask());
    if (::fchmod(output->fd(), mode) != 0 || ::futimens(output->fd(), times.data()) != 0) {
      return fail_errno(errno, "cannot set mode and time of '{}'", destination);
    }
  }
  return output->finish();
}

Result<void> receive_link(const FileEntry& entry, const std::string& destination) {
  struct stat status{};
  if (::lstat(destination.c_str(), &status) == 0 && !S_ISDIR(status.st_mode) &&
      ::unlink(destination.c_str()) != 0) {
    return fail_errno(errno, "cannot replace '{}'", destination);
  }
  if (::symlink(entry.target.c_str(), destination.c_str()) != 0) {
    return fail_errno(errno, "cannot make the symbolic link '{}'", destination);
  }
  return {};
}

Result<void> receive_tree(Guest& guest, const std::string& path, const CopyPlace& place,
                          bool archive) {
  const bool made = ::mkdir(place.path.c_str(), 0700) == 0;
  if (!made && errno != EEXIST) {
    return fail_errno(errno, "cannot make the directory '{}'", place.path);
  }
  // The user's own path may lead through a link where it names a directory that is there.
  const int follow = place.content ? 0 : O_NOFOLLOW;
  const Fd directory(::open(place.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | follow));
  if (!directory) {
    return fail_errno(errno, "cannot open the directory '{}'", place.path);
  }
  const auto tar = guest.client().pack(inside(path));
  ByteProgress progress(*tar);
  const auto unpacked =
      sandbox::unpack_tree(progress, directory.get(), {.owners = archive, .top = made});
  if (!unpacked) {
    return std::unexpected(unpacked.error().within(fmt::format("'{}'", place.path)));
  }
  tell_left_out(unpacked->left_out, unpacked->first_left_out);
  return {};
}

Result<void> copy_out(Guest& guest, const CopyWords& words, const CopyPath& source) {
  const bool follow = words.follow_link || source.directory;
  const auto found = guest.look(source.path, follow);
  if (!found) {
    return std::unexpected(found.error());
  }
  if (!*found) {
    return fail("there is no {}", guest.show(source.path));
  }
  const FileEntry& entry = **found;
  if (words.destination == kStream) {
    return receive_stream(guest, S_ISDIR(entry.fields.mode) ? inside(source.path) : source.path);
  }
  const CopyPath destination = parse_copy_path(words.destination);
  struct stat status{};
  const bool exists = ::stat(destination.path.c_str(), &status) == 0;
  if (!exists && errno != ENOENT) {
    return fail_errno(errno, "cannot look at '{}'", words.destination);
  }
  const auto place = choose_copy_place(source, kind_of(entry.fields.mode), destination,
                                       exists ? kind_of(status.st_mode) : CopyKind::kMissing,
                                       fmt::format("'{}'", destination.path));
  if (!place) {
    return std::unexpected(place.error());
  }
  switch (entry.fields.mode & S_IFMT) {
    case S_IFDIR:
      return receive_tree(guest, source.path, *place, words.archive);
    case S_IFREG:
      return receive_file(guest, source.path, entry, place->path, words.archive);
    case S_IFLNK:
      return receive_link(entry, place->path);
    default:
      return fail("{} is neither a file, a directory nor a symbolic link", guest.show(source.path));
  }
}

}  // namespace

Result<void> copy(const CopyWords& words) {
  const CopyWord source = parse_copy_word(words.source);
  const CopyWord destination = parse_copy_word(words.destination);
  if (source.sandbox.empty() == destination.sandbox.empty()) {
    return fail(
        "say one of the two as NAME:PATH, and the other as a path of this host: "
        "`msb cp web:/etc/hosts .`");
  }
  const bool out = !source.sandbox.empty();
  const CopyWord& inside = out ? source : destination;
  if (inside.path.empty()) {
    return fail("say which path of '{}': `{}:/PATH`", inside.sandbox, inside.sandbox);
  }
  const auto targets = Targets::look(words.file);
  if (!targets) {
    return std::unexpected(targets.error());
  }
  const auto target = targets->find_running(inside.sandbox);
  if (!target) {
    return std::unexpected(target.error());
  }
  auto client = FileClient::connect(target->running->agent_socket());
  if (!client) {
    return std::unexpected(client.error());
  }
  Guest guest(std::move(*client), inside.sandbox);
  const CopyPath path =
      parse_copy_path(inside.path.starts_with('/') ? inside.path : "/" + inside.path);
  return out ? copy_out(guest, words, path) : copy_in(guest, words, path);
}

}  // namespace msb::cli
