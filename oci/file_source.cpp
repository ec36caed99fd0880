// SPDX-License-Identifier: Apache-2.0
#include "oci/file_source.hpp"

#include <unistd.h>

#include <algorithm>

namespace msb::oci {

Result<std::span<const std::byte>> FileSource::next() {
  for (;;) {
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(left_, buffer_.size()));
    const ssize_t count = ::pread(fd_, buffer_.data(), wanted, static_cast<off_t>(offset_));
    if (count >= 0) {
      offset_ += static_cast<std::uint64_t>(count);
      left_ -= static_cast<std::uint64_t>(count);
      return std::span<const std::byte>(buffer_).first(static_cast<std::size_t>(count));
    }
    if (errno != EINTR) {
      return fail_errno(errno, "cannot read the blob");
    }
  }
}

}  // namespace msb::oci
