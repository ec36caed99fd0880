// SPDX-License-Identifier: Apache-2.0
#include "launcher/disk.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>
#include <thread>

#include "base/machine_config.hpp"

namespace msb::launcher {

namespace {

constexpr std::uint64_t kSector = 512;
// What every device and file system takes, where the kernel does not say (before Linux 6.1, or not
// for this file system).
constexpr std::uint32_t kSafeAlignment = 4096;

bool take_word(std::string_view& rest, std::string_view word) {
  if (rest.size() <= word.size() || !rest.ends_with(word) ||
      rest[rest.size() - word.size() - 1] != ':') {
    return false;
  }
  rest.remove_suffix(word.size() + 1);
  return true;
}

std::uint32_t direct_alignment(int file) {
  struct statx status{};
  if (::statx(file, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) != 0 ||
      (status.stx_mask & STATX_DIOALIGN) == 0) {
    return kSafeAlignment;
  }
  const std::uint32_t wanted = std::max(status.stx_dio_mem_align, status.stx_dio_offset_align);
  return wanted == 0 ? kSafeAlignment
                     : std::max(static_cast<std::uint32_t>(kSector), std::bit_ceil(wanted));
}

// Beyond it ftruncate(2) would not only fail, but end this process by SIGXFSZ.
std::uint64_t largest_file() {
  rlimit limit{};
  constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  return ::getrlimit(RLIMIT_FSIZE, &limit) == 0 ? std::min<std::uint64_t>(limit.rlim_cur, kLargest)
                                                : kLargest;
}

Result<std::uint64_t> device_size(const RunningDisk& disk, std::optional<std::uint64_t> size) {
  if (size) {
    return fail("it is a block device, whose size is its own; leave the size out to have it read");
  }
  std::uint64_t found = 0;
  if (::ioctl(disk.file.get(), BLKGETSIZE64, &found) != 0) {
    return fail_errno(errno, "cannot tell its size");
  }
  if (found == 0 || found % kSector != 0) {
    return fail("it has {} bytes, which is not a multiple of {}", found, kSector);
  }
  return found;
}

// A machine that lost its launcher has the disk with its writable layer for a few seconds more, to
// end in order: that is waited for.
bool lock(int file, const DiskWords& disk) {
  constexpr std::chrono::seconds kEndOfMachine{33};
  constexpr std::chrono::milliseconds kPause{20};
  const auto deadline = std::chrono::steady_clock::now() + kEndOfMachine;
  while (::flock(file, (disk.read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK || !disk.writable_layer ||
        std::chrono::steady_clock::now() >= deadline) {
      return false;
    }
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

}  // namespace

Result<DiskWords> parse_disk(std::string_view word) {
  DiskWords disk;
  std::string_view rest = word;
  while (true) {
    if (!disk.read_only && take_word(rest, "ro")) {
      disk.read_only = true;
    } else if (!disk.direct && take_word(rest, "direct")) {
      disk.direct = true;
    } else {
      break;
    }
  }
  if (rest.empty()) {
    return fail("--disk \"{}\" names no file; write FILE, FILE:ro or FILE:direct", word);
  }
  disk.path = rest;
  return disk;
}

Result<OpenDisk> open_disk(const DiskWords& disk) {
  OpenDisk opened;
  const int access = disk.read_only ? O_RDONLY : O_RDWR;
  // O_NONBLOCK: a FIFO that somebody put there is not waited for.
  opened.file = Fd(::open(disk.path.c_str(), access | O_CLOEXEC | O_NONBLOCK));
  struct stat status{};
  if (!opened.file || ::fstat(opened.file.get(), &status) != 0) {
    const int code = errno;
    return fail_errno(code, "cannot open the disk \"{}\"{}", disk.path,
                      (code == EACCES || code == EROFS) && !disk.read_only && !disk.writable_layer
                          ? " for writing (add :ro to only read it)"
                          : "");
  }
  opened.size = static_cast<std::uint64_t>(status.st_size);
  if (S_ISBLK(status.st_mode)) {
    if (::ioctl(opened.file.get(), BLKGETSIZE64, &opened.size) != 0) {
      return fail_errno(errno, "cannot tell the size of the disk \"{}\"", disk.path);
    }
  } else if (!S_ISREG(status.st_mode)) {
    return fail("the disk \"{}\" is neither a file nor a block device", disk.path);
  }
  if (opened.size == 0 || opened.size % kSector != 0) {
    return fail(
        "the disk \"{}\" has {} bytes, which is not a multiple of {}; it must be a raw image",
        disk.path, opened.size, kSector);
  }
  // io_uring would not wait for a file that is opened so.
  if (::fcntl(opened.file.get(), F_SETFL, 0) != 0) {
    return fail_errno(errno, "cannot use the disk \"{}\"", disk.path);
  }
  if (!lock(opened.file.get(), disk)) {
    const int code = errno;
    return code == EWOULDBLOCK
               ? fail("the disk \"{}\" is in use; stop the sandbox that has it{}", disk.path,
                      disk.read_only || disk.writable_layer
                          ? ""
                          : ", or add :ro to both to only read it")
               : fail_errno(code, "cannot lock the disk \"{}\"", disk.path);
  }
  if (disk.direct) {
    // The same file, whatever has come to lie at its path since.
    const std::string path = fmt::format("/proc/self/fd/{}", opened.file.get());
    opened.direct = Fd(::open(path.c_str(), access | O_CLOEXEC | O_DIRECT));
    if (!opened.direct) {
      const int code = errno;
      return fail_errno(
          code, "cannot open the disk \"{}\" past the page cache{}", disk.path,
          code == EINVAL ? ", which its file system does not do; leave out :direct" : "");
    }
    opened.alignment = direct_alignment(opened.file.get());
    if (opened.alignment > kMaxDiskAlignment) {
      return fail(
          "the disk \"{}\" takes direct I/O only in pieces of {} bytes, more than the {} that a "
          "disk's block may have; leave out :direct",
          disk.path, opened.alignment, kMaxDiskAlignment);
    }
  }
  return opened;
}

Result<std::uint64_t> grow_disk(const RunningDisk& disk, std::optional<std::uint64_t> size) {
  if (disk.read_only) {
    return fail("it is read-only");
  }
  struct stat status{};
  if (::fstat(disk.file.get(), &status) != 0) {
    return fail_errno(errno, "cannot tell its size");
  }
  if (S_ISBLK(status.st_mode)) {
    return device_size(disk, size);
  }
  if (!size) {
    return fail("it is a file, which grows to a size that has to be given");
  }
  if (*size % kSector != 0) {
    return fail("{} bytes are not a multiple of {}", *size, kSector);
  }
  // Whichever is larger: it may have grown for a guest that was not told, or behind our back.
  const auto in_file = static_cast<std::uint64_t>(status.st_size);
  const std::uint64_t now = std::max(in_file, disk.size);
  if (*size < now) {
    return fail("it has {} bytes, and {} would cut data off", now, *size);
  }
  if (const std::uint64_t largest = largest_file(); *size > largest) {
    return fail("{} bytes are more than the {} that a file may have here", *size, largest);
  }
  if (*size > in_file && ::ftruncate(disk.file.get(), static_cast<off_t>(*size)) != 0) {
    return fail_errno(errno, "cannot make its file {} bytes large", *size);
  }
  return *size;
}

}  // namespace msb::launcher
