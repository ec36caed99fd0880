// SPDX-License-Identifier: Apache-2.0
#include "oci/tar_reader.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "oci/printable.hpp"

namespace msb::oci {
namespace {

constexpr std::string_view kXattrPrefix = "SCHILY.xattr.";
constexpr std::size_t kMaxNumberLength = 20;  // digits, of a line in a sparse map

std::unexpected<Error> broken(const Error& error) {
  return std::unexpected(error.within("the tar archive is broken"));
}

std::unexpected<Error> cut_off() {
  return fail("the tar archive is broken: it ends within an entry");
}

bool is_extension(char type) {
  return type == tar_type::kPax || type == tar_type::kPaxGlobal || type == tar_type::kGnuLongName ||
         type == tar_type::kGnuLongLink;
}

// Other kinds have no content, whatever their size says: hard links often repeat the one of their
// target.
bool has_content(char type) {
  return type == tar_type::kRegular || type == tar_type::kContiguous ||
         type == tar_type::kGnuSparse;
}

std::uint64_t padding_of(std::uint64_t size) {
  return (kTarBlockSize - size % kTarBlockSize) % kTarBlockSize;
}

std::string up_to_zero(std::string text) {
  text.resize(std::min(text.size(), text.find('\0')));
  return text;
}

}  // namespace

Result<std::optional<TarEntry>> TarReader::next_entry() {
  if (auto skipped = skip_data(); !skipped) {
    return std::unexpected(skipped.error());
  }
  extensions_ = {};
  for (;;) {
    auto header = read_header();
    if (!header) {
      return std::unexpected(header.error());
    }
    if (!*header) {
      return std::nullopt;
    }
    const char type = (*header)->type;
    if (!is_extension(type)) {
      return finish_entry(std::move(**header));
    }
    auto content = read_extension((*header)->size);
    if (!content) {
      return std::unexpected(content.error());
    }
    if (type == tar_type::kPax) {
      extensions_.pax = std::move(*content);
    } else if (type == tar_type::kGnuLongName) {
      extensions_.long_name = up_to_zero(std::move(*content));
    } else if (type == tar_type::kGnuLongLink) {
      extensions_.long_link = up_to_zero(std::move(*content));
    }
    // Global headers are for comments; engines apply none of their records.
  }
}

Result<std::optional<TarData>> TarReader::next_data() {
  while (run_ < runs_.size() && run_done_ == runs_[run_].length) {
    ++run_;
    run_done_ = 0;
  }
  if (run_ == runs_.size()) {
    return std::nullopt;
  }
  const SparseRun& run = runs_[run_];
  const auto bytes = take(std::min(run.length - run_done_, stored_));
  if (!bytes) {
    return std::unexpected(bytes.error());
  }
  if (bytes->empty()) {
    return cut_off();
  }
  const TarData data{run.offset + run_done_, *bytes};
  run_done_ += bytes->size();
  stored_ -= bytes->size();
  return data;
}

// The next header block, nothing at the end of the archive.
Result<std::optional<TarHeader>> TarReader::read_header() {
  for (int zeros = 0;; ++zeros) {
    const auto more = read_block();
    if (!more) {
      return std::unexpected(more.error());
    }
    if (!*more) {
      return std::nullopt;
    }
    auto header = parse_tar_header(block_);
    if (!header) {
      return broken(header.error());
    }
    if (*header && zeros > 0) {
      return broken(Error{"a block of zeros stands between entries", 0});
    }
    if (*header || zeros > 0) {
      return header;
    }
  }
}

// Applies extensions and prepares the content.
Result<std::optional<TarEntry>> TarReader::finish_entry(TarHeader header) {
  nanoseconds_ = 0;
  xattrs_.clear();
  sparse_major_ = sparse_minor_ = sparse_name_ = sparse_size_ = {};
  sparse_map_.clear();
  if (auto applied = apply_pax(header); !applied) {
    return broken(applied.error());
  }
  if (extensions_.long_name) {
    header.name = *extensions_.long_name;
  }
  if (extensions_.long_link) {
    header.link = *extensions_.long_link;
  }
  stored_ = has_content(header.type) ? static_cast<std::uint64_t>(header.size) : 0;
  padding_ = padding_of(stored_);
  size_ = stored_;
  runs_.assign(1, SparseRun{0, stored_});
  run_ = 0;
  run_done_ = 0;
  if (auto read = read_sparse_map(header); !read) {
    return broken(read.error());
  }
  header_ = std::move(header);
  auto converted = convert();
  if (!converted) {
    return std::unexpected(
        converted.error().within(fmt::format("entry '{}'", printable(header_.name))));
  }
  return *converted;
}

// pax Interchange Format, "pax Header Keyword"; an empty value means the header's.
Result<void> TarReader::apply_pax(TarHeader& header) {
  const auto records = parse_pax_records(extensions_.pax);
  if (!records) {
    return std::unexpected(records.error());
  }
  const auto number = [](std::string_view value, std::int64_t& into) -> Result<void> {
    const auto parsed = parse_decimal(value);
    if (!parsed) {
      return std::unexpected(parsed.error());
    }
    into = *parsed;
    return {};
  };
  for (const auto& [key, value] : *records) {
    Result<void> applied;
    if (value.empty()) {
      continue;
    }
    if (key.starts_with(kXattrPrefix)) {
      xattrs_.push_back(Xattr{key.substr(kXattrPrefix.size()), value});
    } else if (key == "path" || key == "linkpath") {
      if (value.find('\0') != std::string_view::npos) {
        return fail("a name contains a zero byte");
      }
      (key == "path" ? header.name : header.link) = value;
    } else if (key == "uid") {
      applied = number(value, header.uid);
    } else if (key == "gid") {
      applied = number(value, header.gid);
    } else if (key == "size") {
      applied = number(value, header.size);
    } else if (key == "mtime") {
      const auto time = parse_pax_time(value);
      if (!time) {
        return std::unexpected(time.error());
      }
      header.mtime = time->seconds;
      nanoseconds_ = time->nanoseconds;
    } else if (key == "GNU.sparse.major") {
      sparse_major_ = value;
    } else if (key == "GNU.sparse.minor") {
      sparse_minor_ = value;
    } else if (key == "GNU.sparse.name") {
      sparse_name_ = value;
    } else if (key == "GNU.sparse.size" || key == "GNU.sparse.realsize") {
      sparse_size_ = value;
    } else if (key == "GNU.sparse.map") {
      sparse_map_ = value;
    } else if (key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes") {
      // Format 0.0 repeats these two in turn.
      sparse_map_ += sparse_map_.empty() ? "" : ",";
      sparse_map_ += value;
    }
    if (!applied) {
      return applied;
    }
  }
  if (header.size < 0) {
    return fail("a file's size is negative");
  }
  return {};
}

// GNU tar manual, "Storing Sparse Files": the old format, and 0.0, 0.1 and 1.0 in pax records.
Result<void> TarReader::read_sparse_map(TarHeader& header) {
  if (header.type == tar_type::kGnuSparse) {
    return read_gnu_sparse_map(header);
  }
  const bool in_records = sparse_major_.empty() ? sparse_minor_.empty() && !sparse_map_.empty()
                                                : sparse_major_ == "0" && (sparse_minor_ == "0" ||
                                                                           sparse_minor_ == "1");
  const bool in_data = sparse_major_ == "1" && sparse_minor_ == "0";
  if (!has_content(header.type) || (!in_records && !in_data)) {
    return {};
  }
  if (!sparse_name_.empty()) {
    if (sparse_name_.find('\0') != std::string_view::npos) {
      return fail("a name contains a zero byte");
    }
    header.name = sparse_name_;
  }
  if (!sparse_size_.empty()) {
    const auto size = parse_decimal(sparse_size_);
    if (!size || *size < 0) {
      return fail("a sparse file's size is not a number");
    }
    size_ = static_cast<std::uint64_t>(*size);
  }
  auto runs = in_data ? read_pax_sparse_map() : parse_sparse_map(sparse_map_);
  if (!runs) {
    return std::unexpected(runs.error());
  }
  runs_ = std::move(*runs);
  return check_sparse_runs(runs_, size_);
}

Result<void> TarReader::read_gnu_sparse_map(TarHeader& header) {
  if (!header.is_gnu) {
    return fail("a sparse file is not in GNU's format");
  }
  auto part = parse_gnu_sparse_header(block_);
  if (!part) {
    return std::unexpected(part.error());
  }
  if (part->real_size < 0) {
    return fail("a sparse file's size is negative");
  }
  size_ = static_cast<std::uint64_t>(part->real_size);
  runs_ = part->runs;
  while (part->continues) {
    const auto more = read_block();
    if (!more) {
      return std::unexpected(more.error());
    }
    if (!*more) {
      return cut_off();
    }
    part = parse_gnu_sparse_extension(block_);
    if (!part) {
      return std::unexpected(part.error());
    }
    runs_.insert(runs_.end(), part->runs.begin(), part->runs.end());
    if (runs_.size() > kMaxSparseRuns) {
      return fail("a sparse map has more than {} entries", kMaxSparseRuns);
    }
  }
  return check_sparse_runs(runs_, size_);
}

// Format 1.0: the content starts with decimal lines, their number first, up to a block's end.
Result<std::vector<SparseRun>> TarReader::read_pax_sparse_map() {
  std::size_t position = kTarBlockSize;  // in block_, none read yet
  const auto next_number = [&]() -> Result<std::uint64_t> {
    std::string digits;
    for (;;) {
      if (position == kTarBlockSize) {
        if (stored_ < kTarBlockSize) {
          return fail("a sparse map is cut off");
        }
        const auto more = read_block();
        if (!more) {
          return std::unexpected(more.error());
        }
        if (!*more) {
          return cut_off();
        }
        stored_ -= kTarBlockSize;
        position = 0;
      }
      const char c = static_cast<char>(block_[position++]);
      if (c == '\n') {
        break;
      }
      digits += c;
      if (digits.size() > kMaxNumberLength) {
        return fail("a sparse map has an entry that is not a number");
      }
    }
    const auto number = parse_decimal(digits);
    if (!number || *number < 0) {
      return fail("a sparse map has an entry that is not a number");
    }
    return static_cast<std::uint64_t>(*number);
  };

  const auto count = next_number();
  if (!count) {
    return std::unexpected(count.error());
  }
  if (*count > kMaxSparseRuns) {
    return fail("a sparse map has more than {} entries", kMaxSparseRuns);
  }
  std::vector<SparseRun> runs;
  for (std::uint64_t i = 0; i < *count; ++i) {
    const auto offset = next_number();
    if (!offset) {
      return std::unexpected(offset.error());
    }
    const auto length = next_number();
    if (!length) {
      return std::unexpected(length.error());
    }
    runs.push_back({*offset, *length});
  }
  return runs;
}

Result<TarEntry> TarReader::convert() const {
  TarEntry result;
  const auto common = metadata();
  if (!common) {
    return std::unexpected(common.error());
  }
  result.entry.path = header_.name;
  result.entry.metadata = *common;
  result.entry.xattrs = xattrs_;
  switch (header_.type) {
    case tar_type::kHardLink:
      result.hard_link = header_.link;
      return result;
    case tar_type::kRegular:
    case tar_type::kContiguous:
    case tar_type::kGnuSparse:
      result.entry.type = FileType::kRegular;
      result.size = size_;
      // The map of a sparse file may say that it is whole, but then its content can still start
      // with the map.
      if (header_.type != tar_type::kGnuSparse && sparse_major_.empty() && sparse_map_.empty()) {
        result.content_offset = position_;
      }
      return result;
    case tar_type::kDirectory:
      result.entry.type = FileType::kDirectory;
      return result;
    case tar_type::kSymlink:
      result.entry.type = FileType::kSymlink;
      result.entry.link_target = header_.link;
      return result;
    case tar_type::kFifo:
      result.entry.type = FileType::kFifo;
      return result;
    case tar_type::kCharacterDevice:
    case tar_type::kBlockDevice: {
      constexpr std::int64_t kMax = std::numeric_limits<std::uint32_t>::max();
      if (header_.major < 0 || header_.major > kMax || header_.minor < 0 || header_.minor > kMax) {
        return fail("Linux has no device number {}:{}", header_.major, header_.minor);
      }
      result.entry.type = header_.type == tar_type::kCharacterDevice ? FileType::kCharacterDevice
                                                                     : FileType::kBlockDevice;
      result.entry.device_major = static_cast<std::uint32_t>(header_.major);
      result.entry.device_minor = static_cast<std::uint32_t>(header_.minor);
      return result;
    }
    default:
      return fail("a layer cannot have entries of type '{}'", printable({&header_.type, 1}));
  }
}

Result<Metadata> TarReader::metadata() const {
  constexpr std::int64_t kMaxId = std::numeric_limits<std::uint32_t>::max() - std::int64_t{1};
  if (header_.uid < 0 || header_.uid > kMaxId || header_.gid < 0 || header_.gid > kMaxId) {
    return fail("Linux has no user or group {}:{}", header_.uid, header_.gid);
  }
  return Metadata{.permissions = static_cast<std::uint16_t>(header_.mode & 07777),
                  .uid = static_cast<std::uint32_t>(header_.uid),
                  .gid = static_cast<std::uint32_t>(header_.gid),
                  .mtime_seconds = header_.mtime,
                  .mtime_nanoseconds = nanoseconds_};
}

// Reads block_; false where the source ends instead.
Result<bool> TarReader::read_block() {
  std::size_t length = 0;
  while (length < kTarBlockSize) {
    const auto bytes = take(kTarBlockSize - length);
    if (!bytes) {
      return std::unexpected(bytes.error());
    }
    if (bytes->empty()) {
      if (length > 0) {
        return cut_off();
      }
      return false;
    }
    std::ranges::copy(*bytes, block_.begin() + static_cast<std::ptrdiff_t>(length));
    length += bytes->size();
  }
  return true;
}

// The content of an extended header, with its padding.
Result<std::string> TarReader::read_extension(std::int64_t size) {
  if (std::cmp_greater(size, kMaxTarExtension)) {
    return broken(
        Error{fmt::format("an extended header is longer than {} bytes", kMaxTarExtension), 0});
  }
  const auto length = static_cast<std::size_t>(size);
  std::string content;
  while (content.size() < length + padding_of(length)) {
    const auto bytes = take(length + padding_of(length) - content.size());
    if (!bytes) {
      return std::unexpected(bytes.error());
    }
    if (bytes->empty()) {
      return cut_off();
    }
    content.append(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  }
  content.resize(length);
  return content;
}

// Up to `limit` bytes as they come; none only at the end of the source, or for none.
Result<std::span<const std::byte>> TarReader::take(std::uint64_t limit) {
  if (piece_.empty() && limit > 0) {
    const auto next = source_.next();
    if (!next) {
      return next;
    }
    piece_ = *next;
  }
  const auto taken =
      piece_.first(static_cast<std::size_t>(std::min<std::uint64_t>(limit, piece_.size())));
  piece_ = piece_.subspan(taken.size());
  position_ += taken.size();
  return taken;
}

Result<void> TarReader::skip_data() {
  runs_.clear();
  run_ = 0;
  while (stored_ + padding_ > 0) {
    std::uint64_t& left = stored_ > 0 ? stored_ : padding_;
    const auto bytes = take(left);
    if (!bytes) {
      return std::unexpected(bytes.error());
    }
    if (bytes->empty()) {
      // Nothing is lost with the last entry's padding.
      return stored_ > 0 ? Result<void>(cut_off()) : Result<void>();
    }
    left -= bytes->size();
  }
  return {};
}

}  // namespace msb::oci
