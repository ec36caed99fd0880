// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/guest_owner.hpp"

#include <fmt/format.h>

#include <charconv>

namespace msb::virtio {

namespace {

constexpr std::uint32_t kPermissions = 07777;

// The next number of a text of numbers with single spaces in between; removes it.
std::optional<std::uint32_t> take_number(std::string_view& text, int base) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc()) {
    return std::nullopt;
  }
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.starts_with(' ') && text.size() > 1) {
    text.remove_prefix(1);
  } else if (!text.empty()) {
    return std::nullopt;
  }
  return value;
}

bool is_device(std::uint32_t mode) {
  return S_ISCHR(mode) || S_ISBLK(mode);
}

}  // namespace

std::optional<GuestOwner> GuestOwner::parse(std::string_view text) {
  const auto version = take_number(text, 10);
  const auto mode = take_number(text, 8);
  const auto uid = take_number(text, 10);
  const auto gid = take_number(text, 10);
  const auto device = take_number(text, 10);
  if (version != 1 || !mode || !uid || !gid || !device || !text.empty()) {
    return std::nullopt;
  }
  const bool known = S_ISREG(*mode) || S_ISDIR(*mode) || is_device(*mode);
  if (!known || (*mode & ~(kPermissions | std::uint32_t{S_IFMT})) != 0) {
    return std::nullopt;
  }
  return GuestOwner{*mode, *uid, *gid, *device};
}

std::string GuestOwner::text() const {
  return fmt::format("1 {:o} {} {} {}", mode, uid, gid, device);
}

std::uint32_t OwnerRule::shown_id(std::uint32_t id, std::uint32_t own) const {
  if (id == own) {
    return 0;
  }
  return uid_ == 0 ? id : kNobody;
}

GuestOwner OwnerRule::shown(const struct statx& status,
                            const std::optional<GuestOwner>& kept) const {
  GuestOwner owner{.mode = status.stx_mode,
                   .uid = shown_id(status.stx_uid, uid_),
                   .gid = shown_id(status.stx_gid, gid_)};
  owner.device = (status.stx_rdev_minor & 0xff) | status.stx_rdev_major << 8 |
                 (status.stx_rdev_minor & ~std::uint32_t{0xff}) << 12;
  // An attribute tells of what a file of this type can stand for, or of another file.
  if (!kept || status.stx_uid != uid_ || host_type(kept->mode) != (status.stx_mode & S_IFMT)) {
    return owner;
  }
  owner.uid = kept->uid;
  owner.gid = kept->gid;
  owner.device = kept->device;
  if (host_mode(kept->mode) == (status.stx_mode & kPermissions)) {
    owner.mode = kept->mode;
  } else {
    owner.mode = (status.stx_mode & kPermissions) | (kept->mode & S_IFMT);
  }
  return owner;
}

std::uint32_t OwnerRule::host_mode(std::uint32_t mode) {
  const std::uint32_t kept_usable = S_ISDIR(mode) ? 0700 : 0600;
  return (mode & 0777) | kept_usable;
}

std::uint32_t OwnerRule::host_type(std::uint32_t mode) {
  return is_device(mode) ? std::uint32_t{S_IFREG} : mode & S_IFMT;
}

fuse_attr attributes_of(const struct statx& status, const GuestOwner& owner) {
  fuse_attr attr{};
  attr.size = status.stx_size;
  attr.blocks = status.stx_blocks;
  attr.atime = static_cast<std::uint64_t>(status.stx_atime.tv_sec);
  attr.mtime = static_cast<std::uint64_t>(status.stx_mtime.tv_sec);
  attr.ctime = static_cast<std::uint64_t>(status.stx_ctime.tv_sec);
  attr.atimensec = status.stx_atime.tv_nsec;
  attr.mtimensec = status.stx_mtime.tv_nsec;
  attr.ctimensec = status.stx_ctime.tv_nsec;
  attr.mode = owner.mode;
  attr.nlink = status.stx_nlink;
  attr.uid = owner.uid;
  attr.gid = owner.gid;
  attr.rdev = owner.device;
  attr.blksize = status.stx_blksize;
  return attr;
}

}  // namespace msb::virtio
