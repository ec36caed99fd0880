// SPDX-License-Identifier: Apache-2.0
#include "oci/acl.hpp"

#include <cstring>

namespace msb::oci {
namespace {

// Little-endian, as in struct posix_acl_xattr_header and struct posix_acl_xattr_entry.
constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kHeaderSize = sizeof kVersion;
struct Entry {
  std::uint16_t tag;
  std::uint16_t permissions;
  std::uint32_t id;
};
static_assert(sizeof(Entry) == 8);

// e_tag, in the order that a list has them.
constexpr std::uint16_t kUserObject = 0x01;
constexpr std::uint16_t kUser = 0x02;
constexpr std::uint16_t kGroupObject = 0x04;
constexpr std::uint16_t kGroup = 0x08;
constexpr std::uint16_t kMask = 0x10;
constexpr std::uint16_t kOther = 0x20;

constexpr std::uint16_t kAllPermissions = 7;
constexpr std::uint32_t kNoId = 0xFFFFFFFF;

bool has_header(std::string_view value) {
  std::uint32_t version = 0;
  if (value.size() < kHeaderSize) {
    return false;
  }
  std::memcpy(&version, value.data(), sizeof version);
  return version == kVersion;
}

}  // namespace

std::optional<Acl> parse_acl(std::string_view value) {
  if (!has_header(value) || (value.size() - kHeaderSize) % sizeof(Entry) != 0) {
    return std::nullopt;
  }
  Acl acl{.permissions = 0, .is_minimal = true};
  unsigned seen = 0;  // tags
  std::uint16_t last = 0;
  for (value.remove_prefix(kHeaderSize); !value.empty(); value.remove_prefix(sizeof(Entry))) {
    Entry entry{};
    std::memcpy(&entry, value.data(), sizeof entry);
    const bool is_named = entry.tag == kUser || entry.tag == kGroup;
    // Only named entries come more than once.
    if (entry.tag < last || (entry.tag == last && !is_named) ||
        entry.permissions > kAllPermissions || (is_named && entry.id == kNoId)) {
      return std::nullopt;
    }
    switch (entry.tag) {
      case kUserObject:
        acl.permissions = static_cast<std::uint16_t>(entry.permissions << 6U);
        break;
      case kGroupObject:
        acl.permissions |= static_cast<std::uint16_t>(entry.permissions << 3U);
        break;
      case kMask:
        // The group's bits of a file are its mask, where there is one.
        acl.permissions = static_cast<std::uint16_t>((acl.permissions & 0700U) |
                                                     unsigned{entry.permissions} << 3U);
        break;
      case kOther:
        acl.permissions |= entry.permissions;
        break;
      case kUser:
      case kGroup:
        break;
      default:
        return std::nullopt;
    }
    seen |= entry.tag;
    last = entry.tag;
  }
  constexpr unsigned kRequired = kUserObject | kGroupObject | kOther;
  const bool has_named = (seen & (kUser | kGroup)) != 0;
  if ((seen & kRequired) != kRequired || (has_named && (seen & kMask) == 0)) {
    return std::nullopt;
  }
  acl.is_minimal = seen == kRequired;
  return acl;
}

bool is_empty_acl(std::string_view value) {
  return has_header(value) && value.size() == kHeaderSize;
}

}  // namespace msb::oci
