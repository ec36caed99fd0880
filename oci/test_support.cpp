// SPDX-License-Identifier: Apache-2.0
#include "oci/test_support.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <isa-l/igzip_lib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "oci/file_source.hpp"
#include "oci/layer.hpp"

namespace msb::oci::testing {
namespace {

constexpr std::size_t kTarBlock = 512;

std::string octal(std::uint64_t value, std::size_t width) {
  return fmt::format("{:0{}o}", value, width - 1);
}

std::string padded(std::string_view content) {
  std::string block(content);
  block.resize((block.size() + kTarBlock - 1) / kTarBlock * kTarBlock);
  return block;
}

std::string encode_header(const TarHeader& header, std::uint64_t size) {
  std::string block(kTarBlock, '\0');
  const auto put = [&](std::size_t offset, std::size_t width, std::string_view text) {
    const std::string_view fitting = text.substr(0, width);
    block.replace(offset, fitting.size(), fitting);
  };
  put(0, 100, header.name);
  put(100, 8, octal(header.mode, 8));
  put(108, 8, octal(header.uid, 8));
  put(116, 8, octal(header.gid, 8));
  put(124, 12, octal(size, 12));
  put(136, 12, octal(header.mtime, 12));
  put(148, 8, "        ");
  block[156] = header.type;
  put(157, 100, header.link);
  put(257, 8,
      std::string_view("ustar\0"
                       "00",
                       8));
  put(329, 8, octal(header.major, 8));
  put(337, 8, octal(header.minor, 8));
  unsigned sum = 0;
  for (const char c : block) {
    sum += static_cast<unsigned char>(c);
  }
  put(148, 8, octal(sum, 7) + std::string(1, '\0'));
  return block;
}

Compression compression_for(std::string_view media_type) {
  return *layer_compression(media_type);
}

std::string media_type_of(Compression compression) {
  const std::string base = "application/vnd.oci.image.layer.v1.tar";
  for (const std::string& type : {base, base + "+gzip", base + "+zstd"}) {
    if (compression_for(type) == compression) {
      return type;
    }
  }
  throw std::runtime_error("no media type");
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "msb-oci-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    throw std::runtime_error("cannot create a temporary directory");
  }
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_file(const std::string& path, std::string_view content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

Fd temporary_file(std::string_view content) {
  Fd fd(::memfd_create("msb-oci-test", MFD_CLOEXEC));
  if (::pwrite(fd.get(), content.data(), content.size(), 0) != std::ssize(content)) {
    throw std::runtime_error("cannot write a temporary file");
  }
  return fd;
}

std::vector<std::string> list_directory(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

Tar& Tar::add(const TarHeader& header, std::string_view content, const Records& pax) {
  if (!pax.empty()) {
    const std::string records = pax_records(pax);
    bytes_ +=
        encode_header({.name = "PaxHeaders/x", .type = 'x'}, records.size()) + padded(records);
  }
  bytes_ += encode_header(header, content.size()) + padded(content);
  return *this;
}

Tar& Tar::file(const std::string& name, std::string_view content) {
  return add({.name = name}, content);
}
Tar& Tar::directory(const std::string& name, unsigned mode) {
  return add({.name = name, .type = '5', .mode = mode});
}
Tar& Tar::symlink(const std::string& name, const std::string& target) {
  return add({.name = name, .type = '2', .link = target, .mode = 0777});
}
Tar& Tar::hard_link(const std::string& name, const std::string& target) {
  return add({.name = name, .type = '1', .link = target});
}
Tar& Tar::raw(std::string_view bytes) {
  bytes_ += bytes;
  return *this;
}

std::string pax_records(const Tar::Records& records) {
  std::string text;
  for (const auto& [key, value] : records) {
    const std::size_t rest = key.size() + value.size() + 3;  // blank, "=" and newline
    std::size_t length = rest + 1;
    while (fmt::format("{}", length).size() + rest != length) {
      ++length;
    }
    text += fmt::format("{} {}=", length, key) + value + "\n";
  }
  return text;
}

std::string gzip(std::string_view content) {
  std::string packed(content.size() + content.size() / 8 + 1024, '\0');
  isal_zstream stream;
  isal_deflate_init(&stream);
  stream.gzip_flag = IGZIP_GZIP;
  stream.end_of_stream = 1;
  stream.next_in = reinterpret_cast<std::uint8_t*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<std::uint32_t>(content.size());
  stream.next_out = reinterpret_cast<std::uint8_t*>(packed.data());
  stream.avail_out = static_cast<std::uint32_t>(packed.size());
  if (isal_deflate(&stream) != COMP_OK || stream.avail_in != 0) {
    throw std::runtime_error("cannot compress");
  }
  packed.resize(stream.total_out);
  return packed;
}

std::string zstd(std::string_view content) {
  std::string packed(ZSTD_compressBound(content.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), content.data(), content.size(), 1));
  return packed;
}

Result<std::span<const std::byte>> Pieces::next() {
  const auto piece = rest_.substr(0, size_);
  rest_.remove_prefix(piece.size());
  return std::as_bytes(std::span(piece));
}

Digest digest_of(std::string_view content) {
  return Digest::of(std::as_bytes(std::span(content)));
}

PackedLayer pack(std::string_view tar, Compression compression) {
  std::string blob = compression == Compression::kGzip   ? gzip(tar)
                     : compression == Compression::kZstd ? zstd(tar)
                                                         : std::string(tar);
  Layer layer{.blob = {media_type_of(compression), digest_of(blob), blob.size()},
              .compression = compression,
              .diff_id = digest_of(tar)};
  return {std::move(layer), std::move(blob)};
}

std::string write_blob(const std::string& path, std::string_view media_type,
                       std::string_view content) {
  const std::string directory = path + "/blobs/sha256";
  std::filesystem::create_directories(directory);
  const Digest digest = digest_of(content);
  write_file(directory + "/" + digest.hex(), content);
  return fmt::format(R"({{"mediaType":"{}","digest":"{}","size":{}}})", media_type,
                     digest.to_string(), content.size());
}

void write_index(const std::string& path, std::string_view manifests) {
  std::filesystem::create_directories(path);
  write_file(path + "/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  write_file(path + "/index.json",
             fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", manifests));
}

void write_layout(const std::string& path, const std::vector<PackedLayer>& layers,
                  std::string_view tag) {
  std::string descriptors;
  std::string diff_ids;
  for (const PackedLayer& packed : layers) {
    const char* comma = descriptors.empty() ? "" : ",";
    descriptors += comma + write_blob(path, packed.layer.blob.media_type, packed.blob);
    diff_ids += fmt::format(R"({}"{}")", comma, packed.layer.diff_id.to_string());
  }
  const std::string config = write_blob(
      path, "application/vnd.oci.image.config.v1+json",
      fmt::format(
          R"({{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{}]}}}})",
          diff_ids));
  std::string manifest = write_blob(
      path, "application/vnd.oci.image.manifest.v1+json",
      fmt::format(R"({{"schemaVersion":2,"config":{},"layers":[{}]}})", config, descriptors));
  manifest.pop_back();
  write_index(path,
              fmt::format(R"({},"annotations":{{"org.opencontainers.image.ref.name":"{}"}}}})",
                          manifest, tag));
}

Listing convert(const Tar& tar) {
  const PackedLayer packed = pack(tar.bytes(), Compression::kNone);
  const Fd blob = temporary_file(packed.blob);
  const Fd output = temporary_file();
  FileSource source(blob.get());
  const auto converted = convert_layer(source, packed.layer, output.get());
  if (!converted) {
    throw std::runtime_error(converted.error().message);
  }
  return read_image(output.get());
}

std::string conversion_error(const Tar& tar) {
  const PackedLayer packed = pack(tar.bytes(), Compression::kNone);
  const Fd blob = temporary_file(packed.blob);
  const Fd output = temporary_file();
  FileSource source(blob.get());
  const auto converted = convert_layer(source, packed.layer, output.get());
  if (converted) {
    throw std::runtime_error("the layer was accepted");
  }
  return converted.error().message;
}

}  // namespace msb::oci::testing
