// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/posix_acl.hpp"

#include <doctest/doctest.h>
#include <linux/posix_acl.h>

#include <cstdint>
#include <vector>

#include "virtio/testing/acl_bytes.hpp"

namespace msb::virtio {
namespace {

using testing::acl_bytes;
using testing::AclLine;

constexpr std::uint32_t kNone = ~std::uint32_t{0};

std::vector<AclLine> minimal(std::uint16_t user, std::uint16_t group, std::uint16_t other) {
  return {{ACL_USER_OBJ, user, kNone}, {ACL_GROUP_OBJ, group, kNone}, {ACL_OTHER, other, kNone}};
}

std::vector<AclLine> named() {
  return {{ACL_USER_OBJ, 7, kNone},  {ACL_USER, 6, 1000},  {ACL_USER, 4, 1001},
          {ACL_GROUP_OBJ, 5, kNone}, {ACL_GROUP, 2, 2000}, {ACL_MASK, 6, kNone},
          {ACL_OTHER, 1, kNone}};
}

TEST_CASE("a list is read and written back, and says the mode") {
  const auto small = PosixAcl::parse(acl_bytes(minimal(6, 4, 0)));
  REQUIRE(small);
  CHECK(small->mode() == 0640);
  CHECK(small->is_minimal());
  const auto bytes = acl_bytes(named());
  const auto full = PosixAcl::parse(bytes);
  REQUIRE(full);
  CHECK(full->mode() == 0761);  // the mask is the group's
  CHECK_FALSE(full->is_minimal());
  CHECK(full->bytes() == bytes);
}

TEST_CASE("chmod changes the mask, not what named ones were given") {
  auto acl = PosixAcl::parse(acl_bytes(named()));
  REQUIRE(acl);
  acl->set_mode(0417);
  CHECK(acl->mode() == 0417);
  auto expected = named();
  expected[0].permissions = 4;
  expected[5].permissions = 1;
  expected[6].permissions = 7;
  CHECK(acl->bytes() == acl_bytes(expected));
}

TEST_CASE("what is inherited gives no more than was asked for, and no more than the list") {
  auto acl = PosixAcl::parse(acl_bytes(named()));
  REQUIRE(acl);
  CHECK(acl->limit(0666) == 0660);
  CHECK(acl->mode() == 0660);
}

TEST_CASE("what is no list is none") {
  using Lines = std::vector<AclLine>;
  auto without_mask = named();
  without_mask.erase(without_mask.begin() + 5);
  auto unordered = named();
  std::swap(unordered[0], unordered[1]);
  auto doubled = named();
  doubled.insert(doubled.begin() + 5, doubled[5]);
  auto unknown = named();
  unknown[1].tag = 3;
  auto too_much = named();
  too_much[1].permissions = 8;
  for (const Lines& lines : {Lines{}, without_mask, unordered, doubled, unknown, too_much,
                             Lines{{ACL_USER_OBJ, 7, kNone}, {ACL_OTHER, 7, kNone}}}) {
    CHECK_FALSE(PosixAcl::parse(acl_bytes(lines)));
  }
  auto bytes = acl_bytes(named());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CHECK_FALSE(PosixAcl::parse(std::span(bytes).first(size)));
  }
  bytes[0] = std::byte{1};
  CHECK_FALSE(PosixAcl::parse(bytes));
}

}  // namespace
}  // namespace msb::virtio
