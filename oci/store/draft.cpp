// SPDX-License-Identifier: Apache-2.0
#include "oci/store/draft.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string_view>

namespace msb::oci {
namespace {

constexpr mode_t kDirectoryMode = 0700;
constexpr mode_t kWritableMode = 0600;
constexpr mode_t kFinishedMode = 0400;
constexpr std::string_view kDraftPrefix = ".new-";
constexpr std::string_view kLockPrefix = ".lock-";

// Whether the locked file still has a name: remove_abandoned() or its last holder may have come
// between opening and locking.
bool has_name(int fd) {
  struct stat status{};
  return ::fstat(fd, &status) == 0 && status.st_nlink > 0;
}

int lock_file(int fd, int operation) {
  int outcome = 0;
  do {
    outcome = ::flock(fd, operation);
  } while (outcome != 0 && errno == EINTR);
  return outcome;
}

// What is durable in a directory whose own name is not can be lost with it.
Result<void> sync_parent(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd fd(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd && errno == EACCES) {
    return {};  // it may be written to, but not opened
  }
  if (!fd || ::fsync(fd.get()) != 0) {
    return fail_errno(errno, "cannot write the directory '{}' to disk", parent);
  }
  return {};
}

// Calls `visit` with each name in a directory.
template <typename Visit>
Result<void> for_each_name(int directory, Visit visit) {
  Fd listing(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!listing) {
    return fail_errno(errno, "cannot list the directory");
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(listing.get()), &::closedir);
  if (!stream) {
    return fail_errno(errno, "cannot list the directory");
  }
  static_cast<void>(listing.release());
  while (const dirent* entry = ::readdir(stream.get())) {
    visit(std::string_view(entry->d_name));
  }
  return {};
}

}  // namespace

Result<void> make_directories(const std::string& path) {
  for (auto slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string prefix = path.substr(0, slash);
    const bool made = ::mkdir(prefix.c_str(), kDirectoryMode) == 0;
    if (!made && errno != EEXIST) {
      return fail_errno(errno, "cannot create the directory '{}'", prefix);
    }
    if (made) {
      if (auto synced = sync_parent(prefix); !synced) {
        return synced;
      }
    }
    if (slash == std::string::npos) {
      return {};
    }
  }
}

Draft::~Draft() {
  if (!name_.empty()) {
    ::unlinkat(directory_, name_.c_str(), 0);
  }
}

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
    std::string name = fmt::format("{}{:02x}", kDraftPrefix, fmt::join(random, ""));
    Fd named(
        ::openat(directory, name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, kWritableMode));
    if (!named) {
      if (errno == EEXIST) {
        continue;
      }
      return fail_errno(errno, "cannot create a file");
    }
    if (lock_file(named.get(), LOCK_EX | LOCK_NB) == 0 && has_name(named.get())) {
      return Draft(directory, std::move(named), std::move(name));
    }
  }
}

Result<void> Draft::publish(const std::string& name) const {
  if (::fchmod(fd_.get(), kFinishedMode) != 0 || ::fsync(fd_.get()) != 0) {
    return fail_errno(errno, "cannot write '{}' to disk", name);
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

Result<void> sync_directory(int directory) {
  if (::fsync(directory) != 0) {
    return fail_errno(errno, "cannot write the directory to disk");
  }
  return {};
}

Result<MakerLock> MakerLock::try_acquire(int directory, const std::string& name, bool wait) {
  std::string file = std::string(kLockPrefix) + name;
  for (;;) {
    Fd fd(::openat(directory, file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW,
                   kWritableMode));
    if (!fd) {
      return fail_errno(errno, "cannot create '{}'", file);
    }
    if (lock_file(fd.get(), wait ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
      return fail_errno(errno, "cannot lock '{}'", file);
    }
    if (has_name(fd.get())) {
      return MakerLock(directory, std::move(file), std::move(fd));
    }
  }
}

MakerLock::~MakerLock() {
  if (fd_) {
    ::unlinkat(directory_, name_.c_str(), 0);
  }
}

void remove_abandoned(int directory) {
  // What cannot be listed or removed is found by the next one.
  static_cast<void>(for_each_name(directory, [&](std::string_view name) {
    if (!name.starts_with(kDraftPrefix) && !name.starts_with(kLockPrefix)) {
      return;
    }
    const std::string file(name);
    const Fd fd(::openat(directory, file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd && lock_file(fd.get(), LOCK_EX | LOCK_NB) == 0 && has_name(fd.get())) {
      ::unlinkat(directory, file.c_str(), 0);
    }
  }));
}

Result<std::vector<std::string>> list_names(int directory) {
  std::vector<std::string> names;
  const auto listed = for_each_name(directory, [&](std::string_view name) {
    if (!name.starts_with('.')) {
      names.emplace_back(name);
    }
  });
  if (!listed) {
    return std::unexpected(listed.error());
  }
  return names;
}

}  // namespace msb::oci
