// SPDX-License-Identifier: Apache-2.0
// The reader of EROFS images, written against erofs_fs.h on its own: it knows offsets, not the
// writer's structures.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "oci/test_support.hpp"

namespace msb::oci::testing {
namespace {

constexpr std::uint64_t kBlock = 4096;

void require(bool condition, const std::string& what) {
  if (!condition) {
    throw std::runtime_error("EROFS image: " + what);
  }
}

class ImageReader {
 public:
  explicit ImageReader(int fd) : fd_(fd) {}

  Listing run() {
    struct stat status{};
    require(::fstat(fd_, &status) == 0, "no file");
    require(number<std::uint32_t>(1024) == 0xE0F5E1E2, "magic");
    require(number<std::uint8_t>(1024 + 12) == 12, "block size");
    require(number<std::uint32_t>(1024 + 36) * kBlock == static_cast<std::uint64_t>(status.st_size),
            "length");
    meta_ = number<std::uint32_t>(1024 + 40) * kBlock;
    const std::uint64_t root = number<std::uint16_t>(1024 + 14);
    // Not by recursion: layers may be deeper than a sanitizer's stack.
    for (pending_.push_back({"", root, root, 2}); !pending_.empty();) {
      const Pending next = std::move(pending_.back());
      pending_.pop_back();
      visit(next);
    }
    return std::move(listing_);
  }

 private:
  template <typename T>
  T number(std::uint64_t offset) {
    T value{};
    require(::pread(fd_, &value, sizeof value, static_cast<off_t>(offset)) == sizeof value,
            "cut off");
    return value;
  }

  std::string bytes(std::uint64_t offset, std::size_t length) {
    std::string text(length, '\0');
    require(::pread(fd_, text.data(), length, static_cast<off_t>(offset)) == std::ssize(text),
            "cut off");
    return text;
  }

  // An entry of a directory: its inode number, its directory's, and the file type that it has
  // there.
  struct Pending {
    std::string path;
    std::uint64_t nid;
    std::uint64_t parent;
    unsigned type;
  };

  void visit(const Pending& entry) {
    const auto& [path, nid, parent, entry_type] = entry;
    const std::uint64_t at = meta_ + nid * 32;
    require(at % kBlock + 64 <= kBlock, "inode crosses a block");
    const auto format = number<std::uint16_t>(at);
    require(format == 1 || format == 5, "inode format");
    ImageFile file;
    file.inode = nid;
    file.mode = number<std::uint16_t>(at + 4);
    static const std::map<unsigned, unsigned> kTypes = {{S_IFREG, 1}, {S_IFDIR, 2}, {S_IFCHR, 3},
                                                        {S_IFBLK, 4}, {S_IFIFO, 5}, {S_IFLNK, 7}};
    require(kTypes.at(file.mode & S_IFMT) == entry_type, "file type of an entry");
    const auto size = number<std::uint64_t>(at + 8);
    const auto data = number<std::uint32_t>(at + 16);
    file.uid = number<std::uint32_t>(at + 24);
    file.gid = number<std::uint32_t>(at + 28);
    file.mtime = number<std::int64_t>(at + 32);
    file.mtime_nanoseconds = number<std::uint32_t>(at + 40);
    file.links = number<std::uint32_t>(at + 44);
    const auto icount = number<std::uint16_t>(at + 2);
    const std::uint64_t xattr_size = icount == 0 ? 0 : 12 + (icount - 1U) * 4U;
    if (xattr_size > 0) {
      file.xattrs = read_xattrs(at + 64 + 12, xattr_size - 12);
    }
    if (S_ISCHR(file.mode) || S_ISBLK(file.mode)) {
      file.device = makedev((data >> 8U) & 0xFFFU, (data & 0xFFU) | ((data >> 12U) & 0xFFF00U));
    } else {
      file.content = read_data(size, data, format == 5, at + 64 + xattr_size);
    }
    if (S_ISDIR(file.mode)) {
      const std::string blocks = std::move(file.content);
      file.content.clear();
      listing_[path] = file;
      visit_entries(path, blocks, nid, parent);
    } else {
      listing_[path] = std::move(file);
    }
  }

  std::string read_data(std::uint64_t size, std::uint32_t block, bool has_tail,
                        std::uint64_t tail_at) {
    const std::uint64_t in_blocks = has_tail ? size / kBlock * kBlock : size;
    std::string data = in_blocks == 0 ? std::string() : bytes(block * kBlock, in_blocks);
    if (has_tail) {
      require(tail_at % kBlock + (size - in_blocks) <= kBlock, "inline tail crosses a block");
      data += bytes(tail_at, size - in_blocks);
    }
    return data;
  }

