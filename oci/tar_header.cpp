// SPDX-License-Identifier: Apache-2.0
#include "oci/tar_header.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

namespace msb::oci {
namespace {

// A field of a header block: offset and length in bytes.
struct Field {
  std::size_t offset;
  std::size_t length;
};

constexpr Field kName{0, 100};
constexpr Field kMode{100, 8};
constexpr Field kUid{108, 8};
constexpr Field kGid{116, 8};
constexpr Field kSize{124, 12};
constexpr Field kMtime{136, 12};
constexpr Field kChecksum{148, 8};
constexpr Field kType{156, 1};
constexpr Field kLink{157, 100};
constexpr Field kMagic{257, 8};
constexpr Field kMajor{329, 8};
constexpr Field kMinor{337, 8};
constexpr Field kUstarPrefix{345, 155};
constexpr Field kStarPrefix{345, 131};
constexpr Field kStarTrailer{508, 4};
constexpr Field kGnuAtime{345, 12};
constexpr Field kGnuCtime{357, 12};
constexpr Field kGnuSparseRuns{386, 96};
constexpr Field kGnuSparseContinues{482, 1};
constexpr Field kGnuRealSize{483, 12};
constexpr Field kExtensionRuns{0, 504};
constexpr Field kExtensionContinues{504, 1};

constexpr std::string_view kUstarMagic = "ustar";  // and a zero byte
constexpr std::string_view kGnuMagic{"ustar  \0", 8};
constexpr std::string_view kStarTrailerText{"tar\0", 4};

constexpr std::size_t kNumberLength = 12;  // bytes, of an offset or a length in a sparse map
constexpr std::size_t kNanosecondDigits = 9;
constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

std::string_view raw(TarBlock block, Field field) {
  return std::string_view(reinterpret_cast<const char*>(block.data()), block.size())
      .substr(field.offset, field.length);
}

// Text up to the first zero byte.
std::string_view text(TarBlock block, Field field) {
  const std::string_view bytes = raw(block, field);
  return bytes.substr(0, bytes.find('\0'));
}

// GNU's base-256: big-endian two's complement, the top bit of the first byte set as a mark.
std::optional<std::int64_t> decode_base256(std::string_view bytes) {
  const bool negative = (static_cast<unsigned char>(bytes.front()) & 0x40U) != 0;
  std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::uint64_t byte = static_cast<unsigned char>(bytes[i]);
    if (i == 0) {
      byte = negative ? byte | 0x80U : byte & 0x7FU;
    }
    // What is shifted out must only repeat the sign.
    const std::uint64_t top = value >> 55U;
    if (top != (negative ? 0x1FFU : 0U)) {
      return std::nullopt;
    }
    value = value << 8U | byte;
  }
  return static_cast<std::int64_t>(value);
}

std::optional<std::int64_t> decode_number(std::string_view bytes) {
  if (!bytes.empty() && (static_cast<unsigned char>(bytes.front()) & 0x80U) != 0) {
    return decode_base256(bytes);
  }
  constexpr std::string_view kPadding(" \0", 2);
  const auto first = bytes.find_first_not_of(kPadding);
  if (first == std::string_view::npos) {
    return 0;
  }
  bytes = bytes.substr(first, bytes.find_last_not_of(kPadding) - first + 1);
  bytes = bytes.substr(0, bytes.find('\0'));
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(bytes.begin(), bytes.end(), value, 8);
  if (error != std::errc() || end != bytes.end() || value < 0) {
    return std::nullopt;
  }
  return value;
}

Result<void> read_number(TarBlock block, Field field, std::string_view what, std::int64_t& into) {
  const auto value = decode_number(raw(block, field));
  if (!value) {
    return fail("a header's {} is not a number", what);
  }
  into = *value;
  return {};
}

// Old archivers summed signed bytes.
bool checksum_matches(TarBlock block) {
  const auto expected = decode_number(raw(block, kChecksum));
  std::int64_t unsigned_sum = 0;
  std::int64_t signed_sum = 0;
  for (std::size_t i = 0; i < block.size(); ++i) {
    const bool in_checksum = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.length;
    const auto byte =
        in_checksum ? static_cast<unsigned char>(' ') : std::to_integer<unsigned char>(block[i]);
    unsigned_sum += byte;
    signed_sum += static_cast<signed char>(byte);
  }
  return expected && (*expected == unsigned_sum || *expected == signed_sum);
}

// The part of a name that did not fit into its field.
std::string_view prefix(TarBlock block, bool is_gnu) {
  if (is_gnu) {
    // GNU's format has times there. Go before 1.8 put a prefix nevertheless
    // (golang.org/issue/12594), and layers of that time still are in registries: it is one if the
    // times are no numbers.
    if (decode_number(raw(block, kGnuAtime)) && decode_number(raw(block, kGnuCtime))) {
      return {};
    }
    const std::string_view candidate = text(block, kUstarPrefix);
    const bool is_ascii =
        std::ranges::all_of(candidate, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    return is_ascii ? candidate : std::string_view();
  }
  return text(block, raw(block, kStarTrailer) == kStarTrailerText ? kStarPrefix : kUstarPrefix);
}

Result<GnuSparsePart> parse_gnu_runs(TarBlock block, Field runs, Field continues) {
  GnuSparsePart part;
  std::string_view bytes = raw(block, runs);
  for (; bytes.size() >= 2 * kNumberLength && bytes.front() != '\0';
       bytes.remove_prefix(2 * kNumberLength)) {
    const auto offset = decode_number(bytes.substr(0, kNumberLength));
    const auto length = decode_number(bytes.substr(kNumberLength, kNumberLength));
    if (!offset || !length || *offset < 0 || *length < 0) {
      return fail("a sparse map has an entry that is not a number");
    }
    part.runs.push_back({static_cast<std::uint64_t>(*offset), static_cast<std::uint64_t>(*length)});
  }
  part.continues = raw(block, continues).front() != '\0';
  return part;
}

}  // namespace

Result<std::optional<TarHeader>> parse_tar_header(TarBlock block) {
  if (std::ranges::all_of(block, [](std::byte byte) { return byte == std::byte{0}; })) {
    return std::nullopt;
  }
  if (!checksum_matches(block)) {
    return fail("a header's checksum is wrong");
  }
  TarHeader header;
  header.type = raw(block, kType).front();
  header.is_gnu = raw(block, kMagic) == kGnuMagic;
  header.name = text(block, kName);
  header.link = text(block, kLink);
  const bool has_magic =
      header.is_gnu || text(block, kMagic).substr(0, kUstarMagic.size() + 1) == kUstarMagic;
  if (has_magic) {
    if (const std::string_view front = prefix(block, header.is_gnu); !front.empty()) {
      header.name = std::string(front) + "/" + header.name;
    }
  }
  struct Number {
    Field field;
    std::string_view what;
    std::int64_t* into;
  };
  for (const Number& number :
       {Number{kMode, "mode", &header.mode}, Number{kUid, "user", &header.uid},
        Number{kGid, "group", &header.gid}, Number{kSize, "size", &header.size},
        Number{kMtime, "time", &header.mtime}}) {
    if (auto read = read_number(block, number.field, number.what, *number.into); !read) {
      return std::unexpected(read.error());
    }
  }
  if (has_magic &&
      (header.type == tar_type::kCharacterDevice || header.type == tar_type::kBlockDevice)) {
    for (const Number& number : {Number{kMajor, "device number", &header.major},
                                 Number{kMinor, "device number", &header.minor}}) {
      if (auto read = read_number(block, number.field, number.what, *number.into); !read) {
        return std::unexpected(read.error());
      }
    }
  }
  if (header.size < 0) {
    return fail("a header's size is negative");
  }
  if (header.type == tar_type::kOldRegular) {
    // Before POSIX a directory had nothing but this slash.
    header.type = header.name.ends_with('/') ? tar_type::kDirectory : tar_type::kRegular;
  }
  return header;
}

Result<PaxRecords> parse_pax_records(std::string_view text) {
  const auto malformed = [] { return fail("a record of an extended header is malformed"); };
  PaxRecords records;
  while (!text.empty()) {
    // "%d %s=%s\n": the number counts the whole record.
    const auto blank = text.find(' ');
    std::size_t length = 0;
    if (blank == std::string_view::npos) {
      return malformed();
    }
    const auto [end, error] = std::from_chars(text.begin(), text.begin() + blank, length);
    if (error != std::errc() || end != text.begin() + blank || length > text.size() ||
        length < blank + 2 || text[length - 1] != '\n') {
      return malformed();
    }
    const std::string_view record = text.substr(blank + 1, length - blank - 2);
    const auto equals = record.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return malformed();
    }
    records.emplace_back(record.substr(0, equals), record.substr(equals + 1));
    text.remove_prefix(length);
  }
  return records;
}

