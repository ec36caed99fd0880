// SPDX-License-Identifier: Apache-2.0
#include "sandbox/tree_sink.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/fd.hpp"
#include "oci/test_support.hpp"

namespace msb::sandbox {
namespace {

namespace fs = std::filesystem;
using oci::testing::Pieces;
using oci::testing::Tar;
using oci::testing::TemporaryDirectory;
using oci::testing::write_file;

std::string read(const std::string& path) {
  std::ifstream file(path);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct stat status_of(const std::string& path) {
  struct stat status{};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status;
}

// A directory that a stream is unpacked in, and beside it what the stream must not reach.
struct Bed {
  Bed() {
    fs::create_directory(inside());
    write_file(outside(), "untouched");
  }
  // Whatever happened, outside is as it was.
  ~Bed() {
    CHECK(read(outside()) == "untouched");
    CHECK(status_of(outside()).st_nlink == 1);
    CHECK(std::distance(fs::directory_iterator(directory.path()), {}) == 2);
  }
  Bed(const Bed&) = delete;
  Bed& operator=(const Bed&) = delete;

  [[nodiscard]] std::string inside() const { return directory / "inside"; }
  [[nodiscard]] std::string outside() const { return directory / "outside"; }
  [[nodiscard]] std::string operator/(const std::string& name) const {
    return inside() + "/" + name;
  }

  [[nodiscard]] Result<Unpacked> unpack(const std::string& bytes,
                                        UnpackOptions options = {}) const {
    Pieces pieces(bytes, 1000);
    const Fd top(::open(inside().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(top);
    return unpack_tree(pieces, top.get(), options);
  }
  [[nodiscard]] Result<Unpacked> unpack(const Tar& tar, UnpackOptions options = {}) const {
    return unpack(tar.bytes(), options);
  }

  TemporaryDirectory directory;
};

TEST_CASE("files, directories and links of a stream are there afterwards") {
  const Bed bed;
  Tar tar;
  tar.directory("./", 0700).directory("./a/", 0750).add({.name = "./a/f", .mode = 0754}, "content");
  tar.symlink("./a/s", "../../anywhere").hard_link("./h", "./a/f").file("./empty");
  const auto done = bed.unpack(tar, {.owners = true, .top = false});
  REQUIRE(done);
  CHECK(done->entries == 6);
  CHECK(done->left_out == 0);
  CHECK(read(bed / "a/f") == "content");
  CHECK((status_of(bed / "a/f").st_mode & 07777) == 0754);
  CHECK((status_of(bed / "a").st_mode & 07777) == 0750);
  CHECK(status_of(bed / "a/f").st_mtim.tv_sec == 0);
  CHECK(fs::read_symlink(bed / "a/s") == "../../anywhere");
  CHECK(fs::equivalent(bed / "h", bed / "a/f"));
  CHECK(read(bed / "empty").empty());
}

TEST_CASE("the umask holds, and set-user-ID bits are dropped, unless modes are kept") {
  const mode_t before = ::umask(027);
  const Bed bed;
  Tar tar;
  tar.add({.name = "f", .mode = 06777}, "").directory("d/", 07777);
  REQUIRE(bed.unpack(tar));
  CHECK((status_of(bed / "f").st_mode & 07777) == 0750);
  CHECK((status_of(bed / "d").st_mode & 07777) == 0750);
  REQUIRE(bed.unpack(Tar().add({.name = "f", .mode = 06777}, ""), {.owners = true, .top = false}));
  CHECK((status_of(bed / "f").st_mode & 07777) == 0777);
  ::umask(before);
}

TEST_CASE("files that are there are replaced and directories merged") {
  const Bed bed;
  fs::create_directory(bed / "d");
  write_file(bed / "d/kept", "kept");
  write_file(bed / "d/old", "old");
  fs::create_symlink(bed.outside(), bed / "link");
  Tar tar;
  tar.directory("d/").file("d/old", "new").file("link", "no longer a link");
  REQUIRE(bed.unpack(tar));
  CHECK(read(bed / "d/kept") == "kept");
  CHECK(read(bed / "d/old") == "new");
  CHECK(read(bed / "link") == "no longer a link");
}

TEST_CASE("a name that leads out is refused") {
  for (const std::string name :
       {"../outside", "/etc/passwd", "a/../../outside", "./../outside", "..", "a/.."}) {
    CAPTURE(name);
    const Bed bed;
    CHECK_FALSE(bed.unpack(Tar().file(name, "evil")));
    CHECK_FALSE(bed.unpack(Tar().directory(name)));
    CHECK_FALSE(bed.unpack(Tar().symlink(name, "x")));
    CHECK_FALSE(bed.unpack(Tar().file("f").hard_link("h", name)));
    CHECK_FALSE(bed.unpack(Tar().file("f").hard_link(name, "f")));
  }
}

TEST_CASE("no symbolic link of the stream is gone through") {
  const Bed bed;
  const std::string up = bed.directory.path();
  // A link where a directory should be.
  CHECK_FALSE(bed.unpack(Tar().symlink("l", up).file("l/outside", "evil")));
  CHECK_FALSE(bed.unpack(Tar().symlink("l", "..").directory("l/").file("l/outside", "evil")));
  CHECK_FALSE(bed.unpack(Tar().symlink("l", "..").directory("l/new/")));
  CHECK_FALSE(bed.unpack(Tar().symlink("l", "..").symlink("l/new", "x")));
  CHECK_FALSE(bed.unpack(Tar().symlink("l", "..").hard_link("h", "l/outside")));
  CHECK_FALSE(bed.unpack(Tar().file("f").symlink("l", "..").hard_link("l/new", "f")));
  // A file over a link takes the link's place.
  REQUIRE(bed.unpack(Tar().symlink("m", "../outside").file("m", "evil")));
  CHECK(read(bed / "m") == "evil");
  // Another name of a link is the link's.
  REQUIRE(bed.unpack(Tar().symlink("n", "../outside").hard_link("o", "n").file("o", "evil")));
  CHECK(read(bed / "o") == "evil");
}

TEST_CASE("a directory is not swapped for a symbolic link between its entries") {
  const Bed bed;
  Tar tar;
  tar.directory("d/").file("d/one", "1").symlink("d", "..").file("d/outside", "evil");
  CHECK_FALSE(bed.unpack(tar));
  CHECK(status_of(bed / "d").st_mode == (S_IFDIR | 0700));
}

TEST_CASE("links that were there before are not gone through either") {
  const Bed bed;
  fs::create_symlink("..", bed / "l");
  CHECK_FALSE(bed.unpack(Tar().file("l/outside", "evil")));
  CHECK_FALSE(bed.unpack(Tar().directory("l/")));
  CHECK(fs::is_symlink(bed / "l"));
}

TEST_CASE("a hard link to a file that is replaced later does not carry the new content") {
  const Bed bed;
  REQUIRE(bed.unpack(Tar().file("a", "first").hard_link("b", "a").file("a", "second")));
  CHECK(read(bed / "a") == "second");
  CHECK(read(bed / "b") == "first");
  REQUIRE(bed.unpack(Tar().file("c", "c").hard_link("c", "c")));
  CHECK(read(bed / "c") == "c");
}

TEST_CASE("device nodes and FIFOs are left out and counted") {
  const Bed bed;
  Tar tar;
  tar.add({.name = "null", .type = '3', .major = 1, .minor = 3}).add({.name = "pipe", .type = '6'});
  const auto done = bed.unpack(tar);
  REQUIRE(done);
  CHECK(done->left_out == 2);
  CHECK(done->first_left_out == "null");
  CHECK(fs::is_empty(bed.inside()));
}

TEST_CASE("a file that is cut off is not left there") {
  const Bed bed;
  const std::string bytes =
      Tar().file("whole", "w").file("f", std::string(5000, 'x')).without_end();
  CHECK_FALSE(bed.unpack(bytes.substr(0, bytes.size() - 2000)));
  CHECK(fs::exists(bed / "whole"));
  CHECK_FALSE(fs::exists(bed / "f"));
}

TEST_CASE("a size that no file can have is an error, and nothing stays") {
  const Bed bed;
  Tar tar;
  tar.add({.name = "f"}, std::string(512, '\0'),
          {{"GNU.sparse.major", "0"},
           {"GNU.sparse.minor", "1"},
           {"GNU.sparse.map", "0,512"},
           {"GNU.sparse.size", "9223372036854775807"}});
  const auto done = bed.unpack(tar);
  // Some file systems can.
  CHECK(fs::exists(bed / "f") == done.has_value());
}

TEST_CASE("holes stay holes") {
  const Bed bed;
  Tar tar;
  tar.add({.name = "f"}, std::string(512, 'x'),
          {{"GNU.sparse.major", "0"},
           {"GNU.sparse.minor", "1"},
           {"GNU.sparse.map", "1048576,512"},
           {"GNU.sparse.size", "4194304"}});
  REQUIRE(bed.unpack(tar));
  const struct stat status = status_of(bed / "f");
  CHECK(status.st_size == 4194304);
  CHECK(status.st_blocks * 512 < 1048576);
  CHECK(read(bed / "f").substr(1048576, 512) == std::string(512, 'x'));
}

TEST_CASE("a sentence has no control characters of a name in it") {
  const Bed bed;
  const auto done = bed.unpack(Tar().file("../\x1b[2J\nmsb: all is well", ""));
  REQUIRE_FALSE(done);
  CHECK(done.error().message.find('\x1b') == std::string::npos);
  CHECK(done.error().message.find('\n') == std::string::npos);
}

TEST_CASE("a stream that never ends after its end is broken off") {
  const Bed bed;
  CHECK(bed.unpack(Tar().file("f").bytes() + std::string(9216, '\0')));
  CHECK_FALSE(bed.unpack(Tar().file("f").bytes() + std::string(2 << 20, 'x')));
}

TEST_CASE("missing parents are made, and what is no directory is not replaced by one") {
  const Bed bed;
  REQUIRE(bed.unpack(Tar().file("a/b/c/f", "deep")));
  CHECK(read(bed / "a/b/c/f") == "deep");
  CHECK_FALSE(bed.unpack(Tar().directory("a/b/c/f/")));
  CHECK_FALSE(bed.unpack(Tar().file("a/b/c/f/g")));
  CHECK_FALSE(bed.unpack(Tar().file("a/b", "")));
  CHECK(read(bed / "a/b/c/f") == "deep");
}

TEST_CASE("the directory itself gets the stream's mode only when that is asked for") {
  const Bed bed;
  REQUIRE(::chmod(bed.inside().c_str(), 0711) == 0);
  REQUIRE(bed.unpack(Tar().directory("./", 0750)));
  CHECK((status_of(bed.inside()).st_mode & 0777) == 0711);
  REQUIRE(bed.unpack(Tar().directory("./", 0750), {.owners = true, .top = true}));
  CHECK((status_of(bed.inside()).st_mode & 0777) == 0750);
}

TEST_CASE("a directory that may not be searched is filled all the same") {
  const Bed bed;
  REQUIRE(bed.unpack(Tar().directory("d/", 0).directory("d/e/", 0).file("d/e/f", "x"),
                     {.owners = true, .top = false}));
  CHECK((status_of(bed / "d").st_mode & 0777) == 0);
  REQUIRE(::chmod((bed / "d").c_str(), 0700) == 0);
  REQUIRE(::chmod((bed / "d/e").c_str(), 0700) == 0);
  CHECK(read(bed / "d/e/f") == "x");
}

}  // namespace
}  // namespace msb::sandbox
