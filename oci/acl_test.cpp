// SPDX-License-Identifier: Apache-2.0
#include "oci/acl.hpp"

#include <doctest/doctest.h>

#include <initializer_list>
#include <string>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::Tar;

struct Entry {
  unsigned tag;
  unsigned permissions;
  std::uint32_t id = 0xFFFFFFFF;
};

std::string acl(std::initializer_list<Entry> entries) {
  std::string value("\x02\0\0\0", 4);
  for (const Entry& entry : entries) {
    for (const unsigned number : {entry.tag, entry.permissions}) {
      value += static_cast<char>(number & 0xFFU);
      value += static_cast<char>(number >> 8U);
    }
    for (unsigned shift = 0; shift < 32; shift += 8) {
      value += static_cast<char>(entry.id >> shift);
    }
  }
  return value;
}

const std::string kMinimal = acl({{1, 6}, {4, 4}, {0x20, 0}});
const std::string kNamed =
    acl({{1, 7}, {2, 6, 1000}, {2, 4, 1001}, {4, 7}, {8, 1, 50}, {0x10, 5}, {0x20, 1}});

TEST_CASE("list says what it makes of the permission bits") {
  CHECK(parse_acl(kMinimal)->permissions == 0640);
  CHECK(parse_acl(kMinimal)->is_minimal);
  CHECK(parse_acl(kNamed)->permissions == 0751);
  CHECK_FALSE(parse_acl(kNamed)->is_minimal);
  CHECK(parse_acl(acl({{1, 7}, {4, 7}, {0x10, 0}, {0x20, 7}}))->permissions == 0707);
}

TEST_CASE("list that the kernel refuses is none") {
  CHECK_FALSE(parse_acl(""));
  CHECK_FALSE(parse_acl(kMinimal.substr(0, kMinimal.size() - 1)));
  CHECK_FALSE(parse_acl("\x03" + kMinimal.substr(1)));
  CHECK_FALSE(parse_acl(acl({})));
  CHECK_FALSE(parse_acl(acl({{1, 6}, {4, 4}})));
  CHECK_FALSE(parse_acl(acl({{4, 4}, {1, 6}, {0x20, 0}})));
  CHECK_FALSE(parse_acl(acl({{1, 6}, {1, 6}, {4, 4}, {0x20, 0}})));
  CHECK_FALSE(parse_acl(acl({{1, 8}, {4, 4}, {0x20, 0}})));
  CHECK_FALSE(parse_acl(acl({{1, 6}, {3, 6}, {4, 4}, {0x20, 0}})));
  CHECK_FALSE(parse_acl(acl({{1, 6}, {2, 6, 1000}, {4, 4}, {0x20, 0}})));       // no mask
  CHECK_FALSE(parse_acl(acl({{1, 6}, {2, 6}, {4, 4}, {0x10, 4}, {0x20, 0}})));  // no user
  CHECK(is_empty_acl(acl({})));
  CHECK_FALSE(is_empty_acl(kMinimal));
  CHECK_FALSE(is_empty_acl(""));
}

testing::ImageFile file_with(const std::string& list, unsigned mode, char type = '0') {
  return testing::convert(Tar().add({.name = "f", .type = type, .link = "target", .mode = mode}, {},
                                    {{"SCHILY.xattr.system.posix_acl_access", list}}))
      .at("f");
}

TEST_CASE("file with a list has the permissions that unpacking the list gives it") {
  CHECK((file_with(kNamed, 04600).mode & 07777U) == 04751);
  CHECK(file_with(kNamed, 04600).xattrs.at("system.posix_acl_access") == kNamed);
  CHECK((file_with(kMinimal, 0777).mode & 07777U) == 0640);
  CHECK(file_with(kMinimal, 0777).xattrs.empty());
  CHECK((file_with(acl({}), 0711).mode & 07777U) == 0711);
  CHECK(file_with(acl({}), 0711).xattrs.empty());
  CHECK((file_with(kNamed, 0777, '2').mode & 07777U) == 0777);
  CHECK(file_with(kNamed, 0777, '2').xattrs.empty());
}

}  // namespace
}  // namespace msb::oci