Result<PaxTime> parse_pax_time(std::string_view text) {
  const auto malformed = [] { return fail("a time of an extended header is malformed"); };
  const auto point = text.find('.');
  const auto seconds = parse_decimal(text.substr(0, point));
  if (!seconds) {
    return malformed();
  }
  PaxTime time{.seconds = *seconds, .nanoseconds = 0};
  if (point == std::string_view::npos) {
    return time;
  }
  const std::string_view digits = text.substr(point + 1);
  if (digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return malformed();
  }
  std::int64_t fraction = 0;
  for (std::size_t i = 0; i < kNanosecondDigits; ++i) {
    fraction = fraction * 10 + (i < digits.size() ? digits[i] - '0' : 0);
  }
  if (text.starts_with('-') && fraction > 0) {
    if (time.seconds == std::numeric_limits<std::int64_t>::min()) {
      return malformed();
    }
    time.seconds -= 1;
    fraction = kNanosecondsPerSecond - fraction;
  }
  time.nanoseconds = static_cast<std::uint32_t>(fraction);
  return time;
}

Result<std::int64_t> parse_decimal(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc() || end != text.end()) {
    return fail("a number of an extended header is malformed");
  }
  return value;
}

Result<GnuSparsePart> parse_gnu_sparse_header(TarBlock block) {
  auto part = parse_gnu_runs(block, kGnuSparseRuns, kGnuSparseContinues);
  if (!part) {
    return part;
  }
  if (auto read = read_number(block, kGnuRealSize, "real size", part->real_size); !read) {
    return std::unexpected(read.error());
  }
  return part;
}

