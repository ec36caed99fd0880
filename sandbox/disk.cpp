// SPDX-License-Identifier: Apache-2.0
#include "sandbox/disk.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/files.hpp"
#include "sandbox/locked_file.hpp"
#include "sandbox/program.hpp"

namespace msb::sandbox {

namespace {

constexpr std::uint64_t kMib = 1024 * 1024;
// An empty file system, its journal and the first things that programs write.
constexpr std::uint64_t kRoom = 64 * kMib;

Result<void> check_room(const std::string& directory) {
  struct statvfs status{};
  if (::statvfs(directory.c_str(), &status) != 0) {
    return fail_errno(errno, "cannot look at the file system of '{}'", directory);
  }
  const std::uint64_t free = std::uint64_t{status.f_bavail} * status.f_frsize;
  if (free < kRoom) {
    return fail(
        "the file system of '{}' has {} MiB left, too little for a sandbox's disk: make room",
        directory, free / kMib);
  }
  return {};
}

// mke2fs is where users without an administrator's PATH do not look.
std::string find_mke2fs() {
  for (const char* path : {"/usr/sbin/mke2fs", "/sbin/mke2fs"}) {
    if (::access(path, X_OK) == 0) {
      return path;
    }
  }
  return "mke2fs";
}

// Under a name of its own until it is whole. One that lasts has a journal, and room to grow.
Result<void> make_file_system(const std::string& path, std::uint64_t mib, bool lasting) {
  const std::string draft = fmt::format("{}.{}.new", path, ::getpid());
  ::unlink(draft.c_str());
  const Fd file(::open(draft.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) {
    return fail_errno(errno, "cannot make the disk '{}'", path);
  }
  Result<void> made;
  if (::ftruncate(file.get(), static_cast<off_t>(mib * kMib)) != 0) {
    made = fail_errno(errno, "cannot make the disk '{}' of {} MiB", path, mib);
  } else {
    // What is lazy here the guest never needs: the file is a hole, and reads as zeroes.
    made = run_program(find_mke2fs(),
                       {"mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O",
                        lasting ? "has_journal,resize_inode" : "^has_journal,^resize_inode", "-E",
                        "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
                        fmt::format("/dev/fd/{}", file.get())},
                       {file.get()});
    if (!made && made.error().code == ENOENT) {
      made = fail("there is no mke2fs to make disks with: install e2fsprogs");
    }
  }
  if (made && (::fsync(file.get()) != 0 || ::rename(draft.c_str(), path.c_str()) != 0)) {
    made = fail_errno(errno, "cannot make the disk '{}'", path);
  }
  if (made) {
    made = sync_directory(std::filesystem::path(path).parent_path());
  }
  if (!made) {
    ::unlink(draft.c_str());
  }
  return made;
}

// For file systems that do not copy by themselves.
Result<void> copy_by_hand(int from, int to, off_t begin, off_t end) {
  std::vector<char> piece(kMib);
  for (off_t at = begin; at < end;) {
    const auto wanted = std::min(piece.size(), static_cast<std::size_t>(end - at));
    const ssize_t length = ::pread(from, piece.data(), wanted, at);
    const auto zero = [](char c) { return c == 0; };
    if (length > 0 && std::all_of(piece.begin(), piece.begin() + length, zero)) {
      at += length;  // as a hole
      continue;
    }
    if (length <= 0 || ::pwrite(to, piece.data(), static_cast<std::size_t>(length), at) != length) {
      return fail_errno(length == 0 ? EIO : errno, "cannot copy an empty file system");
    }
    at += length;
  }
  return {};
}

Result<void> copy_piece(int from, int to, off_t begin, off_t end) {
  off_t in = begin;
  off_t out = begin;
  while (in < end) {
    const ssize_t copied =
        ::copy_file_range(from, &in, to, &out, static_cast<std::size_t>(end - in), 0);
    if (copied <= 0) {
      return copy_by_hand(from, to, in, end);
    }
  }
  return {};
}

// What is not a hole: of an empty file system very little.
Result<void> copy_data(int from, int to, off_t size) {
  for (off_t at = 0; at < size;) {
    const off_t begin = ::lseek(from, at, SEEK_DATA);
    if (begin < 0) {
      return errno == ENXIO ? Result<void>()
                            : fail_errno(errno, "cannot read an empty file system");
    }
    const off_t end = ::lseek(from, begin, SEEK_HOLE);
    if (end < 0) {
      return fail_errno(errno, "cannot read an empty file system");
    }
    if (auto copied = copy_piece(from, to, begin, end); !copied) {
      return copied;
    }
    at = end;
  }
  return {};
}

// Some file systems, of networks for example, have no O_TMPFILE, and give a size only to what has a
// name.
Result<Fd> make_nameless(const std::string& directory, off_t size) {
  Fd file(::open(directory.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  std::string name;
  if (!file) {
    name = directory + "/scratch-XXXXXX";
    file.reset(::mkostemp(name.data(), O_CLOEXEC));
  }
  if (!file) {
    return fail_errno(errno, "cannot make a scratch disk in '{}'", directory);
  }
  const int error = ::ftruncate(file.get(), size) == 0 ? 0 : errno;
  if (!name.empty()) {
    ::unlink(name.c_str());
  }
  if (error != 0) {
    return fail_errno(error, "cannot make a scratch disk of {} bytes in '{}'", size, directory);
  }
  return file;
}

// Made once for a size, and copied from then on.
Result<Fd> open_template(const std::string& directory, std::uint64_t mib) {
  const std::string path = fmt::format("{}/empty-{}.ext4", directory, mib);
  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file && errno == ENOENT) {
    if (auto made = make_file_system(path, mib, false); !made) {
      return std::unexpected(made.error());
    }
    file.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  }
  if (!file) {
    return fail_errno(errno, "cannot open '{}'", path);
  }
  return file;
}

}  // namespace

Result<Fd> prepare_disk(const std::string& path, std::uint64_t mib) {
  const std::string directory = std::filesystem::path(path).parent_path();
  if (auto checked = check_room(directory); !checked) {
    return std::unexpected(checked.error());
  }
  const auto open_disk = [&path] {
    return Fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  };
  Fd file = open_disk();
  if (!file && errno == ENOENT) {
    if (auto made = make_file_system(path, mib, true); !made) {
      return std::unexpected(made.error());
    }
    file = open_disk();
  }
  if (!file) {
    return fail_errno(errno, "cannot open the disk '{}'", path);
  }
  struct stat status{};
  if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail("the disk '{}' is no regular file", path);
  }
  const auto wanted = static_cast<off_t>(mib * kMib);
  if (status.st_size > wanted) {
    return fail(
        "the disk '{}' has {} MiB and cannot shrink to {}: ask for no less, or start afresh with "
        "`msb clean`",
        path, static_cast<std::uint64_t>(status.st_size) / kMib, mib);
  }
  if (status.st_size < wanted && ::ftruncate(file.get(), wanted) != 0) {
    return fail_errno(errno, "cannot let the disk '{}' grow to {} MiB", path, mib);
  }
  return file;
}

Result<Fd> make_scratch_disk(const std::string& home, std::uint64_t mib) {
  const std::string directory = home + "/scratch";
  const auto made = make_directory(directory);
  if (!made) {
    return std::unexpected(made.error());
  }
  if (auto checked = check_room(directory); !checked) {
    return std::unexpected(checked.error());
  }
  const auto from = open_template(directory, mib);
  if (!from) {
    return std::unexpected(from.error());
  }
  const auto size = static_cast<off_t>(mib * kMib);
  // An empty file system is holes for the most part, where holes are known.
  if (::lseek(from->get(), 0, SEEK_HOLE) >= size) {
    return fail(
        "cannot make a scratch disk in '{}', whose file system has no holes, so that all of {} MiB "
        "would be written; set MSB_HOME to a directory on a local disk",
        directory, mib);
  }
  auto to = make_nameless(directory, size);
  if (!to) {
    return to;
  }
  if (auto copied = copy_data(from->get(), to->get(), size); !copied) {
    return std::unexpected(copied.error());
  }
  return to;
}

std::uint64_t space_of(const std::string& path) {
  constexpr std::uint64_t kBlock = 512;  // stat(2)
  struct stat status{};
  return ::lstat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * kBlock
                                             : 0;
}

}  // namespace msb::sandbox
