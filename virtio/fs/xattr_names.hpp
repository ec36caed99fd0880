// SPDX-License-Identifier: Apache-2.0
// Extended attributes: what the guest calls them, and what they are called on the host, where only
// those of the "user." kind are set, which mean nothing to anybody but programs. The others (file
// capabilities, access control lists, trusted ones) are kept behind a prefix, as "user.msb.NAME".
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace msb::virtio {

inline constexpr std::string_view kCapabilityXattr = "security.capability";

// The host's name of the guest's `name`. Empty when there can be none: the name is empty, too long,
// or one of ours.
std::string host_xattr(std::string_view name);

// The guest's name of the host's `name`, or nothing when it is not for the guest.
std::optional<std::string_view> guest_xattr(std::string_view name);

}  // namespace msb::virtio