  std::map<std::string, std::string> read_xattrs(std::uint64_t at, std::uint64_t length) {
    static constexpr std::array<const char*, 7> kPrefixes = {
        nullptr, "user.",    "system.posix_acl_access", "system.posix_acl_default", "trusted.",
        nullptr, "security."};
    std::map<std::string, std::string> xattrs;
    const std::uint64_t end = at + length;
    while (at < end) {
      const auto name_length = number<std::uint8_t>(at);
      const auto index = number<std::uint8_t>(at + 1);
      const auto value_length = number<std::uint16_t>(at + 2);
      require(index < kPrefixes.size() && kPrefixes[index] != nullptr, "attribute prefix");
      xattrs[kPrefixes[index] + bytes(at + 4, name_length)] =
          bytes(at + 4 + name_length, value_length);
      const std::uint64_t used = 4U + name_length + value_length;
      at += (used + 3) / 4 * 4;
    }
    require(at == end, "attributes' length");
    return xattrs;
  }

  void visit_entries(const std::string& path, const std::string& data, std::uint64_t self,
                     std::uint64_t parent) {
    std::string last;
    unsigned dots = 0;
    for (std::size_t start = 0; start < data.size(); start += kBlock) {
      const std::string_view block = std::string_view(data).substr(start, kBlock);
      std::uint16_t first = 0;
      std::memcpy(&first, block.data() + 8, sizeof first);
      const std::size_t count = first / 12;
      for (std::size_t i = 0; i < count; ++i) {
        std::uint64_t nid = 0;
        std::uint16_t offset = 0;
        std::uint16_t next = static_cast<std::uint16_t>(block.size());
        std::memcpy(&nid, block.data() + i * 12, sizeof nid);
        std::memcpy(&offset, block.data() + i * 12 + 8, sizeof offset);
        if (i + 1 < count) {
          std::memcpy(&next, block.data() + (i + 1) * 12 + 8, sizeof next);
        }
        require(offset < next && next <= block.size(), "name offset");
        std::string name(block.substr(offset, static_cast<std::size_t>(next - offset)));
        name.resize(std::min(name.size(), name.find('\0')));  // of the last name of a block
        require(last.empty() || last < name, "names are not sorted");
        last = name;
        if (name == "." || name == "..") {
          require(nid == (name == "." ? self : parent), "dot entries");
          ++dots;
          continue;
        }
        const auto type = static_cast<unsigned char>(block[i * 12 + 10]);
        pending_.push_back(
            {path.empty() ? name : fmt::format("{}/{}", path, name), nid, self, type});
      }
    }
    require(dots == 2, "dot entries are missing");
  }

  int fd_;
  std::uint64_t meta_ = 0;
  Listing listing_;
  std::vector<Pending> pending_;
};

ImageFile read_host_file(const std::string& path) {
  struct stat status{};
  require(::lstat(path.c_str(), &status) == 0, "lstat of " + path);
  ImageFile file{.inode = status.st_ino,
                 .mode = status.st_mode,
                 .links = static_cast<unsigned>(status.st_nlink),
                 .uid = status.st_uid,
                 .gid = status.st_gid,
                 .mtime = status.st_mtim.tv_sec,
                 .mtime_nanoseconds = static_cast<std::uint32_t>(status.st_mtim.tv_nsec),
                 .device = status.st_rdev,
                 .content = {},
                 .xattrs = {}};
  if (S_ISREG(status.st_mode)) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    file.content.resize(static_cast<std::size_t>(status.st_size));
    require(::read(fd.get(), file.content.data(), file.content.size()) == status.st_size,
            "read of " + path);
  } else if (S_ISLNK(status.st_mode)) {
    file.content = std::filesystem::read_symlink(path).string();
  }
  std::string names(65536, '\0');
  const ssize_t length = ::llistxattr(path.c_str(), names.data(), names.size());
  names.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
  for (std::size_t at = 0; at < names.size();) {
    const std::string name = names.c_str() + at;
    at += name.size() + 1;
    std::string value(65536, '\0');
    const ssize_t size = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    require(size >= 0, "lgetxattr of " + path);
    value.resize(static_cast<std::size_t>(size));
    file.xattrs[name] = std::move(value);
  }
  return file;
}

}  // namespace

Listing read_image(int fd) {
  return ImageReader(fd).run();
}

Listing read_directory(const std::string& path) {
  Listing listing;
  listing[""] = read_host_file(path);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    listing[entry.path().string().substr(path.size() + 1)] = read_host_file(entry.path().string());
  }
  return listing;
}

}  // namespace msb::oci::testing
