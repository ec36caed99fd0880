// SPDX-License-Identifier: Apache-2.0
#include "oci/block_stream.hpp"

#include <unistd.h>

#include <algorithm>

namespace msb::oci {

Result<void> BlockStream::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t count = std::min(bytes.size(), kBufferSize - buffer_.size());
    buffer_.insert(buffer_.end(), bytes.begin(),
                   bytes.begin() + static_cast<std::ptrdiff_t>(count));
    bytes = bytes.subspan(count);
    if (buffer_.size() == kBufferSize) {
      if (auto flushed = flush(); !flushed) {
        return flushed;
      }
    }
  }
  return {};
}

Result<void> BlockStream::skip(std::uint64_t count) {
  if (count <= kBufferSize - buffer_.size()) {
    buffer_.resize(buffer_.size() + count);
    return {};
  }
  if (auto flushed = flush(); !flushed) {
    return flushed;
  }
  start_ += count;
  return {};
}

Result<void> BlockStream::flush() {
  if (auto written = write_at(fd_, buffer_, start_); !written) {
    return written;
  }
  start_ += buffer_.size();
  buffer_.clear();
  return {};
}

Result<void> write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail_errno(errno, "cannot write the layer's image");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

}  // namespace msb::oci
