// SPDX-License-Identifier: Apache-2.0
#include "oci/implied_directories.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <initializer_list>

#include "oci/layer.hpp"
#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::Listing;
using testing::Tar;

std::vector<Fd> converted(std::initializer_list<Tar> tars) {
  std::vector<Fd> layers;
  for (const Tar& tar : tars) {
    const testing::PackedLayer packed = testing::pack(tar.bytes(), Compression::kNone);
    testing::Pieces blob(packed.blob, 4096);
    layers.push_back(testing::temporary_file());
    REQUIRE(convert_layer(blob, packed.layer, layers.back().get()));
  }
  return layers;
}

// What the layer over `tars` (lowest first) has; nothing when there is none.
Listing described(std::initializer_list<Tar> tars) {
  const std::vector<Fd> layers = converted(tars);
  const auto made = make_directory_layer(layers);
  REQUIRE_MESSAGE(made, (made ? "" : made.error().message));
  return *made ? testing::read_image((*made)->get()) : Listing();
}

Tar listed(unsigned mode = 0700) {
  return Tar()
      .add({.name = "./", .type = '5', .mode = 0555, .uid = 1, .mtime = 10})
      .add({.name = "a", .type = '5', .mode = mode, .uid = 2, .gid = 3, .mtime = 20}, {},
           {{"SCHILY.xattr.user.x", "1"}, {"SCHILY.xattr.trusted.t", "2"}})
      .add({.name = "a/b", .type = '5', .mode = 01777, .mtime = 30})
      .file("a/b/low");
}

TEST_CASE("directory that a higher layer does not list is what the layer below says") {
  const Listing files = described({listed(), Tar().file("a/b/high")});
  REQUIRE(files.size() == 3);
  CHECK(files.at("").mode == (S_IFDIR | 0555U));
  CHECK(files.at("").uid == 1);
  CHECK(files.at("").mtime == 10);
  CHECK(files.at("a").mode == (S_IFDIR | 0700U));
  CHECK(files.at("a").uid == 2);
  CHECK(files.at("a").gid == 3);
  CHECK(files.at("a").mtime == 20);
  CHECK(files.at("a").xattrs ==
        std::map<std::string, std::string>{{"user.x", "1"}, {"trusted.t", "2"}});
  CHECK(files.at("a/b").mode == (S_IFDIR | 01777U));
  CHECK(files.at("a/b").mtime == 30);
}

TEST_CASE("the topmost layer that lists a directory is the one that counts") {
  const Listing files = described(
      {listed(0700), listed(0711), Tar().directory("./").file("a/1"), Tar().file("a/b/2")});
  CHECK(files.at("").mode == (S_IFDIR | 0755U));
  CHECK(files.at("a").mode == (S_IFDIR | 0711U));
}

TEST_CASE("no layer is made where none is needed") {
  CHECK(described({listed()}).empty());
  CHECK(described({Tar().file("a/b")}).empty());
  CHECK(described({listed(), listed()}).empty());
  CHECK(described({Tar().file("x/y"), Tar().file("x/z")}).empty());  // no layer lists it
  CHECK(described({Tar().directory("./"), Tar().directory("./").file("new/file")}).empty());
}

TEST_CASE("directories that are hidden describe nothing") {
  const Tar top = Tar().directory("./");
  CHECK(described({listed(), Tar(top).file(".wh.a").file("a/new")}).empty());
  CHECK(described({listed(), Tar(top).file("a/.wh..wh..opq").file("a/b/new")}).empty());
  CHECK(described({listed(), Tar(top).file("a", "a file"), Tar(top).file("a/new")}).empty());
  CHECK(described({listed(), Tar(top).file("a/new"), Tar(top).file(".wh.a")}).empty());
  CHECK(described({listed(), Tar(top).file("a/new"), Tar(top).symlink("a", "b")}).empty());
}

TEST_CASE("directory above that no layer lists stays as it is made up") {
  const Listing files = described(
      {Tar().directory("./").directory("x/y", 0700), Tar().directory("./").file("x/y/f")});
  CHECK(files.at("x").mode == (S_IFDIR | 0755U));
  CHECK(files.at("x").mtime == 0);
  CHECK(files.at("x/y").mode == (S_IFDIR | 0700U));
}

TEST_CASE("directories of many blocks are searched to their end") {
  Tar low = listed();
  Tar high = Tar().directory("./");
  for (int i = 0; i < 1000; ++i) {
    low.directory(fmt::format("a/directory-{}", i), 0711);
    high.file(fmt::format("a/directory-{}/file", i));
  }
  const Listing files = described({low, high});
  REQUIRE(files.size() == 1002);
  CHECK(files.at("a/directory-0").mode == (S_IFDIR | 0711U));
  CHECK(files.at("a/directory-999").mode == (S_IFDIR | 0711U));
}

TEST_CASE("more such directories than can be searched are refused") {
  std::vector<Fd> layers;
  Tar tar;
  for (int i = 0; i < 1000; ++i) {
    tar.file(fmt::format("d{}/f", i));
  }
  for (int i = 0; i < 210; ++i) {
    std::vector<Fd> one = converted({i == 209 ? tar : Tar().file("d0/f")});
    layers.push_back(std::move(one.front()));
  }
  const auto made = make_directory_layer(layers);
  REQUIRE_FALSE(made);
  CHECK(made.error().message.find("too many directories") != std::string::npos);
}

TEST_CASE("damaged image is refused and never read beyond") {
  const std::vector<Fd> layers = converted({listed(), Tar().file("a/b/high")});
  struct stat status{};
  REQUIRE(::fstat(layers[1].get(), &status) == 0);
  for (off_t at = 1024; at < status.st_size; at += 31) {
    char before = 0;
    REQUIRE(::pread(layers[1].get(), &before, 1, at) == 1);
    const char changed = static_cast<char>(~before);
    REQUIRE(::pwrite(layers[1].get(), &changed, 1, at) == 1);
    static_cast<void>(make_directory_layer(layers));
    REQUIRE(::pwrite(layers[1].get(), &before, 1, at) == 1);
  }
  REQUIRE(::ftruncate(layers[1].get(), 4096) == 0);
  CHECK_FALSE(make_directory_layer(layers));
}

}  // namespace
}  // namespace msb::oci
