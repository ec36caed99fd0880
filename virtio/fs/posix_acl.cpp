// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/posix_acl.hpp"

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace msb::virtio {

namespace {

constexpr std::uint16_t kAll = ACL_READ | ACL_WRITE | ACL_EXECUTE;

// In this order they stand, those that may be there more than once among them.
constexpr std::array<std::uint16_t, 6> kOrder{ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ,
                                              ACL_GROUP,    ACL_MASK, ACL_OTHER};

std::uint16_t bits(std::uint32_t mode, unsigned shift) {
  return static_cast<std::uint16_t>(mode >> shift & kAll);
}

}  // namespace

std::optional<PosixAcl> PosixAcl::parse(std::span<const std::byte> value) {
  posix_acl_xattr_header header{};
  constexpr std::size_t kEntry = sizeof(posix_acl_xattr_entry);
  if (value.size() < sizeof header || (value.size() - sizeof header) % kEntry != 0) {
    return std::nullopt;
  }
  std::memcpy(&header, value.data(), sizeof header);
  if (header.a_version != POSIX_ACL_XATTR_VERSION) {
    return std::nullopt;
  }
  PosixAcl acl;
  std::array<std::size_t, kOrder.size()> seen{};
  std::size_t place = 0;
  for (auto rest = value.subspan(sizeof header); !rest.empty(); rest = rest.subspan(kEntry)) {
    posix_acl_xattr_entry found{};
    std::memcpy(&found, rest.data(), sizeof found);
    const auto tag = std::ranges::find(kOrder, found.e_tag);
    const auto position = static_cast<std::size_t>(tag - kOrder.begin());
    if (tag == kOrder.end() || position < place || (found.e_perm & ~kAll) != 0) {
      return std::nullopt;
    }
    place = position;
    ++seen.at(position);
    acl.entries_.push_back({found.e_tag, found.e_perm, found.e_id});
  }
  const bool named = seen[1] != 0 || seen[3] != 0;
  if (seen[0] != 1 || seen[2] != 1 || seen[5] != 1 || seen[4] > 1 || (named && seen[4] == 0)) {
    return std::nullopt;
  }
  return acl;
}

std::vector<std::byte> PosixAcl::bytes() const {
  std::vector<std::byte> value;
  const auto add = [&](const auto& part) {
    const auto bytes = std::as_bytes(std::span(&part, 1));
    value.insert(value.end(), bytes.begin(), bytes.end());
  };
  add(posix_acl_xattr_header{POSIX_ACL_XATTR_VERSION});
  for (const Entry& each : entries_) {
    add(posix_acl_xattr_entry{each.tag, each.permissions, each.id});
  }
  return value;
}

PosixAcl::Entry* PosixAcl::entry(std::uint16_t tag) {
  const auto found = std::ranges::find(entries_, tag, &Entry::tag);
  return found == entries_.end() ? nullptr : &*found;
}

PosixAcl::Entry& PosixAcl::group_class() {
  Entry* const mask = entry(ACL_MASK);
  return mask != nullptr ? *mask : *entry(ACL_GROUP_OBJ);
}

std::uint32_t PosixAcl::mode() const {
  PosixAcl copy = *this;
  return static_cast<std::uint32_t>(copy.entry(ACL_USER_OBJ)->permissions << 6 |
                                    copy.group_class().permissions << 3 |
                                    copy.entry(ACL_OTHER)->permissions);
}

void PosixAcl::set_mode(std::uint32_t mode) {
  entry(ACL_USER_OBJ)->permissions = bits(mode, 6);
  group_class().permissions = bits(mode, 3);
  entry(ACL_OTHER)->permissions = bits(mode, 0);
}

std::uint32_t PosixAcl::limit(std::uint32_t mode) {
  entry(ACL_USER_OBJ)->permissions &= bits(mode, 6);
  group_class().permissions &= bits(mode, 3);
  entry(ACL_OTHER)->permissions &= bits(mode, 0);
  return this->mode();
}

}  // namespace msb::virtio
