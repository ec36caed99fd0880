// SPDX-License-Identifier: Apache-2.0
#include "oci/xattrs.hpp"

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::Tar;
using Map = std::map<std::string, std::string>;

// What becomes of `xattrs` on an entry of the kind `type`.
Map kept(const Map& xattrs, char type = '0') {
  Tar::Records records;
  for (const auto& [name, value] : xattrs) {
    records.emplace_back("SCHILY.xattr." + name, value);
  }
  return testing::convert(Tar().add({.name = "f", .type = type, .link = "target"}, {}, records))
      .at("f")
      .xattrs;
}

std::string error_of(std::string_view name, std::string_view value) {
  const Xattr xattr{name, value};
  const auto encoded = encode_xattrs({&xattr, 1}, XattrOwner::kDirectory);
  REQUIRE_FALSE(encoded);
  return encoded.error().message;
}

const std::string kAcl =
    std::string("\x02\0\0\0", 4) + std::string("\x01\0\x06\0\xff\xff\xff\xff", 8) +
    std::string("\x02\0\x06\0\xe8\x03\0\0", 8) + std::string("\x04\0\x04\0\xff\xff\xff\xff", 8) +
    std::string("\x10\0\x06\0\xff\xff\xff\xff", 8) + std::string("\x20\0\0\0\xff\xff\xff\xff", 8);

TEST_CASE("attributes of files are kept with any bytes in their values") {
  const Map xattrs = {{"user.comment", "hello"},
                      {"user.binary", std::string("\0\n=\xff", 4)},
                      {"trusted.mine", "x"},
                      {"security.capability", std::string(20, '\1')},
                      {"system.posix_acl_access", kAcl}};
  CHECK(kept(xattrs) == xattrs);
}

TEST_CASE("attributes that steer overlayfs or belong to a host are left out") {
  CHECK(kept({{"trusted.overlay.opaque", "y"},
              {"trusted.overlay.redirect", "/etc"},
              {"trusted.overlay.metacopy", ""},
              {"user.overlay.whiteout", ""},
              {"user.overlay.opaque", "y"},
              {"security.selinux", "unconfined_u:object_r:user_t:s0"},
              {"system.nfs4_acl", "x"},
              {"btrfs.compression", "zstd"},
              {"nonsense", "x"}})
            .empty());
  CHECK(kept({{"trusted.overlay.opaque", "y"}}, '5').empty());
  CHECK(kept({{"user.overlayed", "x"}}) == Map{{"user.overlayed", "x"}});
}

TEST_CASE("attributes that the kernel refuses for a kind of file are left out") {
  const Map all = {{"user.x", "1"}, {"trusted.x", "2"}, {"system.posix_acl_default", kAcl}};
  CHECK(kept(all, '5') == all);
  CHECK(kept(all, '0') == Map{{"user.x", "1"}, {"trusted.x", "2"}});
  CHECK(kept(all, '2') == Map{{"trusted.x", "2"}});
  CHECK(kept(all, '6') == Map{{"trusted.x", "2"}});
}

TEST_CASE("attribute given twice has its last value") {
  const auto files = testing::convert(Tar().add(
      {.name = "f"}, {}, {{"SCHILY.xattr.user.x", "first"}, {"SCHILY.xattr.user.x", "last"}}));
  CHECK(files.at("f").xattrs == Map{{"user.x", "last"}});
}

TEST_CASE("attribute without a value is none, as archives are read elsewhere") {
  CHECK(kept({{"user.empty", ""}, {"user.x", "1"}}) == Map{{"user.x", "1"}});
}

TEST_CASE("attributes give equal bytes in any order") {
  const Xattr a{"user.a", "1"};
  const Xattr b{"user.b", "2"};
  const Xattr forward[] = {a, b};
  const Xattr backward[] = {b, a};
  CHECK(*encode_xattrs(forward, XattrOwner::kRegular) ==
        *encode_xattrs(backward, XattrOwner::kRegular));
}

TEST_CASE("attribute beyond the limits of Linux is refused by name") {
  CHECK(error_of("user." + std::string(251, 'n'), "x").find("impossible name") !=
        std::string::npos);
  CHECK(error_of("user.", "x").find("'user.'") != std::string::npos);
  CHECK(error_of("user.large", std::string(65536, 'x')).find("'user.large'") != std::string::npos);
  CHECK(error_of("system.posix_acl_access", "x").find("access control list") != std::string::npos);
  CHECK(error_of("system.posix_acl_access", std::string(12, '\x07')).find("access control list") !=
        std::string::npos);

  std::map<std::string, std::string> many;
  std::vector<Xattr> xattrs;
  for (char c = 'a'; c <= 'e'; ++c) {
    const auto& [name, value] =
        *many.emplace(std::string("user.") + c, std::string(65000, c)).first;
    xattrs.push_back({name, value});
  }
  CHECK(encode_xattrs(std::span(xattrs).first(4), XattrOwner::kRegular));
  CHECK_FALSE(encode_xattrs(xattrs, XattrOwner::kRegular));
}

TEST_CASE("opaque attribute is found among others and nowhere else") {
  const Xattr other{"user.overlay_opaque", "y"};
  const std::string entries = *encode_xattrs({&other, 1}, XattrOwner::kDirectory);
  CHECK_FALSE(contains_opaque_xattr(""));
  CHECK_FALSE(contains_opaque_xattr(entries));
  CHECK(contains_opaque_xattr(encode_opaque_xattr()));
  CHECK(contains_opaque_xattr(entries + encode_opaque_xattr()));
  CHECK_FALSE(contains_opaque_xattr(encode_opaque_xattr().substr(0, 10)));
}

}  // namespace
}  // namespace msb::oci
