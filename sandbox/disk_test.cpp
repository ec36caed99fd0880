// SPDX-License-Identifier: Apache-2.0
#include "sandbox/disk.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "sandbox/place_testing.hpp"

namespace msb::sandbox {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMib = 1024 * 1024;

// The superblock's s_magic (Documentation/filesystems/ext4/super.rst), 0xEF53 at byte 1080.
bool is_ext4(int file) {
  unsigned char magic[2] = {};
  return ::pread(file, magic, sizeof magic, 1080) == 2 && magic[0] == 0x53 && magic[1] == 0xef;
}

TEST_CASE("a disk is made once, sparse, and grows and never shrinks") {
  const Place place;
  const std::string path = place.path + "/disk.ext4";
  REQUIRE(prepare_disk(path, 1024));
  CHECK(fs::file_size(path) == 1024 * kMib);
  CHECK(space_of(path) < 64 * kMib);
  REQUIRE(prepare_disk(path, 2048));
  CHECK(fs::file_size(path) == 2048 * kMib);
  const auto smaller = prepare_disk(path, 512);
  REQUIRE_FALSE(smaller);
  CHECK(smaller.error().message.find("cannot shrink") != std::string::npos);
  CHECK(fs::file_size(path) == 2048 * kMib);
  CHECK(std::distance(fs::directory_iterator(place.path), {}) == 1);
}

TEST_CASE("what stands in a disk's place and is none is left alone") {
  const Place place;
  fs::create_directory(place.path + "/directory");
  CHECK_FALSE(prepare_disk(place.path + "/directory", 64));
  std::ofstream(place.path + "/elsewhere") << "precious";
  fs::create_symlink(place.path + "/elsewhere", place.path + "/link");
  CHECK_FALSE(prepare_disk(place.path + "/link", 64));
  CHECK(fs::file_size(place.path + "/elsewhere") == 8);
}

TEST_CASE("scratch disks have no name, and a file system each") {
  const Place place;
  const auto one = make_scratch_disk(place.path, 256);
  const auto two = make_scratch_disk(place.path, 256);
  REQUIRE((one && two));
  struct stat status{};
  REQUIRE(::fstat(one->get(), &status) == 0);
  CHECK(status.st_nlink == 0);
  CHECK(status.st_size == static_cast<off_t>(256 * kMib));
  CHECK(is_ext4(one->get()));
  CHECK(is_ext4(two->get()));
  // Only the empty one that they are copied from is left.
  CHECK(std::distance(fs::directory_iterator(place.path + "/scratch"), {}) == 1);
}

}  // namespace
}  // namespace msb::sandbox
