// SPDX-License-Identifier: Apache-2.0
// What a layer's entries become: each tar is converted and its image read back.
#include "oci/layer_tree.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::conversion_error;
using testing::convert;
using testing::ImageFile;
using testing::Listing;
using testing::Tar;

const std::map<std::string, std::string> kOpaque = {{"trusted.overlay.opaque", "y"}};

bool is_whiteout(const ImageFile& file) {
  return S_ISCHR(file.mode) && file.device == 0;
}

std::vector<std::string> paths(const Listing& listing) {
  std::vector<std::string> all;
  for (const auto& [path, file] : listing) {
    if (!path.empty()) {
      all.push_back(path);
    }
  }
  return all;
}

using Paths = std::vector<std::string>;

bool contains(const std::string& text, std::string_view part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

TEST_CASE("entry of each kind keeps its metadata") {
  const Listing files = convert(
      Tar()
          .add({.name = "dir/", .type = '5', .mode = 01777, .uid = 1, .gid = 2, .mtime = 3})
          .add({.name = "dir/file", .mode = 04755, .uid = 1000, .gid = 70000, .mtime = 1700000000},
               "content")
          .symlink("link", "../else/where")
          .add({.name = "char", .type = '3', .mode = 0600, .major = 10, .minor = 200})
          .add({.name = "block", .type = '4', .mode = 0660, .major = 259, .minor = 70000})
          .add({.name = "fifo", .type = '6', .mode = 0644}));
  CHECK(paths(files) == Paths{"block", "char", "dir", "dir/file", "fifo", "link"});
  CHECK(files.at("dir").mode == (S_IFDIR | 01777));
  CHECK(files.at("dir").uid == 1);
  CHECK(files.at("dir").mtime == 3);
  CHECK(files.at("dir/file").mode == (S_IFREG | 04755));
  CHECK(files.at("dir/file").gid == 70000);
  CHECK(files.at("dir/file").mtime == 1700000000);
  CHECK(files.at("dir/file").content == "content");
  CHECK(files.at("link").content == "../else/where");
  CHECK(files.at("link").mode == (S_IFLNK | 0777));
  CHECK(files.at("char").device == makedev(10, 200));
  CHECK(files.at("block").device == makedev(259, 70000));
  CHECK(files.at("fifo").mode == (S_IFIFO | 0644));
}

TEST_CASE("directory counts its subdirectories as links") {
  const Listing files = convert(Tar().directory("a/b").directory("a/c").file("a/f"));
  CHECK(files.at("").links == 3);
  CHECK(files.at("a").links == 4);
  CHECK(files.at("a/b").links == 2);
  CHECK(files.at("a/f").links == 1);
}

TEST_CASE("leading slashes and dots in names mean nothing") {
  const Listing files = convert(Tar()
                                    .file("/absolute")
                                    .file("./dotted")
                                    .file("//a/.//./b")
                                    .directory("./", 0700)
                                    .directory("/c//"));
  CHECK(paths(files) == Paths{"a", "a/b", "absolute", "c", "dotted"});
  CHECK(files.at("").mode == (S_IFDIR | 0700));
}

TEST_CASE("missing parents are directories of root with mode 0755") {
  const Listing files = convert(Tar().add({.name = "a/b/c", .uid = 7, .mtime = 9}));
  CHECK(files.at("a/b").mode == (S_IFDIR | 0755));
  CHECK(files.at("a/b").uid == 0);
  CHECK(files.at("a/b").mtime == 0);
}

TEST_CASE("parent that comes after its content gets its metadata, too") {
  const Listing files =
      convert(Tar().file("a/b").add({.name = "a", .type = '5', .mode = 0711, .uid = 5}));
  CHECK(files.at("a").mode == (S_IFDIR | 0711));
  CHECK(files.at("a").uid == 5);
  CHECK(files.contains("a/b"));
}

TEST_CASE("entry given twice is what the last one says") {
  CHECK(convert(Tar().file("f", "old").file("f", "new")).at("f").content == "new");
  CHECK(convert(Tar().file("f", "old").symlink("f", "x")).at("f").content == "x");

  const Listing merged = convert(Tar().directory("d", 0700).file("d/f").directory("d", 0750));
  CHECK(merged.at("d").mode == (S_IFDIR | 0750));
  CHECK(merged.contains("d/f"));

  const Listing replaced = convert(Tar().directory("d").file("d/f").file("d", "now a file"));
  CHECK(paths(replaced) == Paths{"d"});
}

TEST_CASE("directory that replaces a file of its own layer hides what lower layers have") {
  CHECK(convert(Tar().file("d").directory("d")).at("d").xattrs == kOpaque);
  CHECK(convert(Tar().directory("d").directory("d")).at("d").xattrs.empty());
}

TEST_CASE("hard links share an inode and count its names") {
  const Listing files = convert(
      Tar().file("a", "content").hard_link("d/b", "a").hard_link("c", "./d//b").file("other"));
  CHECK(files.at("a").links == 3);
  CHECK(files.at("a").inode == files.at("d/b").inode);
  CHECK(files.at("a").inode == files.at("c").inode);
  CHECK(files.at("c").content == "content");
  CHECK(files.at("other").links == 1);
}

TEST_CASE("what a hard link's header says of its owner, mode and time means nothing") {
  const testing::ImageFile file =
      convert(Tar()
                  .add({.name = "a", .mode = 0600, .uid = 1, .gid = 2, .mtime = 3})
                  .add({.name = "b", .type = '1', .link = "a", .mode = 0777, .uid = 4, .mtime = 5}))
          .at("b");
  CHECK((file.mode & 07777U) == 0600);
  CHECK(file.uid == 1);
  CHECK(file.gid == 2);
  CHECK(file.mtime == 3);
}

TEST_CASE("hard link to a symbolic link shares the link itself") {
  const Listing files = convert(Tar().symlink("s", "target").hard_link("h", "s"));
  CHECK(files.at("h").content == "target");
  CHECK(files.at("h").links == 2);
}

TEST_CASE("hard link whose target is replaced later keeps the old content") {
  const Listing files = convert(Tar().file("a", "old").hard_link("b", "a").file("a", "new"));
  CHECK(files.at("a").content == "new");
  CHECK(files.at("a").links == 1);
  CHECK(files.at("b").content == "old");
  CHECK(files.at("b").links == 1);
}

TEST_CASE("hard link to itself changes nothing") {
  CHECK(convert(Tar().file("a", "x").hard_link("a", "a")).at("a").links == 1);
}

TEST_CASE("hard link without a file to link to is refused by name") {
  CHECK(contains(conversion_error(Tar().hard_link("a", "missing")), "hard link 'a' to 'missing'"));
  CHECK(contains(conversion_error(Tar().hard_link("a", "a")), "does not come before"));
  CHECK(contains(conversion_error(Tar().hard_link("a", "later").file("later")),
                 "does not come before"));
  CHECK(contains(conversion_error(Tar().directory("d").hard_link("a", "d")), "directory"));
  CHECK(contains(conversion_error(Tar().hard_link("a", "/")), "directory"));
  CHECK(contains(conversion_error(Tar().file("f").hard_link("a", "f/x")), "not a directory"));
  CHECK(
      contains(conversion_error(Tar().file(".wh.f").hard_link("a", "f")), "does not come before"));
}

TEST_CASE("name that climbs out of the layer is refused by name") {  // hostile-input 33
  for (const std::string name : {"..", "../f", "a/../../f", "/../f", "a/..", "./.."}) {
    CAPTURE(name);
    CHECK(contains(conversion_error(Tar().file(name)), "'" + name + "'"));
    CHECK(contains(conversion_error(Tar().directory(name)), "'..'"));
    CHECK(contains(conversion_error(Tar().symlink(name, "x")), "'..'"));
    CHECK(contains(conversion_error(Tar().file("a/f").hard_link("h", name)), "'..'"));
    CHECK(contains(conversion_error(Tar().file("a/f").hard_link(name, "a/f")), "'..'"));
  }
}

TEST_CASE(
    "parent that is a symbolic link of the layer is followed inside of it") {  // hostile-input 33
  SUBCASE("relative and absolute targets") {
    const Listing files = convert(Tar()
                                      .directory("usr/lib")
                                      .symlink("lib", "usr/lib")
                                      .symlink("lib64", "/lib")
                                      .file("lib64/f"));
    CHECK(files.contains("usr/lib/f"));
    CHECK(files.at("lib64").content == "/lib");
  }
  SUBCASE("a target that climbs stops at the root") {
    const Listing files =
        convert(Tar().symlink("a/up", "../../../../etc").file("a/up/passwd", "mine"));
    CHECK(files.at("etc/passwd").content == "mine");
  }
  SUBCASE("a target that does not exist is created") {
    CHECK(convert(Tar().symlink("s", "x/y").file("s/f")).contains("x/y/f"));
  }
  SUBCASE("a link through a link") {
    const Listing files = convert(Tar()
                                      .symlink("a", "b")
                                      .symlink("b", "c/d")
                                      .symlink("c", "/real")
                                      .file("a/f", "x")
                                      .hard_link("h", "a/f"));
    CHECK(files.at("real/d/f").content == "x");
    CHECK(files.at("h").links == 2);
  }
  SUBCASE("a loop is refused") {
    CHECK(contains(conversion_error(Tar().symlink("a", "b").symlink("b", "a").file("a/f")),
                   "symbolic links"));
    CHECK(contains(conversion_error(Tar().symlink("a", "a/x").file("a/f")), "symbolic links"));
  }
  SUBCASE("the last component is not followed but replaced") {
    const Listing files = convert(Tar().directory("d").symlink("s", "d").file("s", "file"));
    CHECK(files.at("s").content == "file");
    CHECK(convert(Tar().directory("d").symlink("s", "d").directory("s")).at("s").mode ==
          (S_IFDIR | 0755));
  }
}

TEST_CASE("parent that is no directory is refused") {
  CHECK(contains(conversion_error(Tar().file("f").file("f/x")), "'f/x'"));
  CHECK(
      contains(conversion_error(Tar().file("f").symlink("s", "f").file("s/x")), "not a directory"));
}

TEST_CASE("root can only be a directory") {
  for (const std::string name : {".", "/", "./"}) {
    CAPTURE(name);
    CHECK(contains(conversion_error(Tar().symlink(name, "x")), "root directory"));
    CHECK(contains(conversion_error(Tar().file("f").hard_link(name, "f")), "root directory"));
  }
}

TEST_CASE("whiteout becomes a character device 0/0") {
  const Listing files =
      convert(Tar().file(".wh.gone").file("a/.wh.old", "ignored content").file("a/new"));
  CHECK(paths(files) == Paths{"a", "a/new", "a/old", "gone"});
  CHECK(is_whiteout(files.at("gone")));
  CHECK(is_whiteout(files.at("a/old")));
}

TEST_CASE("whiteout does not hide what its own layer has, wherever it comes") {
  for (const bool first : {true, false}) {
    CAPTURE(first);
    Tar tar;
    const auto mark = [&] { tar.file(".wh.file").file(".wh.dir").file(".wh.implied"); };
    if (first) {
      mark();
    }
    tar.file("file", "kept").directory("dir").file("dir/x").file("implied/x");
    if (!first) {
      mark();
    }
    const Listing files = convert(tar);
    CHECK(files.at("file").content == "kept");
    CHECK(files.at("dir").xattrs == kOpaque);
    CHECK(files.at("implied").xattrs == kOpaque);
    CHECK(paths(files) == Paths{"dir", "dir/x", "file", "implied", "implied/x"});
  }
}

TEST_CASE("opaque marker makes its directory opaque and whiteouts in it needless") {
  const Listing files = convert(Tar().file("d/.wh.a").file("d/.wh..wh..opq").file("d/b"));
  CHECK(files.at("d").xattrs == kOpaque);
  CHECK(paths(files) == Paths{"d", "d/b"});
  CHECK(convert(Tar().file(".wh..wh..opq")).at("").xattrs == kOpaque);
}

TEST_CASE("whiteout made as a hard link, as AUFS did, is a whiteout") {
  CHECK(is_whiteout(convert(Tar().hard_link(".wh.f", ".wh..wh.aufs")).at("f")));
}

TEST_CASE("leftovers of AUFS are ignored") {
  CHECK(paths(convert(Tar()
                          .directory(".wh..wh.plnk")
                          .file(".wh..wh.plnk/12.34", "x")
                          .file("a/.wh..wh.orph")
                          .file("f"))) == Paths{"f"});
}

TEST_CASE("whiteout of no name or of a directory above is refused") {  // hostile-input 33
  for (const std::string name : {".wh.", ".wh..", ".wh...", "a/.wh...", "a/.wh."}) {
    CAPTURE(name);
    CHECK(contains(conversion_error(Tar().file(name)), "'" + name + "'"));
  }
  CHECK(contains(conversion_error(Tar().file("../.wh.f")), "'..'"));
}

TEST_CASE("whiteout below a symbolic link stays inside the layer") {  // hostile-input 33
  const Listing files = convert(Tar().symlink("a/up", "../..").file("a/up/.wh.etc"));
  CHECK(is_whiteout(files.at("etc")));
}

TEST_CASE("names are bytes, whatever they are") {
  const std::string raw = "latin-\xe9-\xff\xfe";
  const std::string decomposed =
      "u\xcc\x88";  // u with a combining diaeresis; its composed form is another name
  const std::string composed = "\xc3\xbc";
  const std::string control = "line\nbreak\x1b[0m";
  Tar tar;
  for (const std::string& name : {raw, decomposed, composed, control}) {
    tar.add({.name = "header-" + name}, name);
    tar.add({.name = "short"}, name, {{"path", "pax-" + name}});
    tar.add({.name = "short", .type = '2'}, {}, {{"path", "link-" + name}, {"linkpath", name}});
    tar.add({.name = "short", .type = '1'}, {},
            {{"path", "hard-" + name}, {"linkpath", "pax-" + name}});
  }
  const Listing files = convert(tar);
  CHECK(files.size() == 1 + 4 * 4);
  for (const std::string& name : {raw, decomposed, composed, control}) {
    CAPTURE(name);
    CHECK(files.at("header-" + name).content == name);
    CHECK(files.at("pax-" + name).content == name);
    CHECK(files.at("link-" + name).content == name);
    CHECK(files.at("hard-" + name).inode == files.at("pax-" + name).inode);
  }
}

TEST_CASE("names in messages cannot move a terminal's cursor") {
  const std::string message = conversion_error(Tar().file("\x1b[31m\xff/../x"));
  CHECK(contains(message, "'\\x1b[31m\\xff/../x'"));
  CHECK(std::ranges::all_of(message, [](char c) { return c >= ' ' && c <= '~'; }));
}

TEST_CASE("names up to the limits of Linux are kept and longer ones refused") {
  const auto named = [](const std::string& name) {
    return Tar().add({.name = "x"}, {}, {{"path", name}});
  };
  const std::string component(kMaxNameLength, 'n');
  CHECK(convert(named(component)).contains(component));
  CHECK(contains(conversion_error(named(component + "n")), "longer than 255 bytes"));

  std::string path;
  while (path.size() < kMaxPathLength - 2) {
    path += "d/";
  }
  path += "ff";
  REQUIRE(path.size() == kMaxPathLength);
  CHECK(convert(named(path)).contains(path));
  CHECK(contains(conversion_error(named(path + "f")), "longer than 4096 bytes"));

  const auto target = [](std::size_t length) {
    return Tar().add({.name = "s", .type = '2'}, {}, {{"linkpath", std::string(length, 't')}});
  };
  CHECK(convert(target(kMaxTargetLength)).at("s").content.size() == kMaxTargetLength);
  CHECK(contains(conversion_error(target(kMaxTargetLength + 1)), "4096 bytes instead of"));
  CHECK(contains(conversion_error(Tar().symlink("s", "")), "0 bytes instead of"));
}

TEST_CASE("directory deeper than any path through symbolic links is refused") {
  std::string deep = "d";
  while (deep.size() + 2 < 4000) {
    deep += "/d";
  }
  Tar tar;
  tar.add({.name = "s", .type = '2'}, {}, {{"linkpath", deep}});
  tar.add({.name = "x"}, {}, {{"path", "s/" + deep}});
  CHECK(contains(conversion_error(tar), "too deep"));
}

TEST_CASE("device numbers and owners that Linux does not have are refused") {
  const auto device = [](unsigned major, unsigned minor) {
    return Tar().add({.name = "n", .type = '3', .major = major, .minor = minor});
  };
  CHECK(convert(device(4095, 0x1FFFFF >> 1)).at("n").device == makedev(4095, 0xFFFFF));
  CHECK(contains(conversion_error(device(4096, 0)), "device number"));
  CHECK(contains(conversion_error(device(0, 0x100000)), "device number"));

  const auto owned = [](const std::string& uid) {
    return Tar().add({.name = "f"}, {}, {{"uid", uid}});
  };
  CHECK(convert(owned("4294967294")).at("f").uid == 4294967294U);
  CHECK(contains(conversion_error(owned("4294967295")), "no user"));
  CHECK(contains(conversion_error(owned("-1")), "no user"));
}

TEST_CASE("times before 1970, beyond 2038 and with fractions are kept") {
  struct Case {
    std::string text;
    std::int64_t seconds;
    std::uint32_t nanoseconds;
  };
  for (const Case& time : {Case{"0", 0, 0}, Case{"-1", -1, 0}, Case{"-1.25", -2, 750'000'000},
                           Case{"-1230768000.5", -1230768001, 500'000'000},
                           Case{"4102444800.123456789", 4102444800, 123'456'789},
                           Case{"10413792000", 10413792000, 0}}) {
    CAPTURE(time.text);
    const ImageFile file = convert(Tar().add({.name = "f"}, {}, {{"mtime", time.text}})).at("f");
    CHECK(file.mtime == time.seconds);
    CHECK(file.mtime_nanoseconds == time.nanoseconds);
  }
}

TEST_CASE("tree refuses more names than it may hold") {
  const auto entry = [](std::string_view path, FileType type) {
    TreeEntry one;
    one.path = path;
    one.type = type;
    return one;
  };
  LayerTree tree(3);
  for (const std::string_view path : {"a", "b", "c"}) {
    CHECK(tree.add(entry(path, FileType::kDirectory)));
  }
  const auto fourth = tree.add(entry("d", FileType::kDirectory));
  REQUIRE_FALSE(fourth);
  CHECK(contains(fourth.error().message, "more than 3 entries"));

  LayerTree implied(3);
  CHECK_FALSE(implied.add(entry("a/b/c/d", FileType::kFifo)));

  LayerTree repeated(3);
  for (int i = 0; i < 3; ++i) {
    CHECK(repeated.add(entry("a", FileType::kFifo)));
  }
  CHECK_FALSE(repeated.add(entry("a", FileType::kFifo)));
}

}  // namespace
}  // namespace msb::oci
