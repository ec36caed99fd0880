// SPDX-License-Identifier: Apache-2.0
#include "oci/config_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/fd.hpp"
#include "oci/image_spec.hpp"

namespace msb::oci {
namespace {

constexpr mode_t kDirectoryMode = 0700;

// The directories above `path`.
Result<void> make_parents(const std::string& path) {
  for (auto slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string directory = path.substr(0, slash);
    if (::mkdir(directory.c_str(), kDirectoryMode) != 0 && errno != EEXIST) {
      return fail_errno(errno, "cannot create the directory '{}'", directory);
    }
  }
  return {};
}

// What `path` names once symbolic links are followed; `path` when there is nothing yet.
std::string real_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr),
                                                             &std::free);
  return resolved ? std::string(resolved.get()) : path;
}

Result<void> write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t count = ::write(fd, content.data(), content.size());
    if (count < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot write it");
    }
    content.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  }
  return {};
}

// A rename is durable once the directory is.
void sync_directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string directory =
      slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
  const Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd) {
    ::fsync(fd.get());
  }
}

}  // namespace

Result<std::optional<std::string>> read_config_file(const std::string& path) {
  // O_NONBLOCK: a FIFO in its place must not hang.
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd && (errno == ENOENT || errno == ENOTDIR)) {
    return std::nullopt;
  }
  struct stat status{};
  if (!fd || ::fstat(fd.get(), &status) != 0) {
    return fail_errno(errno, "cannot open '{}'", path);
  }
  if (!S_ISREG(status.st_mode)) {
    return fail("'{}' is not a regular file", path);
  }
  std::string content;
  while (content.size() <= kMaxDocumentSize) {
    constexpr std::size_t kPiece = 16384;
    const std::size_t length = content.size();
    content.resize(length + kPiece);
    const ssize_t count = ::read(fd.get(), content.data() + length, kPiece);
    if (count < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot read '{}'", path);
    }
    content.resize(length + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (count == 0) {
      return content;
    }
  }
  return fail("'{}' is larger than {} bytes", path, kMaxDocumentSize);
}

Result<void> replace_config_file(const std::string& path, std::string_view content) {
  if (auto made = make_parents(path); !made) {
    return made;
  }
  const std::string target = real_path(path);
  std::string temporary = target + ".XXXXXX";
  const Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));  // mode 0600
  if (!fd) {
    return fail_errno(errno, "cannot create a file beside '{}'", target);
  }
  const auto discard = [&](const Error& error) {
    ::unlink(temporary.c_str());
    return std::unexpected(error.within(fmt::format("'{}' stays as it was", target)));
  };
  if (auto written = write_all(fd.get(), content); !written) {
    return discard(written.error());
  }
  if (::fsync(fd.get()) != 0 || ::rename(temporary.c_str(), target.c_str()) != 0) {
    return discard(fail_errno(errno, "cannot replace it").error());
  }
  sync_directory_of(target);
  return {};
}

std::string absolute_path_from_environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && value[0] == '/' ? value : "";
}

}  // namespace msb::oci