Result<GnuSparsePart> parse_gnu_sparse_extension(TarBlock block) {
  return parse_gnu_runs(block, kExtensionRuns, kExtensionContinues);
}

Result<std::vector<SparseRun>> parse_sparse_map(std::string_view text) {
  std::vector<std::uint64_t> numbers;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto number = parse_decimal(text.substr(0, comma));
    if (!number || *number < 0) {
      return fail("a sparse map has an entry that is not a number");
    }
    if (numbers.size() == 2 * kMaxSparseRuns) {
      return fail("a sparse map has more than {} entries", kMaxSparseRuns);
    }
    numbers.push_back(static_cast<std::uint64_t>(*number));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  if (numbers.size() % 2 != 0) {
    return fail("a sparse map has an offset without a length");
  }
  std::vector<SparseRun> runs;
  for (std::size_t i = 0; i < numbers.size(); i += 2) {
    runs.push_back({numbers[i], numbers[i + 1]});
  }
  return runs;
}

Result<void> check_sparse_runs(std::span<const SparseRun> runs, std::uint64_t size) {
  std::uint64_t end = 0;
  for (const SparseRun& run : runs) {
    if (run.offset < end || run.offset > size || run.length > size - run.offset) {
      return fail("a sparse map does not fit its file");
    }
    end = run.offset + run.length;
  }
  return {};
}

}  // namespace msb::oci
