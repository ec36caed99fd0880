// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/host_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <string_view>

namespace msb::virtio {

std::unexpected<int> failed_call() {
  return std::unexpected(errno);
}

Outcome<void> check_name(std::string_view name) {
  if (name.size() > NAME_MAX) {
    return std::unexpected(ENAMETOOLONG);
  }
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
    return std::unexpected(EINVAL);
  }
  return {};
}

InodeKey key_of(const struct statx& status) {
  return {.device = std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor,
          .number = status.stx_ino,
          .birth_ns = (status.stx_mask & STATX_BTIME) != 0
                          ? status.stx_btime.tv_sec * 1'000'000'000 + status.stx_btime.tv_nsec
                          : 0};
}

Outcome<Fd> open_entry(int directory, const std::string& name, int flags, mode_t mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_NOFOLLOW | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  // With O_PATH and O_NOFOLLOW a link is what is opened, not followed.
  if ((flags & O_PATH) != 0) {
    how.resolve &= ~std::uint64_t{RESOLVE_NO_SYMLINKS};
  }
  while (true) {
    const auto opened =
        static_cast<int>(::syscall(SYS_openat2, directory, name.c_str(), &how, sizeof how));
    if (opened >= 0) {
      return Fd(opened);
    }
    if (errno != EINTR) {
      return failed_call();
    }
  }
}

Outcome<Fd> reopen(int path, int flags) {
  const auto status = examine(path);
  if (!status) {
    return std::unexpected(status.error());
  }
  if (!S_ISREG(status->stx_mode) && !S_ISDIR(status->stx_mode)) {
    return std::unexpected(ELOOP);
  }
  Fd opened(::open(path_to(path).c_str(), flags | O_CLOEXEC | O_NOCTTY));
  if (!opened) {
    return failed_call();
  }
  return opened;
}

Outcome<bool> is_kernels_own(int descriptor) {
  // The last two have no names in <linux/magic.h>: configfs and mqueue.
  constexpr std::array<std::uint32_t, 18> kTypes{
      PROC_SUPER_MAGIC,   SYSFS_MAGIC,        DEBUGFS_MAGIC,       TRACEFS_MAGIC,
      SECURITYFS_MAGIC,   CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, BPF_FS_MAGIC,
      EFIVARFS_MAGIC,     PSTOREFS_MAGIC,     SELINUX_MAGIC,       SMACK_MAGIC,
      DEVPTS_SUPER_MAGIC, BINFMTFS_MAGIC,     NSFS_MAGIC,          RDTGROUP_SUPER_MAGIC,
      0x62656570,         0x19800202};
  struct statfs status{};
  if (::fstatfs(descriptor, &status) != 0) {
    return failed_call();
  }
  return std::ranges::find(kTypes, static_cast<std::uint32_t>(status.f_type)) != kTypes.end();
}

namespace {
constexpr unsigned kWanted = STATX_BASIC_STATS | STATX_BTIME;
}

Outcome<struct statx> examine_entry(int directory, const std::string& name) {
  struct statx status{};
  if (::statx(directory, name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kWanted, &status) !=
      0) {
    return failed_call();
  }
  return status;
}

Outcome<struct statx> examine(int descriptor) {
  struct statx status{};
  if (::statx(descriptor, "", AT_EMPTY_PATH, kWanted, &status) != 0) {
    return failed_call();
  }
  return status;
}

std::string path_to(int descriptor) {
  return fmt::format("/proc/self/fd/{}", descriptor);
}

std::string path_to(int directory, const std::string& name) {
  return fmt::format("/proc/self/fd/{}/{}", directory, name);
}

}  // namespace msb::virtio
