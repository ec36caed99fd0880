// SPDX-License-Identifier: Apache-2.0
// Who owns a shared file, as the guest sees it, and its mode.
//
// On the host everything that a guest makes belongs to the user who runs the sandbox, has no
// set-user-ID, set-group-ID or sticky bit, is a regular file where the guest made a device node,
// and can be read and written by that user: nothing there is worth more than what the user could
// have made. What the guest set beyond that is kept beside the file, in an extended attribute that
// neither the guest can write nor programs on the host mind.
//
// A file without one is shown by rule: the user who runs the sandbox is root in it. Other users are
// themselves when that is the host's root, and 65534 (nobody) otherwise, as in a user namespace.
#pragma once

#include <linux/fuse.h>
#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace msb::virtio {

inline constexpr std::uint32_t kNobody = 65534;

// Extended attributes of these names are ours, and no guest's.
inline constexpr std::string_view kReservedXattrs = "user.msb.";
inline constexpr char kOwnerXattr[] = "user.msb.owner";

// A file's owner and mode in the guest, when they are not what the rule gives.
struct GuestOwner {
  std::uint32_t mode = 0;  // with the type
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t device = 0;  // of a device node, in the kernel's encoding (new_encode_dev())

  // "1 MODE UID GID DEVICE", the mode in octal. Nothing for what is not such a text, or a file of a
  // type that is not kept so.
  static std::optional<GuestOwner> parse(std::string_view text);
  [[nodiscard]] std::string text() const;

  bool operator==(const GuestOwner&) const = default;
};

// The rule. One per user who runs sandboxes.
class OwnerRule {
 public:
  OwnerRule(std::uint32_t uid, std::uint32_t gid) : uid_(uid), gid_(gid) {}

  [[nodiscard]] std::uint32_t uid() const { return uid_; }
  [[nodiscard]] std::uint32_t gid() const { return gid_; }

  // As which owner and mode a file of the host is shown. `kept`: what its attribute says, if it has
  // one: that counts of files of the user who runs the sandbox, which all are that guests make, and
  // not what others have written beside theirs. Its mode counts as long as it leads to the mode
  // that the file has: a later chmod(1) on the host counts more.
  [[nodiscard]] GuestOwner shown(const struct statx& status,
                                 const std::optional<GuestOwner>& kept) const;

  // Whether a file with the host's mode `host` needs no attribute to be shown as `wanted`.
  [[nodiscard]] bool shows(const struct statx& host, const GuestOwner& wanted) const {
    return shown(host, std::nullopt) == wanted;
  }

  // The permission bits on the host of a file with `mode` (with the type) in the guest.
  [[nodiscard]] static std::uint32_t host_mode(std::uint32_t mode);
  // The type on the host of a file that a guest makes.
  [[nodiscard]] static std::uint32_t host_type(std::uint32_t mode);

 private:
  [[nodiscard]] std::uint32_t shown_id(std::uint32_t id, std::uint32_t own) const;
  std::uint32_t uid_;
  std::uint32_t gid_;
};

// FUSE's attributes of a file: everything but the inode number.
fuse_attr attributes_of(const struct statx& status, const GuestOwner& owner);

}  // namespace msb::virtio
