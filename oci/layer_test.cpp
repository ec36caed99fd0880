// SPDX-License-Identifier: Apache-2.0
#include "oci/layer.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <string>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::PackedLayer;
using testing::Tar;

Result<LayerStatistics> convert(const PackedLayer& packed, const LayerLimits& limits = {}) {
  testing::Pieces blob(packed.blob, 64 << 10);
  const Fd output = testing::temporary_file();
  return convert_layer(blob, packed.layer, output.get(), limits);
}

std::string error_of(const PackedLayer& packed, const LayerLimits& limits = {}) {
  const auto converted = convert(packed, limits);
  REQUIRE_FALSE(converted);
  CHECK(converted.error().message.starts_with("layer " + packed.layer.blob.digest.to_string() +
                                              ": "));
  return converted.error().message;
}

bool contains(const std::string& text, std::string_view part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

Tar sample() {
  return Tar().directory("d").file("d/f", std::string(10'000, 'x')).file("a/b", "y");
}

// A layer whose blob says what its digest promises, however broken the tar is.
PackedLayer pack_bytes(std::string_view tar) {
  return testing::pack(tar, Compression::kGzip);
}

TEST_CASE("layer in each compression gives its statistics") {
  for (const Compression compression :
       {Compression::kNone, Compression::kGzip, Compression::kZstd}) {
    const PackedLayer packed = testing::pack(sample().bytes(), compression);
    const auto statistics = convert(packed);
    REQUIRE(statistics);
    CHECK(statistics->blob_bytes == packed.blob.size());
    CHECK(statistics->tar_bytes == sample().bytes().size());
    CHECK(statistics->image_bytes % 4096 == 0);
    CHECK(statistics->entries == 4);
    CHECK(statistics->implied_directories == 1);
  }
}

TEST_CASE("layer without an end marker or with bytes behind it counts them in its diff ID") {
  CHECK(convert(pack_bytes(sample().without_end())));
  CHECK(convert(pack_bytes(sample().bytes() + std::string(10'240, '\0'))));
  const auto statistics = convert(pack_bytes(sample().bytes() + "anything at all"));
  REQUIRE(statistics);
  CHECK(statistics->tar_bytes == sample().bytes().size() + 15);
  CHECK(convert(pack_bytes("")));
}

TEST_CASE(
    "blob that does not match its digest is refused with what was found") {  // hostile-input 33
  PackedLayer packed = testing::pack(sample().bytes());
  const PackedLayer other = testing::pack(Tar().file("other", std::string(10'000, 'y')).bytes());

  SUBCASE("sound but another one") {
    packed.blob = other.blob;
    packed.layer.blob.size = other.blob.size();
    const std::string message = error_of(packed);
    CHECK(contains(message, "does not match its digest"));
    CHECK(contains(message, other.layer.blob.digest.to_string()));
  }
  SUBCASE("damaged so that it cannot be unpacked") {
    packed.blob[packed.blob.size() / 2] =
        static_cast<char>(packed.blob[packed.blob.size() / 2] ^ 1);
    CHECK(contains(error_of(packed), "does not match its digest"));
  }
  SUBCASE("cut off") {
    packed.blob.resize(packed.blob.size() - 1);
    CHECK(contains(error_of(packed), fmt::format("{} bytes instead of", packed.blob.size())));
  }
  SUBCASE("longer") {
    packed.blob += "x";
    CHECK(contains(error_of(packed), "the blob is longer than"));
  }
  SUBCASE("empty") {
    packed.blob.clear();
    CHECK(contains(error_of(packed), "0 bytes instead of"));
  }
}

TEST_CASE("layer that unpacks to another diff ID is refused with both") {
  PackedLayer packed = testing::pack(sample().bytes());
  packed.layer.diff_id = testing::digest_of("another");
  const std::string message = error_of(packed);
  CHECK(contains(message, testing::digest_of("another").to_string()));
  CHECK(contains(message, testing::digest_of(sample().bytes()).to_string()));
}

TEST_CASE("tar that is cut off is refused unless it ends between entries") {  // hostile-input 33
  const std::string tar =
      Tar().directory("d").file("d/f", std::string(1000, 'x')).file("b", "y").without_end();
  for (std::size_t length = 1; length < tar.size(); length += 3) {
    CAPTURE(length);
    // Blocks: header of d; header of d/f and two of content; header of b and one of content.
    // Padding is not missed.
    const bool between = length % 512 == 0 && (length == 512 || length >= 2048);
    const bool in_padding = (length >= 1024 + 1000 && length <= 2048) || length > 2560;
    CHECK(convert(pack_bytes(tar.substr(0, length))).has_value() ==
          (in_padding || (between && length <= 2048)));
  }
}

TEST_CASE("tar with a bad checksum or no tar at all is refused") {  // hostile-input 33
  std::string tar = sample().bytes();
  tar[0] = 'X';
  CHECK(contains(error_of(pack_bytes(tar)), "tar archive is broken"));
  tar = sample().bytes();
  tar[512] = static_cast<char>(tar[512] ^ 1);
  CHECK(contains(error_of(pack_bytes(tar)), "tar archive is broken"));
  CHECK(contains(error_of(pack_bytes(std::string(5000, 'x'))), "tar archive is broken"));
  CHECK(contains(error_of(pack_bytes("PK\x03\x04" + std::string(600, 'x'))),
                 "tar archive is broken"));
}

TEST_CASE(
    "every single-byte change of a tar is refused, or harmless, and never fatal") {  // hostile-input
                                                                                     // 33
  const std::string tar =
      Tar()
          .directory("d")
          .add({.name = "d/f"}, "content", {{"mtime", "1.5"}, {"SCHILY.xattr.user.x", "v"}})
          .symlink("s", "d")
          .hard_link("h", "d/f")
          .file(".wh.w")
          .bytes();
  for (std::size_t at = 0; at + 1024 < tar.size(); ++at) {
    for (const int value : {0x00, 0x37, 0xFF}) {
      std::string changed = tar;
      changed[at] = static_cast<char>(value);
      const auto converted = convert(testing::pack(changed, Compression::kNone));
      CHECK((converted || !converted.error().message.empty()));
    }
  }
}

TEST_CASE("layer that unpacks beyond the limit is refused") {  // hostile-input 33
  const PackedLayer packed =
      pack_bytes(Tar().file("zeros", std::string(std::size_t{20} << 20, '\0')).bytes());
  CHECK(packed.blob.size() < (1 << 19));
  CHECK(contains(error_of(packed, {.tar_bytes = 1 << 20}), "longer than 1048576 bytes"));
  CHECK(convert(packed, {.tar_bytes = packed.layer.blob.size + (21 << 20)}));
}

TEST_CASE(
    "sparse file that is larger than the limit is refused though its tar is small") {  // hostile-input
                                                                                       // 33
  const std::string size = std::to_string(std::uint64_t{1} << 62);
  const PackedLayer packed = pack_bytes(Tar()
                                            .add({.name = "f"}, {},
                                                 {{"GNU.sparse.size", size},
                                                  {"GNU.sparse.numblocks", "1"},
                                                  {"GNU.sparse.map", size + ",0"}})
                                            .bytes());
  CHECK(contains(error_of(packed), "files of the layer are longer"));
}

TEST_CASE("layer with more entries than the limit is refused") {  // hostile-input 33
  Tar tar;
  for (int i = 0; i < 101; ++i) {
    tar.file(std::to_string(i));
  }
  CHECK(convert(pack_bytes(tar.bytes()), {.entries = 101}));
  CHECK(contains(error_of(pack_bytes(tar.bytes()), {.entries = 100}), "more than 100 entries"));
}

TEST_CASE("headers without end are refused before they fill the memory") {  // hostile-input 33
  SUBCASE("a pax record of 8 MiB") {
    const PackedLayer packed = pack_bytes(
        Tar()
            .add({.name = "f"}, {}, {{"comment", std::string(std::size_t{8} << 20, 'x')}})
            .bytes());
    CHECK(contains(error_of(packed), "extended header is longer"));
  }
  SUBCASE("a sparse map of a million holes") {
    std::string map = "1000000\n";
    for (int i = 0; i < 1'000'000; ++i) {
      map += "0\n0\n";
    }
    const PackedLayer packed = pack_bytes(Tar()
                                              .add({.name = "f"}, map,
                                                   {{"GNU.sparse.major", "1"},
                                                    {"GNU.sparse.minor", "0"},
                                                    {"GNU.sparse.realsize", "10"}})
                                              .bytes());
    CHECK(contains(error_of(packed), "sparse map has more than"));
  }
}

TEST_CASE("content of a whiteout, a link or a directory is skipped") {
  const auto converted = convert(pack_bytes(Tar()
                                                .file("f", "x")
                                                .add({.name = ".wh.w"}, std::string(100'000, 'x'))
                                                .file("last", "y")
                                                .bytes()));
  REQUIRE(converted);
  CHECK(converted->entries == 3);
}

TEST_CASE("output that cannot be written fails with the system's reason") {
  const PackedLayer packed = testing::pack(sample().bytes());
  testing::Pieces blob(packed.blob, 4096);
  const Fd full(::open("/dev/full", O_RDWR | O_CLOEXEC));
  const auto converted = convert_layer(blob, packed.layer, full.get());
  REQUIRE_FALSE(converted);
  CHECK(converted.error().code == ENOSPC);
}

}  // namespace
}  // namespace msb::oci
