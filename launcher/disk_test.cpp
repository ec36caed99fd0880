// SPDX-License-Identifier: Apache-2.0
#include "launcher/disk.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace msb::launcher {
namespace {

struct Directory {
  Directory() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string file(const std::string& name, std::uintmax_t bytes) {
    const std::string at = path + "/" + name;
    std::ofstream(at).put('\0');
    std::filesystem::resize_file(at, bytes);
    return at;
  }
  std::string path = "/tmp/msb-disk-test-XXXXXX";
};

TEST_CASE("a disk's words stand behind its path, in any order, each once") {
  struct Row {
    const char* word;
    const char* path;
    bool read_only;
    bool direct;
  };
  for (const Row& row : {
           Row{"disk.img", "disk.img", false, false},
           Row{"disk.img:ro", "disk.img", true, false},
           Row{"disk.img:direct", "disk.img", false, true},
           Row{"disk.img:ro:direct", "disk.img", true, true},
           Row{"disk.img:direct:ro", "disk.img", true, true},
           Row{"disk.img:ro:ro", "disk.img:ro", true, false},
           Row{"a:b/c:qcow2", "a:b/c:qcow2", false, false},
           Row{"ro", "ro", false, false},
           Row{"/x:ro/y", "/x:ro/y", false, false},
       }) {
    CAPTURE(row.word);
    const auto disk = parse_disk(row.word);
    REQUIRE(disk);
    CHECK(disk->path == row.path);
    CHECK(disk->read_only == row.read_only);
    CHECK(disk->direct == row.direct);
  }
  CHECK_FALSE(parse_disk(""));
  CHECK_FALSE(parse_disk(":ro"));
}

TEST_CASE("a disk has a whole number of sectors, and is a file or a device") {
  Directory directory;
  const auto opened = open_disk({directory.file("good", 1024), false, false});
  REQUIRE(opened);
  CHECK(opened->size == 1024);
  CHECK_FALSE(opened->direct);
  CHECK((::fcntl(opened->file.get(), F_GETFL) & O_NONBLOCK) == 0);
  for (const std::uintmax_t size : {0, 1, 511, 513}) {
    const auto bad = open_disk({directory.file("bad", size), false, false});
    REQUIRE_FALSE(bad);
    CHECK(bad.error().message.find(std::to_string(size) + " bytes") != std::string::npos);
  }
  CHECK_FALSE(open_disk({directory.path, true, false}));
  CHECK_FALSE(open_disk({"/dev/null", true, false}));
  CHECK_FALSE(open_disk({directory.path + "/absent", false, false}));
}

TEST_CASE("a FIFO in a disk's place is refused, and not waited for") {
  const Directory directory;
  const std::string fifo = directory.path + "/fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK_FALSE(open_disk({fifo, false, false}));
  CHECK_FALSE(open_disk({fifo, true, false}));
}

TEST_CASE("one sandbox writes a disk, or several read it") {
  Directory directory;
  const std::string path = directory.file("disk", 4096);
  {
    const auto writer = open_disk({path, false, false});
    REQUIRE(writer);
    const auto other = open_disk({path, false, false});
    REQUIRE_FALSE(other);
    CHECK(other.error().message.find("in use") != std::string::npos);
    CHECK_FALSE(open_disk({path, true, false}));
  }
  const auto reader = open_disk({path, true, false});
  REQUIRE(reader);
  CHECK(open_disk({path, true, false}));
  CHECK_FALSE(open_disk({path, false, false}));
}

TEST_CASE("a direct disk is the same file, with an alignment that works") {
  Directory directory;
  const auto opened = open_disk({directory.file("disk", 65536), false, true});
  if (!opened) {
    MESSAGE("skipped: ", opened.error().message);
    return;
  }
  struct stat one{};
  struct stat two{};
  REQUIRE(::fstat(opened->file.get(), &one) == 0);
  REQUIRE(::fstat(opened->direct.get(), &two) == 0);
  CHECK(one.st_ino == two.st_ino);
  CHECK((::fcntl(opened->direct.get(), F_GETFL) & O_DIRECT) != 0);
  CHECK(opened->alignment >= 512);
  alignas(65536) static std::array<char, 65536> buffer;
  CHECK(::pread(opened->direct.get(), buffer.data() + opened->alignment, opened->alignment,
                opened->alignment) == static_cast<ssize_t>(opened->alignment));
}

RunningDisk running(const std::string& path, std::uint64_t size, bool read_only = false) {
  return {Fd(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC)), size, read_only};
}

TEST_CASE("a disk's file grows, and keeps what it holds") {
  Directory directory;
  const std::string path = directory.file("disk", 1024);
  std::ofstream(path, std::ios::in) << "kept";
  RunningDisk disk = running(path, 1024);
  CHECK(grow_disk(disk, 1024) == 1024);
  CHECK(grow_disk(disk, 1U << 20) == 1U << 20);
  CHECK(std::filesystem::file_size(path) == 1U << 20);
  // Its guest was not told: the same again is no smaller than what there is.
  CHECK(grow_disk(disk, 1U << 20) == 1U << 20);
  std::string text;
  std::getline(std::ifstream(path), text, '\0');
  CHECK(text == "kept");
}

TEST_CASE("a disk is not resized where data would be lost, or to what it cannot have") {
  Directory directory;
  const std::string path = directory.file("disk", 4096);
  const RunningDisk disk = running(path, 2048);
  for (const std::uint64_t size :
       {std::uint64_t{0}, std::uint64_t{512}, std::uint64_t{3584}, std::uint64_t{4097},
        std::uint64_t{5000}, std::uint64_t{1} << 63, ~std::uint64_t{0} - 511}) {
    CAPTURE(size);
    CHECK_FALSE(grow_disk(disk, size));
  }
  CHECK_FALSE(grow_disk(disk, std::nullopt));
  CHECK_FALSE(grow_disk(running(path, 4096, true), 8192));
  CHECK(std::filesystem::file_size(path) == 4096);
  // Somebody has cut the file off: what the guest was told counts.
  CHECK_FALSE(grow_disk(running(path, 8192), 6144));
  CHECK(grow_disk(running(path, 8192), 8192) == 8192);
  CHECK(std::filesystem::file_size(path) == 8192);
}

TEST_CASE("a limit on the size of files is an error, not this process's end") {
  Directory directory;
  const RunningDisk disk = running(directory.file("disk", 1024), 1024);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{8192, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const auto beyond = grow_disk(disk, 8704);
  const auto within = grow_disk(disk, 8192);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  REQUIRE_FALSE(beyond);
  CHECK(beyond.error().message.find("8192") != std::string::npos);
  CHECK(within == 8192);
}

}  // namespace
}  // namespace msb::launcher
