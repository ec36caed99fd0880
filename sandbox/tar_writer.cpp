// SPDX-License-Identifier: Apache-2.0
#include "sandbox/tar_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "oci/tar_header.hpp"

namespace msb::sandbox {

namespace {

using oci::FileType;
using oci::kTarBlockSize;

// Of the fields of a header block (POSIX pax, "ustar Interchange Format").
constexpr std::size_t kNameLength = 100;
constexpr std::uint64_t kMaxId = 07777777;
constexpr std::uint64_t kMaxSize = 077777777777;

using Block = std::array<char, kTarBlockSize>;

void put(Block& block, std::size_t offset, std::string_view text, std::size_t length) {
  text = text.substr(0, length);
  std::ranges::copy(text, block.begin() + static_cast<std::ptrdiff_t>(offset));
}

// Digits and a zero byte in `length` bytes.
void put_number(Block& block, std::size_t offset, std::size_t length, std::uint64_t number) {
  put(block, offset, fmt::format("{:0{}o}", number, length - 1), length - 1);
}

char type_of(FileType type) {
  switch (type) {
    case FileType::kDirectory:
      return oci::tar_type::kDirectory;
    case FileType::kSymlink:
      return oci::tar_type::kSymlink;
    case FileType::kFifo:
      return oci::tar_type::kFifo;
    default:
      return oci::tar_type::kRegular;
  }
}

// What does not fit is 0, or cut off: an extended header has it then.
Block header_block(const TarFile& file, char type) {
  const oci::Metadata& metadata = file.metadata;
  const auto fitting = [](std::uint64_t number, std::uint64_t most) {
    return number <= most ? number : 0;
  };
  const auto time = static_cast<std::uint64_t>(std::max<std::int64_t>(metadata.mtime_seconds, 0));
  Block block{};
  put(block, 0, file.name, kNameLength);
  put_number(block, 100, 8, metadata.permissions);
  put_number(block, 108, 8, fitting(metadata.uid, kMaxId));
  put_number(block, 116, 8, fitting(metadata.gid, kMaxId));
  put_number(block, 124, 12, fitting(file.size, kMaxSize));
  put_number(block, 136, 12, fitting(time, kMaxSize));
  block[156] = type;
  put(block, 157, file.link_target, kNameLength);
  put(block, 257, std::string_view("ustar\00000", 8), 8);
  // The sum of all bytes, with blanks in the place of the sum itself.
  put(block, 148, "        ", 8);
  unsigned sum = 0;
  for (const char byte : block) {
    sum += static_cast<unsigned char>(byte);
  }
  put(block, 148, fmt::format("{:06o}", sum) + '\0', 8);
  return block;
}

// "LENGTH KEY=VALUE\n", where LENGTH counts its own digits too ("pax Extended Header").
std::string pax_record(std::string_view key, std::string_view value) {
  const std::size_t rest = key.size() + value.size() + 3;
  std::size_t length = rest + 1;
  while (fmt::formatted_size("{}", length) + rest != length) {
    length = fmt::formatted_size("{}", length) + rest;
  }
  return fmt::format("{} {}={}\n", length, key, value);
}

// Of a time before 1970 the fraction counts back as well: -1.5 is half a second before -1.
std::string pax_time(const oci::Metadata& metadata) {
  constexpr std::uint32_t kSecond = 1'000'000'000;
  std::int64_t seconds = metadata.mtime_seconds;
  std::uint32_t fraction = metadata.mtime_nanoseconds;
  if (seconds < 0 && fraction > 0) {
    ++seconds;
    fraction = kSecond - fraction;
    return fmt::format("-{}.{:09}", -seconds, fraction);
  }
  return fraction > 0 ? fmt::format("{}.{:09}", seconds, fraction) : fmt::format("{}", seconds);
}

std::string pax_records(const TarFile& file) {
  const oci::Metadata& metadata = file.metadata;
  std::string records;
  if (file.name.size() > kNameLength) {
    records += pax_record("path", file.name);
  }
  if (file.link_target.size() > kNameLength) {
    records += pax_record("linkpath", file.link_target);
  }
  if (metadata.uid > kMaxId) {
    records += pax_record("uid", fmt::format("{}", metadata.uid));
  }
  if (metadata.gid > kMaxId) {
    records += pax_record("gid", fmt::format("{}", metadata.gid));
  }
  if (file.size > kMaxSize) {
    records += pax_record("size", fmt::format("{}", file.size));
  }
  if (metadata.mtime_seconds < 0 || metadata.mtime_nanoseconds != 0) {
    records += pax_record("mtime", pax_time(metadata));
  }
  return records;
}

void append(std::vector<std::byte>& stream, std::span<const char> text) {
  const auto bytes = std::as_bytes(text);
  stream.insert(stream.end(), bytes.begin(), bytes.end());
}

}  // namespace

void append_tar_header(std::vector<std::byte>& stream, const TarFile& file) {
  const std::string records = pax_records(file);
  if (!records.empty()) {
    TarFile extension;
    extension.name = "pax";
    extension.metadata.permissions = 0644;
    extension.size = records.size();
    append(stream, header_block(extension, oci::tar_type::kPax));
    append(stream, records);
    append_tar_padding(stream, records.size());
  }
  append(stream, header_block(file, type_of(file.type)));
}

void append_tar_padding(std::vector<std::byte>& stream, std::uint64_t size) {
  const auto over = static_cast<std::size_t>(size % kTarBlockSize);
  stream.resize(stream.size() + (over == 0 ? 0 : kTarBlockSize - over));
}

void append_tar_end(std::vector<std::byte>& stream) {
  stream.resize(stream.size() + 2 * kTarBlockSize);
}

}  // namespace msb::sandbox
