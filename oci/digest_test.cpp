// SPDX-License-Identifier: Apache-2.0
#include "oci/digest.hpp"

#include <doctest/doctest.h>

#include <string>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

constexpr std::string_view kEmpty =
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST_CASE("digest of a known text is the one of FIPS 180-4") {
  CHECK(testing::digest_of("").to_string() == kEmpty);
  CHECK(testing::digest_of("abc").hex() ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("digest text survives parsing and formatting") {
  const auto digest = Digest::parse(kEmpty);
  REQUIRE(digest);
  CHECK(digest->to_string() == kEmpty);
  CHECK(*digest == testing::digest_of(""));
}

TEST_CASE("digest that is not strictly sha256 and 64 lowercase digits is refused") {
  const std::string hex(64, 'a');
  for (const std::string& text :
       {std::string(), hex, "sha256:" + hex + "a", "sha256:" + hex.substr(1),
        "sha256:" + std::string(64, 'A'), "sha512:" + hex, "SHA256:" + hex,
        "sha256:" + hex.substr(4) + "/../", " sha256:" + hex, "sha256:" + hex.substr(1) + "g",
        "sha256:" + hex.substr(1) + "\n"}) {
    CAPTURE(text);
    CHECK_FALSE(Digest::parse(text));
  }
}

TEST_CASE("hasher gives the same digest for any division into pieces and starts anew") {
  Hasher hasher;
  for (int round = 0; round < 2; ++round) {
    hasher.update(bytes("a"));
    hasher.update({});
    hasher.update(bytes("bc"));
    CHECK(hasher.finish() == testing::digest_of("abc"));
  }
}

}  // namespace
}  // namespace msb::oci
