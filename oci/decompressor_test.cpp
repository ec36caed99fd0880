// SPDX-License-Identifier: Apache-2.0
#include "oci/decompressor.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::gzip;
using testing::zstd;

Result<std::string> unpack(Compression compression, std::string_view packed,
                           std::size_t piece_size) {
  testing::Pieces pieces(packed, piece_size);
  const auto decompressor = make_decompressor(compression, pieces);
  std::string content;
  for (;;) {
    const auto piece = decompressor->next();
    if (!piece) {
      return std::unexpected(piece.error());
    }
    if (piece->empty()) {
      return content;
    }
    content.append(reinterpret_cast<const char*>(piece->data()), piece->size());
  }
}

// Compressible in parts only, longer than the output buffer and the history.
std::string sample(std::size_t size) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() < size) {
    text += random() % 3 == 0 ? std::string(random() % 400, 'x') : std::to_string(random());
  }
  text.resize(size);
  return text;
}

TEST_CASE("decompressors give back the content for any size of pieces") {
  for (const std::size_t size : {0, 1, 1000, 300'000, 1'000'000}) {
    const std::string content = sample(size);
    for (const std::size_t piece : {1UL, 2UL, 7UL, 4096UL, 1UL << 20}) {
      if (piece < 7 && size > 300'000) {
        continue;
      }
      CAPTURE(size);
      CAPTURE(piece);
      CHECK(unpack(Compression::kNone, content, piece).value() == content);
      CHECK(unpack(Compression::kGzip, gzip(content), piece).value() == content);
      CHECK(unpack(Compression::kZstd, zstd(content), piece).value() == content);
    }
  }
}

TEST_CASE("gzip of several members and zstd of several frames are read to the end") {
  const std::string first = sample(70'000);
  const std::string last = "the end";
  for (const std::size_t piece : {1UL, 3UL, 5000UL, 1UL << 20}) {
    CAPTURE(piece);
    CHECK(unpack(Compression::kGzip, gzip(first) + gzip("") + gzip(last), piece).value() ==
          first + last);
    CHECK(unpack(Compression::kZstd, zstd(first) + zstd("") + zstd(last), piece).value() ==
          first + last);
  }
}

TEST_CASE("gzip member with a name, a comment and an extra field in its header is read") {
  const std::string plain = gzip("content");
  std::string header("\x1f\x8b\x08\x1c\0\0\0\0\0\x03", 10);  // FEXTRA, FNAME, FCOMMENT
  header += std::string("\x05\0extra", 7) + std::string("name\0", 5) + std::string("comment\0", 8);
  for (const std::size_t piece : {1UL, 100UL}) {
    CHECK(unpack(Compression::kGzip, header + plain.substr(10), piece).value() == "content");
  }
}

TEST_CASE("compressed data that ends early is refused at every length") {
  for (const auto& [compression, packed] : {std::pair(Compression::kGzip, gzip(sample(3000))),
                                            std::pair(Compression::kZstd, zstd(sample(3000)))}) {
    for (std::size_t length = 0; length < packed.size(); ++length) {
      CAPTURE(length);
      const auto unpacked = unpack(compression, packed.substr(0, length), 64);
      // An empty zstd file has no frame, which is an end like any other only once there was one.
      REQUIRE_FALSE(unpacked);
      CHECK(unpacked.error().message.find("ends early") != std::string::npos);
    }
  }
}

TEST_CASE("compressed data with a flipped bit never gives other content") {
  const std::string content = sample(3000);
  for (const auto& [compression, packed] : {std::pair(Compression::kGzip, gzip(content)),
                                            std::pair(Compression::kZstd, zstd(content))}) {
    for (std::size_t at = 0; at < packed.size(); ++at) {
      std::string damaged = packed;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
      const auto unpacked = unpack(compression, damaged, 512);
      // zstd frames have no checksum here, and the blob's digest is what counts; gzip's must be
      // noticed.
      if (compression == Compression::kGzip && unpacked) {
        CHECK(*unpacked == content);
      }
    }
  }
}

TEST_CASE("compressed data followed by something else is refused") {
  CHECK_FALSE(unpack(Compression::kGzip, gzip("content") + "garbage", 4096));
  CHECK_FALSE(unpack(Compression::kGzip, gzip("content") + std::string(20, '\0'), 4096));
  CHECK_FALSE(unpack(Compression::kZstd, zstd("content") + "garbage", 4096));
}

}  // namespace
}  // namespace msb::oci
