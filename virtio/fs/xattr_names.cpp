// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/xattr_names.hpp"

#include <linux/limits.h>

#include "virtio/fs/guest_owner.hpp"

namespace msb::virtio {

std::string host_xattr(std::string_view name) {
  std::string mapped;
  // Every name has a kind in front of a dot (xattr(7)).
  if (name.starts_with(kReservedXattrs) || name.find('.') == std::string_view::npos) {
    return mapped;
  }
  if (!name.starts_with("user.")) {
    mapped = kReservedXattrs;
  }
  mapped += name;
  return mapped.size() <= XATTR_NAME_MAX ? mapped : std::string();
}

std::optional<std::string_view> guest_xattr(std::string_view name) {
  if (!name.starts_with("user.")) {
    return std::nullopt;  // the host's own, of no meaning in the guest
  }
  if (!name.starts_with(kReservedXattrs)) {
    return name;
  }
  name.remove_prefix(kReservedXattrs.size());
  // What has no dot is the owner, or from another version of this.
  if (name.find('.') == std::string_view::npos || name.starts_with("user.")) {
    return std::nullopt;
  }
  return name;
}

}  // namespace msb::virtio
