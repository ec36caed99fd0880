// SPDX-License-Identifier: Apache-2.0
#include "oci/xattrs.hpp"

#include <array>
#include <cstring>
#include <map>
#include <optional>

#include "oci/acl.hpp"
#include "oci/erofs_format.hpp"
#include "oci/printable.hpp"

namespace msb::oci {
namespace {

constexpr std::size_t kMaxName = 255;     // bytes, XATTR_NAME_MAX
constexpr std::size_t kMaxValue = 65535;  // bytes, what XattrEntry can say

constexpr std::string_view kTrusted = "trusted.";
constexpr std::string_view kAccessAcl = "system.posix_acl_access";
constexpr std::uint16_t kSpecialPermissions = 07000;  // set-user-ID, set-group-ID, sticky
constexpr std::string_view kOverlayOpaque = "overlay.opaque";
constexpr std::string_view kOpaqueValue = "y";
constexpr std::array<std::string_view, 3> kLeftOut = {"trusted.overlay.", "user.overlay.",
                                                      "security.selinux"};

struct Namespace {
  std::string_view prefix;
  erofs::XattrPrefix index;
};
constexpr std::array<Namespace, 5> kNamespaces = {{
    {"user.", erofs::XattrPrefix::kUser},
    {kTrusted, erofs::XattrPrefix::kTrusted},
    {"security.", erofs::XattrPrefix::kSecurity},
    {kAccessAcl, erofs::XattrPrefix::kPosixAclAccess},
    {"system.posix_acl_default", erofs::XattrPrefix::kPosixAclDefault},
}};

bool is_acl(erofs::XattrPrefix index) {
  return index == erofs::XattrPrefix::kPosixAclAccess ||
         index == erofs::XattrPrefix::kPosixAclDefault;
}

bool allows(XattrOwner owner, erofs::XattrPrefix index) {
  switch (index) {
    case erofs::XattrPrefix::kUser:
      return owner == XattrOwner::kRegular || owner == XattrOwner::kDirectory;
    case erofs::XattrPrefix::kPosixAclAccess:
      return owner != XattrOwner::kSymlink;
    case erofs::XattrPrefix::kPosixAclDefault:
      return owner == XattrOwner::kDirectory;
    default:
      return true;
  }
}

std::optional<Namespace> namespace_of(std::string_view name, XattrOwner owner) {
  for (const std::string_view prefix : kLeftOut) {
    if (name.starts_with(prefix)) {
      return std::nullopt;
    }
  }
  for (const Namespace& candidate : kNamespaces) {
    if (is_acl(candidate.index) ? name != candidate.prefix : !name.starts_with(candidate.prefix)) {
      continue;
    }
    return allows(owner, candidate.index) ? std::optional(candidate) : std::nullopt;
  }
  return std::nullopt;
}

// Whether the kernel stores nothing for this list.
bool says_nothing(erofs::XattrPrefix index, std::string_view list) {
  const auto acl = parse_acl(list);
  return is_empty_acl(list) ||
         (index == erofs::XattrPrefix::kPosixAclAccess && acl && acl->is_minimal);
}

void append_entry(std::string& body, erofs::XattrPrefix index, std::string_view suffix,
                  std::string_view value) {
  const erofs::XattrEntry entry{.e_name_len = static_cast<std::uint8_t>(suffix.size()),
                                .e_name_index = static_cast<std::uint8_t>(index),
                                .e_value_size = static_cast<std::uint16_t>(value.size())};
  body.append(reinterpret_cast<const char*>(&entry), sizeof entry);
  body.append(suffix);
  body.append(value);
  body.resize((body.size() + erofs::kXattrAlignment - 1) / erofs::kXattrAlignment *
              erofs::kXattrAlignment);
}

}  // namespace

Result<std::string> encode_xattrs(std::span<const Xattr> xattrs, XattrOwner owner) {
  std::map<std::string_view, std::string_view> sorted;
  for (const Xattr& xattr : xattrs) {
    sorted[xattr.name] = xattr.value;
  }
  std::string body;
  for (const auto& [name, value] : sorted) {
    const auto where = namespace_of(name, owner);
    if (!where || (is_acl(where->index) && says_nothing(where->index, value))) {
      continue;
    }
    const std::string_view suffix = name.substr(where->prefix.size());
    if (name.size() > kMaxName || (suffix.empty() && !is_acl(where->index))) {
      return fail("extended attribute '{}' has an impossible name", printable(name));
    }
    if (value.size() > kMaxValue) {
      return fail("extended attribute '{}' is longer than {} bytes", printable(name), kMaxValue);
    }
    if (is_acl(where->index) && !parse_acl(value)) {
      return fail("extended attribute '{}' is not a well-formed access control list",
                  printable(name));
    }
    append_entry(body, where->index, suffix, value);
    if (xattr_body_size(body.size() + encode_opaque_xattr().size()) > erofs::kMaxXattrBody) {
      return fail("its extended attributes together are longer than {} bytes",
                  erofs::kMaxXattrBody);
    }
  }
  return body;
}

std::uint16_t permissions_with(std::uint16_t permissions, std::span<const Xattr> xattrs) {
  std::optional<Acl> acl;
  for (const Xattr& xattr : xattrs) {
    if (xattr.name == kAccessAcl) {
      acl = parse_acl(xattr.value);
    }
  }
  return acl ? static_cast<std::uint16_t>((permissions & kSpecialPermissions) | acl->permissions)
             : permissions;
}

std::string encode_opaque_xattr() {
  std::string body;
  append_entry(body, erofs::XattrPrefix::kTrusted, kOverlayOpaque, kOpaqueValue);
  return body;
}

bool contains_opaque_xattr(std::string_view entries) {
  while (entries.size() >= sizeof(erofs::XattrEntry)) {
    erofs::XattrEntry entry{};
    std::memcpy(&entry, entries.data(), sizeof entry);
    std::string body;
    const std::size_t length = sizeof entry + entry.e_name_len + entry.e_value_size;
    if (length > entries.size()) {
      return false;
    }
    append_entry(body, static_cast<erofs::XattrPrefix>(entry.e_name_index),
                 entries.substr(sizeof entry, entry.e_name_len),
                 entries.substr(sizeof entry + entry.e_name_len, entry.e_value_size));
    if (body == encode_opaque_xattr()) {
      return true;
    }
    entries.remove_prefix(std::min(body.size(), entries.size()));
  }
  return false;
}

std::map<std::string, std::string> decode_xattrs(std::string_view entries) {
  std::map<std::string, std::string> xattrs;
  while (entries.size() >= sizeof(erofs::XattrEntry)) {
    erofs::XattrEntry entry{};
    std::memcpy(&entry, entries.data(), sizeof entry);
    const std::size_t length = sizeof entry + entry.e_name_len + entry.e_value_size;
    if (length > entries.size()) {
      break;
    }
    for (const Namespace& candidate : kNamespaces) {
      if (static_cast<std::uint8_t>(candidate.index) == entry.e_name_index) {
        std::string name(candidate.prefix);
        name += entries.substr(sizeof entry, entry.e_name_len);
        xattrs[std::move(name)] =
            entries.substr(sizeof entry + entry.e_name_len, entry.e_value_size);
      }
    }
    const std::size_t aligned =
        (length + erofs::kXattrAlignment - 1) / erofs::kXattrAlignment * erofs::kXattrAlignment;
    entries.remove_prefix(std::min(aligned, entries.size()));
  }
  xattrs.erase(std::string(kTrusted) + std::string(kOverlayOpaque));
  return xattrs;
}

std::size_t xattr_body_size(std::size_t entries_size) {
  return entries_size == 0 ? 0 : sizeof(erofs::XattrHeader) + entries_size;
}

}  // namespace msb::oci
