// SPDX-License-Identifier: Apache-2.0
// DIFF, of writable layers as overlayfs leaves them: made by hand, since not every host lets a test
// mount one.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "initramfs/test_files.hpp"

extern "C" {
#include "initramfs/file_layers.h"
}

using namespace msb::test;

namespace {

constexpr char kAdded = 'A';
constexpr char kChanged = 'C';
constexpr char kDeleted = 'D';
using Changes = std::map<std::string, char>;

int open_directory(const std::string& path) {
  const int directory = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(directory >= 0);
  return directory;
}

int open_base(int base) {
  return openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

// An image, and a writable layer above it.
class Layers {
 public:
  Layers() {
    REQUIRE(mkdir((directory_ / "image").c_str(), 0755) == 0);
    REQUIRE(mkdir((directory_ / "upper").c_str(), 0755) == 0);
  }
  std::string image(const std::string& name) const { return directory_ / "image/" + name; }
  std::string upper(const std::string& name) const { return directory_ / "upper/" + name; }

  void make_directory(const std::string& path, mode_t mode = 0755) {
    REQUIRE(mkdir(path.c_str(), mode) == 0);
  }
  // In both.
  void make_directories(const std::string& name) {
    make_directory(image(name));
    make_directory(upper(name));
  }
  void whiteout(const std::string& name) {
    REQUIRE(mknod(upper(name).c_str(), S_IFCHR, makedev(0, 0)) == 0);
  }
  void make_opaque(const std::string& name) {
    REQUIRE(setxattr(upper(name).c_str(), "trusted.overlay.opaque", "y", 1, 0) == 0);
  }

  // What a service answers, in order.
  std::vector<Entry> entries() const {
    FileService service([this] {
      const file_layers layers = {.upper = open_directory(upper("")),
                                  .base = open_directory(image("")),
                                  .open_lower = open_base};
      file_layers_set(&layers);
      file_layers_made("/volume/below");
    });
    const Answer answer = service.call(request(MSB_FILE_DIFF, {"/"}));
    CHECK(answer.why == "");
    CHECK(answer.done == answer.entries.size());
    return answer.entries;
  }
  Changes changes() const {
    Changes found;
    for (const Entry& entry : entries()) {
      REQUIRE(entry.fixed.change >= MSB_FILE_ADDED);
      REQUIRE(entry.fixed.change <= MSB_FILE_DELETED);
      CHECK(found.emplace(entry.name, "ACD"[entry.fixed.change - 1]).second);
    }
    return found;
  }

 private:
  TemporaryDirectory directory_;
};

}  // namespace

TEST_CASE("diff_tells_what_was_added_changed_and_deleted_with_the_directories_that_lead_there") {
  if (!is_root()) return;
  Layers layers;
  layers.make_directories("etc");
  layers.make_directories("etc/deep");
  layers.make_directories("untouched");
  write_file(layers.image("etc/passwd"), "old");
  write_file(layers.upper("etc/passwd"), "new");
  write_file(layers.image("etc/motd"), "image");
  layers.whiteout("etc/motd");
  REQUIRE(symlink("target", layers.upper("etc/deep/link").c_str()) == 0);
  layers.make_directory(layers.upper("new"));
  write_file(layers.upper("new/file"), "12345");
  CHECK(layers.changes() == Changes{{"etc", kChanged},
                                    {"etc/passwd", kChanged},
                                    {"etc/motd", kDeleted},
                                    {"etc/deep", kChanged},
                                    {"etc/deep/link", kAdded},
                                    {"new", kAdded},
                                    {"new/file", kAdded}});
  std::map<std::string, Entry> told;
  for (const Entry& entry : layers.entries()) {
    const auto slash = entry.name.rfind('/');
    if (slash != std::string::npos) CHECK(told.contains(entry.name.substr(0, slash)));
    told.emplace(entry.name, entry);
  }
  CHECK(told["etc/deep/link"].target == "target");
  CHECK(told["etc/motd"].fixed.size == 5);  // the image's
  CHECK(told["new/file"].fixed.size == 5);
}

TEST_CASE("diff_tells_a_directory_by_itself_only_when_its_mode_or_owner_is_another") {
  if (!is_root()) return;
  Layers layers;
  for (const char* name : {"same", "mode", "owner"}) layers.make_directories(name);
  REQUIRE(chmod(layers.upper("mode").c_str(), 0700) == 0);
  REQUIRE(chown(layers.upper("owner").c_str(), 7, 8) == 0);
  CHECK(layers.changes() == Changes{{"mode", kChanged}, {"owner", kChanged}});
}

TEST_CASE("diff_of_a_directory_that_was_replaced_tells_what_of_the_image_is_not_in_it") {
  if (!is_root()) return;
  Layers layers;
  layers.make_directories("d");
  layers.make_opaque("d");
  for (const char* name : {"d/kept", "d/gone"}) write_file(layers.image(name), "image");
  write_file(layers.upper("d/kept"), "new");
  layers.make_directory(layers.image("d/directory"));
  write_file(layers.image("d/directory/inside"), "image");
  // Directories in it hide what is below theirs without an attribute of their own.
  layers.make_directories("d/again");
  write_file(layers.image("d/again/gone"), "image");
  layers.make_directories("after");
  write_file(layers.image("after/there"), "image");
  CHECK(layers.changes() == Changes{{"d", kChanged},
                                    {"d/kept", kChanged},
                                    {"d/gone", kDeleted},
                                    {"d/directory", kDeleted},
                                    {"d/again", kChanged},
                                    {"d/again/gone", kDeleted}});
}

TEST_CASE("diff_tells_what_became_something_else") {
  if (!is_root()) return;
  Layers layers;
  write_file(layers.image("file"), "");
  layers.make_directory(layers.upper("file"));
  write_file(layers.upper("file/inside"), "");
  layers.make_directory(layers.image("directory"));
  write_file(layers.image("directory/inside"), "");
  write_file(layers.upper("directory"), "x");
  // What a link of the image leads to is not what is below a directory of that name.
  layers.make_directory(layers.image("real"));
  write_file(layers.image("real/name"), "");
  REQUIRE(symlink("real", layers.image("link").c_str()) == 0);
  layers.make_directory(layers.upper("link"));
  write_file(layers.upper("link/name"), "");
  CHECK(layers.changes() == Changes{{"file", kChanged},
                                    {"file/inside", kAdded},
                                    {"directory", kChanged},
                                    {"link", kChanged},
                                    {"link/name", kAdded}});
}

TEST_CASE("diff_leaves_out_places_that_the_init_made_until_something_is_in_them") {
  if (!is_root()) return;
  Layers layers;
  layers.make_directory(layers.upper("volume"));
  layers.make_directory(layers.upper("volume/below"));
  layers.make_directory(layers.upper("proc"));  // something is mounted there, on this host as well
  layers.make_directory(layers.upper("empty"));
  CHECK(layers.changes() == Changes{{"empty", kAdded}});
  write_file(layers.upper("volume/below/file"), "x");
  CHECK(layers.changes() == Changes{{"empty", kAdded},
                                    {"volume", kAdded},
                                    {"volume/below", kAdded},
                                    {"volume/below/file", kAdded}});
}

TEST_CASE("diff_passes_over_whiteouts_of_nothing") {
  if (!is_root()) return;
  Layers layers;
  layers.whiteout("never");
  REQUIRE(mknod(layers.image("lowest").c_str(), S_IFCHR, makedev(0, 0)) == 0);
  layers.whiteout("lowest");
  CHECK(layers.changes().empty());
}

TEST_CASE("diff_goes_as_deep_as_paths_that_the_kernel_takes_only_in_pieces") {
  if (!is_root()) return;
  Layers layers;
  const std::string name(200, 'n');
  std::string path;
  for (const std::string& top : {layers.image(""), layers.upper("")}) {
    int directory = open_directory(top);
    path.clear();
    for (int i = 0; i < 30; i++) {
      REQUIRE(mkdirat(directory, name.c_str(), 0755) == 0);
      const int next = openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      REQUIRE(next >= 0);
      close(directory);
      directory = next;
      path += name + "/";
    }
    close(openat(directory, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    close(directory);
  }
  const Changes changes = layers.changes();
  CHECK(changes.size() == 31);
  CHECK(changes.at(path + "file") == kChanged);
}

TEST_CASE("diff_without_layers_or_of_another_path_is_refused") {
  FileService service;
  CHECK(is_refused(service.call(request(MSB_FILE_DIFF, {"/"})), ENOTSUP));
  CHECK(is_refused(service.call(request(MSB_FILE_DIFF, {"/etc"})), MSB_STAGE_REQUEST, EINVAL));
}
