// SPDX-License-Identifier: Apache-2.0
#include "oci/erofs_writer.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "oci/file_source.hpp"
#include "oci/layer.hpp"
#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::Listing;
using testing::Tar;
using testing::TemporaryDirectory;

std::string pattern(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string text(size, '\0');
  for (char& c : text) {
    c = static_cast<char>(random());
  }
  return text;
}

void convert_to(const std::string& path, const Tar& tar) {
  const auto packed = testing::pack(tar.bytes());
  const Fd blob = testing::temporary_file(packed.blob);
  const Fd output(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  FileSource source(blob.get());
  const auto converted = convert_layer(source, packed.layer, output.get());
  REQUIRE_MESSAGE(converted, (converted ? "" : converted.error().message));
}

Listing read_back(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return testing::read_image(fd.get());
}

// Whatever the format can vary: sizes around blocks and tails, names around ".", large directories,
// every kind of file.
Tar everything() {
  Tar tar;
  for (const std::size_t size :
       {0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 6144, 6145, 8191, 8192, 8193, 100'000}) {
    tar.file(fmt::format("sizes/{}", size), pattern(size, static_cast<unsigned>(size)));
  }
  for (const std::string name :
       {"!", "-", "..x", ".x", "...", "..!", ".-", "0", "~", "\xff", "\x01"}) {
    tar.file("dots/" + name, name);
  }
  tar.directory("dots/-dir").directory("dots/zdir");
  for (int i = 0; i < 3000; ++i) {
    tar.file(fmt::format("many/file-{}-{}", i, std::string(static_cast<std::size_t>(i % 90), 'x')),
             "x");
  }
  for (int i = 0; i < 600; ++i) {
    tar.file(fmt::format("before/!{}", i));
  }
  for (const std::size_t size : {1, 59, 60, 61, 1000, 4031, 4032, 4033, 4095}) {
    tar.add({.name = "x", .type = '2'}, {},
            {{"path", fmt::format("links/{}", size)}, {"linkpath", std::string(size, 'l')}});
  }
  for (const std::size_t size : {1, 100, 3900, 4000, 5000, 65535}) {
    const Tar::Records xattr = {{"SCHILY.xattr.user.v", pattern(size, 1)},
                                {"SCHILY.xattr.trusted.w", "w"}};
    const auto with_path = [&](const std::string& kind) {
      Tar::Records records = xattr;
      records.emplace_back("path", fmt::format("xattrs/{}-{}", kind, size));
      return records;
    };
    tar.add({.name = "x"}, pattern(1500, 2), with_path("file"));
    tar.add({.name = "x"}, pattern(5000, 3), with_path("file-blocks"));
    tar.add({.name = "x", .type = '5'}, {}, with_path("directory"));
    tar.file(fmt::format("xattrs/directory-{}/in", size));
    tar.add({.name = "x", .type = '2', .link = std::string(99, 't')}, {}, with_path("link"));
  }
  tar.add({.name = "kinds/char", .type = '3', .mode = 0620, .gid = 5, .major = 4, .minor = 64});
  tar.add({.name = "kinds/block", .type = '4', .mode = 0660, .major = 259, .minor = 70000});
  tar.add({.name = "kinds/fifo", .type = '6', .mode = 0600});
  tar.add({.name = "kinds/old"}, "x", {{"mtime", "-1230768000.5"}});
  tar.add({.name = "kinds/new"}, "x", {{"mtime", "10413792000.25"}});
  tar.add({.name = "kinds/setuid", .mode = 06755, .uid = 4000000000, .gid = 4294967294 % 2097151},
          "x");
  tar.file("kinds/h1", "linked").hard_link("kinds/h2", "kinds/h1").hard_link("h3", "kinds/h2");
  tar.directory("opaque")
      .file("opaque/.wh..wh..opq")
      .file("opaque/f")
      .file("gone/.wh.a")
      .file("gone/.wh.b");
  return tar;
}

TEST_CASE("image of everything reads back as what the tar said") {
  const TemporaryDirectory directory;
  convert_to(directory / "image", everything());
  const Listing files = read_back(directory / "image");
  for (const std::size_t size :
       {0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 6144, 6145, 8191, 8192, 8193, 100'000}) {
    CAPTURE(size);
    CHECK(files.at(fmt::format("sizes/{}", size)).content ==
          pattern(size, static_cast<unsigned>(size)));
  }
  for (const std::size_t size : {1, 59, 60, 61, 1000, 4031, 4032, 4033, 4095}) {
    CHECK(files.at(fmt::format("links/{}", size)).content == std::string(size, 'l'));
  }
  for (const std::size_t size : {1, 100, 3900, 4000, 5000, 65535}) {
    CAPTURE(size);
    for (const std::string kind : {"file", "file-blocks", "directory"}) {
      CHECK(files.at(fmt::format("xattrs/{}-{}", kind, size)).xattrs.at("user.v") ==
            pattern(size, 1));
    }
    CHECK(files.at(fmt::format("xattrs/link-{}", size)).xattrs ==
          std::map<std::string, std::string>{{"trusted.w", "w"}});
    CHECK(files.at(fmt::format("xattrs/file-{}", size)).content == pattern(1500, 2));
    CHECK(files.at(fmt::format("xattrs/file-blocks-{}", size)).content == pattern(5000, 3));
  }
  CHECK(files.at("h3").links == 3);
  CHECK(files.at("gone/a").inode == files.at("gone/b").inode);
  CHECK(files.at("gone/a").links == 2);
}

TEST_CASE("fsck.erofs finds nothing wrong with an image of everything") {
  if (std::system("command -v fsck.erofs >/dev/null 2>&1") != 0) {
    MESSAGE("skipped: fsck.erofs (Debian package erofs-utils) is not installed");
    return;
  }
  const TemporaryDirectory directory;
  const std::string image = directory / "image";
  convert_to(image, everything());
  const std::string log = directory / "log";
  CHECK(std::system(fmt::format("fsck.erofs {} >{} 2>&1", image, log).c_str()) == 0);

  SUBCASE("and extracts the content that was packed") {
    const std::string tree = directory / "tree";
    const bool root = ::geteuid() == 0;
    // Without privilege it cannot make devices, and stops.
    if (root) {
      CHECK(std::system(
                fmt::format("fsck.erofs --extract={} {} >{} 2>&1", tree, image, log).c_str()) == 0);
      const Listing expected = read_back(image);
      const Listing found = testing::read_directory(tree);
      REQUIRE(found.size() == expected.size());
      for (const auto& [path, file] : expected) {
        CAPTURE(path);
        CHECK(found.at(path).content == file.content);
        CHECK(found.at(path).uid == file.uid);
        CHECK(found.at(path).mtime == file.mtime);
        CHECK(found.at(path).device == file.device);
      }
    }
  }
}

TEST_CASE("kernel mounts an image of everything and shows the same") {
  const TemporaryDirectory directory;
  const std::string image = directory / "image";
  const std::string mounted = directory / "mounted";
  convert_to(image, everything());
  std::filesystem::create_directory(mounted);
  if (::mount(image.c_str(), mounted.c_str(), "erofs", MS_RDONLY, nullptr) != 0) {
    MESSAGE("skipped: this host cannot mount EROFS from a file (needs root and Linux 6.12)");
    return;
  }
  Listing found = testing::read_directory(mounted);
  ::umount2(mounted.c_str(), MNT_DETACH);
  const Listing expected = read_back(image);
  REQUIRE(found.size() == expected.size());
  for (const auto& [path, file] : expected) {
    CAPTURE(path);
    CHECK(found.at(path) == file);
  }
}

TEST_CASE("equal layers give equal images, whatever the compression") {
  const auto image_of = [](Compression compression) {
    const auto packed = testing::pack(everything().bytes(), compression);
    const Fd blob = testing::temporary_file(packed.blob);
    const Fd output = testing::temporary_file();
    FileSource source(blob.get());
    const auto converted = convert_layer(source, packed.layer, output.get());
    REQUIRE(converted);
    std::string bytes(converted->image_bytes, '\0');
    REQUIRE(::pread(output.get(), bytes.data(), bytes.size(), 0) == std::ssize(bytes));
    return testing::digest_of(bytes).to_string();
  };
  const std::string first = image_of(Compression::kGzip);
  CHECK(image_of(Compression::kGzip) == first);
  CHECK(image_of(Compression::kNone) == first);
  CHECK(image_of(Compression::kZstd) == first);
}

TEST_CASE("empty layer is a root directory") {
  const Listing files = testing::convert(Tar());
  CHECK(files.size() == 1);
  CHECK(files.at("").mode == (S_IFDIR | 0755));
}

TEST_CASE("file beyond 4 GiB keeps its content at every offset and its holes take no space") {
  const TemporaryDirectory directory;
  constexpr std::uint64_t kSize = (std::uint64_t{5} << 30) + 123;
  // GNU sparse format 0.1 (pax): two pieces of data, the rest holes.
  const std::string head = pattern(512, 1);
  const std::string late = pattern(1024, 2);
  Tar tar;
  tar.add({.name = "GNUSparseFile/big"}, head + late,
          {{"GNU.sparse.size", std::to_string(kSize)},
           {"GNU.sparse.numblocks", "2"},
           {"GNU.sparse.map", fmt::format("0,512,{},1024", std::uint64_t{4} << 30)},
           {"GNU.sparse.name", "big"}});
  tar.file("after", "x");
  convert_to(directory / "image", tar);

  const Fd fd(::open((directory / "image").c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status{};
  REQUIRE(::fstat(fd.get(), &status) == 0);
  CHECK(static_cast<std::uint64_t>(status.st_size) > kSize);
  CHECK(status.st_blocks * 512 < (8 << 20));
  // The file is the first one, so its data starts at block 1.
  const auto bytes_at = [&](std::uint64_t offset, std::size_t length) {
    std::string bytes(length, 'x');
    REQUIRE(::pread(fd.get(), bytes.data(), length, static_cast<off_t>(4096 + offset)) ==
            std::ssize(bytes));
    return bytes;
  };
  CHECK(bytes_at(0, 512) == head);
  CHECK(bytes_at(512, 512) == std::string(512, '\0'));
  CHECK(bytes_at(std::uint64_t{4} << 30, 1024) == late);
  CHECK(bytes_at((std::uint64_t{4} << 30) + 1024, 4096) == std::string(4096, '\0'));
}

TEST_CASE("sparse files of each format have their content") {
  const std::string block = pattern(512, 9);
  const std::string whole = std::string(1024, '\0') + block + std::string(512, '\0');
  SUBCASE("GNU 0.0") {
    CHECK(testing::convert(Tar().add({.name = "f"}, block,
                                     {{"GNU.sparse.size", "2048"},
                                      {"GNU.sparse.numblocks", "1"},
                                      {"GNU.sparse.offset", "1024"},
                                      {"GNU.sparse.numbytes", "512"}}))
              .at("f")
              .content == whole);
  }
  SUBCASE("GNU 1.0") {
    std::string map = "1\n1024\n512\n";
    map.resize(512);
    CHECK(testing::convert(Tar().add({.name = "GNUSparseFile.0/f"}, map + block,
                                     {{"GNU.sparse.major", "1"},
                                      {"GNU.sparse.minor", "0"},
                                      {"GNU.sparse.name", "f"},
                                      {"GNU.sparse.realsize", "2048"}}))
              .at("f")
              .content == whole);
  }
}

}  // namespace
}  // namespace msb::oci
