// SPDX-License-Identifier: Apache-2.0
#include "oci/blob_directory.hpp"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "oci/file_source.hpp"

namespace msb::oci {
namespace {

// All of `fd`, which may not be longer than `limit` bytes.
Result<std::string> read_all(int fd, std::size_t limit) {
  std::string content;
  std::size_t length = 0;
  for (;;) {
    content.resize(std::min(std::max<std::size_t>(2 * length, 16384), limit + 1));
    const ssize_t count = ::read(fd, content.data() + length, content.size() - length);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail_errno(errno, "cannot read it");
    }
    length += static_cast<std::size_t>(count);
    if (length > limit) {
      return fail("it is larger than {} bytes", limit);
    }
    if (count == 0) {
      content.resize(length);
      return content;
    }
  }
}

}  // namespace

Result<Fd> open_regular(int directory, const std::string& path) {
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  Fd fd(static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how)));
  if (!fd) {
    return fail_errno(errno, "cannot open '{}'", path);
  }
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) {
    return fail_errno(errno, "cannot examine '{}'", path);
  }
  if (!S_ISREG(status.st_mode)) {
    return fail("'{}' is not a regular file", path);
  }
  return fd;
}

Result<std::string> read_document_file(int directory, const std::string& path) {
  const auto fd = open_regular(directory, path);
  if (!fd) {
    return std::unexpected(fd.error());
  }
  auto content = read_all(fd->get(), kMaxDocumentSize);
  if (!content) {
    return std::unexpected(content.error().within(fmt::format("'{}'", path)));
  }
  return content;
}

std::string BlobDirectory::path_of(const Digest& digest) {
  return "blobs/sha256/" + digest.hex();
}

Result<Fd> BlobDirectory::open(const Descriptor& blob) const {
  auto fd = open_regular(directory_.get(), path_of(blob.digest));
  if (!fd) {
    return fd;
  }
  struct stat status{};
  if (::fstat(fd->get(), &status) != 0) {
    return fail_errno(errno, "cannot examine blob {}", blob.digest.to_string());
  }
  if (std::cmp_not_equal(status.st_size, blob.size)) {
    return fail("blob {} has {} bytes, its descriptor says {}", blob.digest.to_string(),
                status.st_size, blob.size);
  }
  return fd;
}

Result<std::string> BlobDirectory::document(const Descriptor& descriptor) {
  auto content = read_document_file(directory_.get(), path_of(descriptor.digest));
  if (!content) {
    return std::unexpected(content.error().within("document " + descriptor.digest.to_string()));
  }
  if (auto checked = check_document(descriptor, *content); !checked) {
    return std::unexpected(checked.error());
  }
  return content;
}

Result<std::unique_ptr<PieceSource>> BlobDirectory::blob(const Descriptor& descriptor) {
  auto fd = open(descriptor);
  if (!fd) {
    return std::unexpected(fd.error());
  }
  return std::make_unique<FileSource>(std::move(*fd));
}

}  // namespace msb::oci
