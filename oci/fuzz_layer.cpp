// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a layer's blob, converted whole. The first byte says how the rest is packed;
// with kTarRepaired the headers' checksums are put right, or few changes would get past them.
// Digests and sizes are those of the input. Whatever is accepted must be an image in which
// test_listing.cpp's reader finds nothing out of order.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "oci/decompressor.hpp"
#include "oci/layer.hpp"
#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

constexpr LayerLimits kLimits{.tar_bytes = std::uint64_t{1} << 20, .entries = 300};

enum class Packing : std::uint8_t { kTarRepaired, kTar, kGzip, kZstd };
constexpr unsigned kPackings = 4;

Compression compression_of(Packing packing) {
  switch (packing) {
    case Packing::kGzip:
      return Compression::kGzip;
    case Packing::kZstd:
      return Compression::kZstd;
    default:
      return Compression::kNone;
  }
}

void put_checksums_right(std::string& tar) {
  constexpr std::size_t kBlock = 512;
  for (std::size_t at = 0; at + kBlock <= tar.size(); at += kBlock) {
    if (std::string_view(tar).substr(at + 257, 5) != "ustar") {
      continue;
    }
    tar.replace(at + 148, 8, "        ");
    unsigned sum = 0;
    for (std::size_t i = 0; i < kBlock; ++i) {
      sum += static_cast<unsigned char>(tar[at + i]);
    }
    tar.replace(at + 148, 7, fmt::format("{:06o}", sum) + std::string(1, '\0'));
  }
}

// The diff ID of what the blob unpacks to, as far as it does.
Digest unpacked_digest(std::string_view blob, Compression compression) {
  testing::Pieces pieces(blob, 1000);
  const auto unpacked = make_decompressor(compression, pieces);
  Hasher hasher;
  std::uint64_t size = 0;
  for (;;) {
    const auto piece = unpacked->next();
    if (!piece || piece->empty() || size > kLimits.tar_bytes) {
      return hasher.finish();
    }
    size += piece->size();
    hasher.update(*piece);
  }
}

// What the reader does not say by itself: every name is counted, and the links are the names.
void check(const testing::Listing& listing, const LayerStatistics& statistics) {
  std::map<std::uint64_t, unsigned> names;
  std::map<std::string, unsigned> subdirectories;
  for (const auto& [path, file] : listing) {
    ++names[file.inode];
    if (S_ISDIR(file.mode) && !path.empty()) {
      const auto slash = path.rfind('/');
      ++subdirectories[slash == std::string::npos ? "" : path.substr(0, slash)];
    }
  }
  for (const auto& [path, file] : listing) {
    const unsigned links = S_ISDIR(file.mode) ? 2 + subdirectories[path] : names[file.inode];
    if (file.links != links) {
      std::abort();
    }
  }
  if (listing.size() != statistics.entries + 1U || statistics.entries > kLimits.entries) {
    std::abort();
  }
}

}  // namespace
}  // namespace msb::oci

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb::oci;
  if (size == 0) {
    return 0;
  }
  const auto packing = static_cast<Packing>(*data % kPackings);
  std::string blob(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (packing == Packing::kTarRepaired) {
    put_checksums_right(blob);
  }
  const Compression compression = compression_of(packing);
  const Layer layer{.blob = {"", testing::digest_of(blob), blob.size()},
                    .compression = compression,
                    .diff_id = unpacked_digest(blob, compression)};
  static const msb::Fd output = testing::temporary_file();
  if (::ftruncate(output.get(), 0) != 0 || ::lseek(output.get(), 0, SEEK_SET) != 0) {
    std::abort();
  }
  testing::Pieces pieces(blob, 700);
  const auto converted = convert_layer(pieces, layer, output.get(), kLimits);
  if (!converted) {
    // One sentence in one line, whatever the names in the layer are.
    if (converted.error().message.find_first_of("\n\x1b") != std::string::npos) {
      std::abort();
    }
  } else {
    check(testing::read_image(output.get()), *converted);
  }
  return 0;
}
