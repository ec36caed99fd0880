// SPDX-License-Identifier: Apache-2.0
// The connection and the requests that look at files or change names and attributes.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include "initramfs/test_files.hpp"

using namespace msb::test;

namespace {

std::set<std::string> names_of(const Answer& answer) {
  std::set<std::string> names;
  for (const Entry& entry : answer.entries) names.insert(entry.name);
  CHECK(names.size() == answer.entries.size());
  return names;
}

/// A chain of directories `depth` deep with one-letter names, a file in the last one.
void make_deep(const std::string& top, int depth) {
  int directory = open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 0; i < depth; i++) {
    REQUIRE(mkdirat(directory, "d", 0755) == 0);
    const int next = openat(directory, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(next >= 0);
    close(directory);
    directory = next;
  }
  const int file = openat(directory, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  REQUIRE(file >= 0);
  close(file);
  close(directory);
}

}  // namespace

TEST_CASE("request_after_request_is_answered_in_order") {
  TemporaryDirectory directory;
  write_file(directory / "one", "1");
  write_file(directory / "two", "22");
  FileService service;
  service.send(request(MSB_FILE_READ, {directory / "one"}).frame() +
               request(MSB_FILE_READ, {directory / "none"}).frame() +
               request(MSB_FILE_READ, {directory / "two"}).frame());
  CHECK(service.receive_answer().data == "1");
  CHECK(is_refused(service.receive_answer(), ENOENT));
  CHECK(service.receive_answer().data == "22");
  CHECK(service.close() == 0);
}

TEST_CASE("protocol_error_closes_the_connection_without_an_answer") {
  TemporaryDirectory directory;
  const std::string whole = request(MSB_FILE_STAT, {directory.path()}).frame();
  const std::string write = request(MSB_FILE_WRITE, {directory / "file"}, 0, 0644).frame();
  const std::pair<std::string, std::string> cases[] = {
      {"unknown type", frame(127, whole.substr(8))},
      {"type behind the last request", frame(145, whole.substr(8))},
      {"frame of another connection", frame(MSB_START, std::string(64, '\0'))},
      {"DATA without a request", frame(MSB_FILE_DATA, "abc")},
      {"FILES again", frame(MSB_FILES)},
      {"shorter than the fixed part", frame(MSB_FILE_STAT, std::string(31, '\0'))},
      {"no payload", frame(MSB_FILE_STAT)},
      {"too long", frame(MSB_FILE_STAT, std::string(MSB_MAX_REQUEST + 1, 'a'))},
      {"far too long", std::string("\x80\0\0\0\xff\xff\xff\xff", 8)},
      {"request instead of DATA", write + whole},
      {"DATA too long", write + frame(MSB_FILE_DATA, std::string(MSB_MAX_DATA + 1, 'a'))},
      {"answer instead of DATA", write + frame(MSB_DONE, std::string(8, '\0'))}};
  for (const auto& [name, bytes] : cases) {
    CAPTURE(name);
    FileService service;
    const Answer answer = service.exchange(bytes);
    CHECK(answer.closed);
    CHECK_FALSE(answer.refused);
    CHECK_FALSE(answer.done);
    CHECK(service.wait() == 0);
  }
}

TEST_CASE("request_is_taken_wherever_the_stream_is_cut") {
  TemporaryDirectory directory;
  FileService service;
  const std::string bytes = request(MSB_FILE_STAT, {directory.path()}).frame();
  for (const char byte : bytes) service.send(std::string(1, byte));
  CHECK(service.receive_answer().entries.size() == 1);
}

TEST_CASE("malformed_request_is_refused_and_the_next_one_answered") {
  TemporaryDirectory directory;
  FileService service;
  const std::string fixed(sizeof(msb_file_request), '\0');
  const auto with = [&](uint32_t type, auto change) {
    Request changed = request(type, {directory / "x"});
    change(changed.fields);
    return changed.frame();
  };
  const std::pair<std::string, std::string> cases[] = {
      {"no path", frame(MSB_FILE_STAT, fixed)},
      {"path without its end", frame(MSB_FILE_STAT, fixed + "/tmp")},
      {"relative path", request(MSB_FILE_STAT, {"tmp"}).frame()},
      {"empty path", request(MSB_FILE_STAT, {""}).frame()},
      {"too many paths", request(MSB_FILE_STAT, {"/", "/"}).frame()},
      {"bytes behind the path", request(MSB_FILE_STAT, {"/"}).frame().replace(4, 1, "\x23") + "x"},
      {"too few paths", request(MSB_FILE_RENAME, {directory / "x"}).frame()},
      {"relative new path", request(MSB_FILE_RENAME, {"/x", "y"}).frame()},
      {"unknown flag", request(MSB_FILE_STAT, {"/"}, MSB_FILE_SYNC).frame()},
      {"undefined flag", request(MSB_FILE_MKDIR, {"/"}, 1u << 31).frame()},
      {"mode too large", with(MSB_FILE_MKDIR, [](auto& fields) { fields.mode = 010000; })},
      {"mode of what has none", with(MSB_FILE_STAT, [](auto& fields) { fields.mode = 1; })},
      {"user of what has none", with(MSB_FILE_STAT, [](auto& fields) { fields.user = 1; })},
      {"group of what has none", with(MSB_FILE_CHMOD, [](auto& fields) { fields.group = 7; })},
      {"offset of what has none", with(MSB_FILE_STAT, [](auto& fields) { fields.offset = 1; })},
      {"length of what has none", with(MSB_FILE_LIST, [](auto& fields) { fields.length = 1; })},
      {"negative offset", with(MSB_FILE_READ, [](auto& fields) { fields.offset = 1ull << 63; })},
      {"FOLLOW of PACK", request(MSB_FILE_PACK, {"/"}, MSB_FILE_FOLLOW).frame()}};
  for (const auto& [name, bytes] : cases) {
    CAPTURE(name);
    service.send(bytes);
    CHECK(is_refused(service.receive_answer(), MSB_STAGE_REQUEST, EINVAL));
  }
  CHECK(service.call(request(MSB_FILE_STAT, {directory.path()})).done == 0u);
}

TEST_CASE("half_close_ends_the_service") {
  FileService service;
  service.half_close();
  CHECK(service.wait() == 0);
}

TEST_CASE("stat_tells_what_the_kernel_says") {
  TemporaryDirectory directory;
  write_file(directory / "file", "hello", 0640);
  REQUIRE(link((directory / "file").c_str(), (directory / "again").c_str()) == 0);
  REQUIRE(symlink("file", (directory / "link").c_str()) == 0);
  const timespec times[2] = {{0, UTIME_OMIT}, {-2, 250'000'000}};
  REQUIRE(utimensat(AT_FDCWD, (directory / "file").c_str(), times, 0) == 0);
  FileService service;

  Answer answer = service.call(request(MSB_FILE_STAT, {directory / "file"}));
  REQUIRE(answer.entries.size() == 1);
  const struct stat status = status_of(directory / "file");
  const msb_file_entry file = answer.entries[0].fixed;
  CHECK(answer.done == 0u);
  CHECK(answer.entries[0].name == directory / "file");
  CHECK(answer.entries[0].target.empty());
  CHECK(file.mode == (S_IFREG | 0640u));
  CHECK(file.user == status.st_uid);
  CHECK(file.group == status.st_gid);
  CHECK(file.links == 2);
  CHECK(file.size == 5);
  CHECK(file.inode == status.st_ino);
  CHECK(file.device == 0);
  CHECK(file.modified_ns == -1'750'000'000);
  CHECK(file.changed_ns == status.st_ctim.tv_sec * 1'000'000'000 + status.st_ctim.tv_nsec);
  CHECK(file.reserved == 0);

  answer = service.call(request(MSB_FILE_STAT, {directory / "link"}));
  REQUIRE(answer.entries.size() == 1);
  CHECK(S_ISLNK(answer.entries[0].fixed.mode));
  CHECK(answer.entries[0].target == "file");

  answer = service.call(request(MSB_FILE_STAT, {directory / "link"}, MSB_FILE_FOLLOW));
  REQUIRE(answer.entries.size() == 1);
  CHECK(answer.entries[0].fixed.inode == status.st_ino);
  CHECK(answer.entries[0].name == directory / "link");

  answer = service.call(request(MSB_FILE_STAT, {"/dev/null"}));
  REQUIRE(answer.entries.size() == 1);
  CHECK(answer.entries[0].fixed.device == makedev(1, 3));

  CHECK(is_refused(service.call(request(MSB_FILE_STAT, {directory / "none"})), ENOENT));
  CHECK(is_refused(service.call(request(MSB_FILE_STAT, {directory / "file/x"})), ENOTDIR));
  CHECK(is_refused(service.call(request(MSB_FILE_STAT, {"/" + std::string(5000, 'x')})),
                   ENAMETOOLONG));
}

TEST_CASE("list_gives_each_name_once_also_in_a_large_directory") {
  TemporaryDirectory directory;
  std::set<std::string> expected;
  for (int i = 0; i < 3000; i++) {
    const std::string name = "a-name-of-some-length-" + std::to_string(i);
    expected.insert(name);
    write_file(directory / name, "");
  }
  REQUIRE(mkdir((directory / "sub").c_str(), 0755) == 0);
  write_file(directory / "sub/below", "");
  REQUIRE(symlink("nowhere", (directory / "link").c_str()) == 0);
  expected.insert({"sub", "link"});
  FileService service;
  const Answer answer = service.call(request(MSB_FILE_LIST, {directory.path()}));
  CHECK(answer.done == expected.size());
  CHECK(names_of(answer) == expected);
  const auto link = std::ranges::find(answer.entries, "link", &Entry::name);
  REQUIRE(link != answer.entries.end());
  CHECK(link->target == "nowhere");

  CHECK(is_refused(service.call(request(MSB_FILE_LIST, {directory / "link"})), ENOENT));
  CHECK(is_refused(service.call(request(MSB_FILE_LIST, {directory / "sub/below"})), ENOTDIR));
}

TEST_CASE("walk_gives_parents_first_and_follows_no_link") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "a/b/c");
  write_file(directory / "a/b/c/file", "x");
  write_file(directory / "a/other", "x");
  REQUIRE(symlink("a", (directory / "link").c_str()) == 0);
  FileService service;
  Request walk = request(MSB_FILE_WALK, {directory.path()});

  Answer answer = service.call(walk);
  CHECK(answer.done == 6u);
  CHECK(names_of(answer) ==
        std::set<std::string>{"a", "a/b", "a/b/c", "a/b/c/file", "a/other", "link"});
  std::set<std::string> seen = {""};
  for (const Entry& entry : answer.entries) {
    const auto slash = entry.name.rfind('/');
    CHECK(seen.contains(slash == std::string::npos ? "" : entry.name.substr(0, slash)));
    seen.insert(entry.name);
  }

  walk.fields.length = 1;
  CHECK(names_of(service.call(walk)) == std::set<std::string>{"a", "link"});
  walk.fields.length = 2;
  CHECK(names_of(service.call(walk)) == std::set<std::string>{"a", "a/b", "a/other", "link"});
}

TEST_CASE("walk_comes_back_to_where_it_was_in_every_directory") {
  // Deeper than there are buffers, with names in front of and behind each subdirectory.
  TemporaryDirectory directory;
  std::set<std::string> expected;
  std::string path;
  for (int depth = 0; depth < 40; depth++) {
    // Of another length in each, or a buffer of another directory would do as well.
    for (const char first : {'a', 'b', 'y', 'z'}) {
      const std::string name = path + std::string(static_cast<size_t>(1 + depth), first);
      write_file(directory / name, "");
      expected.insert(name);
    }
    expected.insert(path + "m");
    path += "m/";
    REQUIRE(mkdir((directory / path).c_str(), 0755) == 0);
  }
  FileService service;
  CHECK(names_of(service.call(request(MSB_FILE_WALK, {directory.path()}))) == expected);
}

TEST_CASE("walk_does_not_enter_the_kernels_file_systems") {
  if (!is_root()) return;  // mounting needs it
  TemporaryDirectory directory;
  const std::string mount_point = directory / "proc";
  REQUIRE(mkdir(mount_point.c_str(), 0755) == 0);
  FileService service([&] {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("proc", mount_point.c_str(), "proc", 0, nullptr) != 0) {
      _exit(97);
    }
  });
  CHECK(names_of(service.call(request(MSB_FILE_WALK, {directory.path()}))) ==
        std::set<std::string>{"proc"});
  CHECK(names_of(service.call(request(MSB_FILE_LIST, {mount_point}))).contains("self"));
}

TEST_CASE("tree_of_depth_3000_is_walked_changed_packed_unpacked_and_removed") {
  TemporaryDirectory directory;
  REQUIRE(mkdir((directory / "deep").c_str(), 0755) == 0);
  REQUIRE(mkdir((directory / "copy").c_str(), 0755) == 0);
  make_deep(directory / "deep", 3000);
  FileService service;
  const Answer walked = service.call(request(MSB_FILE_WALK, {directory / "deep"}));
  CHECK(walked.done == 3001u);
  REQUIRE(walked.entries.size() == 3001);
  CHECK(walked.entries.back().name.size() == 6001);
  CHECK(service.call(request(MSB_FILE_CHMOD, {directory / "deep"}, MSB_FILE_RECURSIVE, 0700)).done);
  const Answer packed = service.call(request(MSB_FILE_PACK, {directory / "deep"}));
  CHECK(packed.done == 3001u);
  CHECK(service.call(request(MSB_FILE_UNPACK, {directory / "copy"}), packed.data).done == 3001u);
  CHECK(service.call(request(MSB_FILE_WALK, {directory / "copy"})).done == 3001u);
  for (const char* name : {"deep", "copy"}) {
    const Answer removed = service.call(request(MSB_FILE_REMOVE, {directory / name}, 4));
    INFO(removed.why);
    CHECK(removed.done == 0u);
    CHECK_FALSE(exists(directory / name));
  }
}

TEST_CASE("tree_that_is_too_deep_is_refused") {
  TemporaryDirectory directory;
  REQUIRE(mkdir((directory / "deep").c_str(), 0755) == 0);
  make_deep(directory / "deep", 4200);
  FileService service;
  CHECK(is_refused(service.call(request(MSB_FILE_WALK, {directory / "deep"})), ELOOP));
  CHECK(is_refused(service.call(request(MSB_FILE_REMOVE, {directory / "deep"}, 4)), ELOOP));
  // Its lower half first.
  std::string half = directory / "deep";
  for (int i = 0; i < 1900; i++) half += "/d";
  CHECK(service.call(request(MSB_FILE_REMOVE, {half}, MSB_FILE_RECURSIVE)).done);
  CHECK(service.call(request(MSB_FILE_REMOVE, {directory / "deep"}, MSB_FILE_RECURSIVE)).done);
}

TEST_CASE("mkdir_gives_exactly_the_mode_whatever_the_umask") {
  TemporaryDirectory directory;
  FileService service([] { umask(077); });
  CHECK(service.call(request(MSB_FILE_MKDIR, {directory / "a"}, 0, 03775)).done == 0u);
  CHECK(status_of(directory / "a").st_mode == (S_IFDIR | 03775u));
  CHECK(is_refused(service.call(request(MSB_FILE_MKDIR, {directory / "a"}, 0, 0755)), EEXIST));
  CHECK(is_refused(service.call(request(MSB_FILE_MKDIR, {directory / "x/y"}, 0, 0755)), ENOENT));

  CHECK(service.call(request(MSB_FILE_MKDIR, {directory / "b/c/d"}, MSB_FILE_PARENTS, 0700)).done);
  CHECK(status_of(directory / "b").st_mode == (S_IFDIR | 0755u));
  CHECK(status_of(directory / "b/c").st_mode == (S_IFDIR | 0755u));
  CHECK(status_of(directory / "b/c/d").st_mode == (S_IFDIR | 0700u));
  // What is there already stays as it is.
  CHECK(service.call(request(MSB_FILE_MKDIR, {directory / "b/c/d"}, MSB_FILE_PARENTS, 0755)).done);
  CHECK(status_of(directory / "b/c/d").st_mode == (S_IFDIR | 0700u));
  write_file(directory / "file", "");
  CHECK(is_refused(service.call(request(MSB_FILE_MKDIR, {directory / "file"}, 2, 0755)), EEXIST));
  CHECK(
      is_refused(service.call(request(MSB_FILE_MKDIR, {directory / "file/x"}, 2, 0755)), ENOTDIR));
  if (is_root()) {
    Request owned = request(MSB_FILE_MKDIR, {directory / "o/p"}, MSB_FILE_PARENTS, 06755);
    owned.fields.user = 12;
    owned.fields.group = 34;
    CHECK(service.call(owned).done);
    CHECK(status_of(directory / "o").st_uid == 12);
    CHECK(status_of(directory / "o/p").st_gid == 34);
    CHECK(status_of(directory / "o/p").st_mode == (S_IFDIR | 06755u));
  }
}

TEST_CASE("remove_takes_files_and_empty_directories_and_with_recursive_all") {
  TemporaryDirectory directory;
  write_file(directory / "file", "");
  std::filesystem::create_directories(directory / "tree/a/b");
  std::filesystem::create_directories(directory / "outside");
  write_file(directory / "outside/kept", "");
  REQUIRE(symlink("../../outside", (directory / "tree/a/link").c_str()) == 0);
  for (int i = 0; i < 2000; i++) write_file(directory / ("tree/a/b/" + std::to_string(i)), "");
  FileService service;
  CHECK(service.call(request(MSB_FILE_REMOVE, {directory / "file"})).done == 0u);
  CHECK_FALSE(exists(directory / "file"));
  CHECK(is_refused(service.call(request(MSB_FILE_REMOVE, {directory / "file"})), ENOENT));
  CHECK(service.call(request(MSB_FILE_REMOVE, {directory / "file"}, MSB_FILE_MISSING_OK)).done);
  CHECK(is_refused(service.call(request(MSB_FILE_REMOVE, {directory / "tree"})), ENOTEMPTY));
  CHECK(service.call(request(MSB_FILE_REMOVE, {directory / "tree"}, MSB_FILE_RECURSIVE)).done);
  CHECK_FALSE(exists(directory / "tree"));
  CHECK(exists(directory / "outside/kept"));
  // A symbolic link goes, not what it leads to.
  REQUIRE(symlink("outside", (directory / "link").c_str()) == 0);
  CHECK(service.call(request(MSB_FILE_REMOVE, {directory / "link"}, MSB_FILE_RECURSIVE)).done);
  CHECK_FALSE(exists(directory / "link"));
  CHECK(exists(directory / "outside/kept"));
}

TEST_CASE("remove_of_the_root_removes_nothing") {
  if (!is_root()) return;  // chroot(2) needs it
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "a/b");
  FileService service([&] {
    if (chroot(directory.path().c_str()) != 0) _exit(97);
  });
  for (const char* path : {"/", "//", "/a/..", "/."}) {
    CHECK(is_refused(service.call(request(MSB_FILE_REMOVE, {path}, MSB_FILE_RECURSIVE)), EBUSY));
  }
  CHECK(exists(directory / "a/b"));
}

TEST_CASE("rename_replaces_unless_it_is_exclusive") {
  TemporaryDirectory directory;
  write_file(directory / "a", "a");
  write_file(directory / "b", "b");
  FileService service;
  CHECK(is_refused(service.call(request(MSB_FILE_RENAME, {directory / "a", directory / "b"},
                                        MSB_FILE_EXCLUSIVE)),
                   EEXIST));
  CHECK(read_file(directory / "b") == "b");
  CHECK(service.call(request(MSB_FILE_RENAME, {directory / "a", directory / "b"})).done == 0u);
  CHECK(read_file(directory / "b") == "a");
  CHECK(
      service.call(request(MSB_FILE_RENAME, {directory / "b", directory / "c"}, MSB_FILE_EXCLUSIVE))
          .done);
  CHECK(names_in(directory.path()) == std::vector<std::string>{"c"});
  CHECK(is_refused(service.call(request(MSB_FILE_RENAME, {directory / "b", directory / "d"})),
                   ENOENT));
}

TEST_CASE("chmod_changes_one_or_all_and_no_target_of_a_link_below") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "tree/a/b");
  write_file(directory / "tree/a/file", "", 0644);
  write_file(directory / "outside", "", 0644);
  REQUIRE(symlink("../outside", (directory / "tree/link").c_str()) == 0);
  FileService service;
  CHECK(service.call(request(MSB_FILE_CHMOD, {directory / "tree/a/file"}, 0, 04711)).done == 0u);
  CHECK(status_of(directory / "tree/a/file").st_mode == (S_IFREG | 04711u));
  CHECK(service.call(request(MSB_FILE_CHMOD, {directory / "tree"}, MSB_FILE_RECURSIVE, 0750)).done);
  for (const char* name : {"tree", "tree/a", "tree/a/b", "tree/a/file"}) {
    CHECK((status_of(directory / name).st_mode & 07777u) == 0750u);
  }
  CHECK((status_of(directory / "outside").st_mode & 07777u) == 0644u);
  CHECK(service.call(request(MSB_FILE_CHMOD, {directory / "tree/link"}, 0, 0600)).done);
  CHECK((status_of(directory / "outside").st_mode & 07777u) == 0600u);
  // Also on a plain file.
  CHECK(service.call(request(MSB_FILE_CHMOD, {directory / "outside"}, 4, 0640)).done);
  CHECK((status_of(directory / "outside").st_mode & 07777u) == 0640u);
  CHECK(is_refused(service.call(request(MSB_FILE_CHMOD, {directory / "none"}, 0, 0644)), ENOENT));
}

TEST_CASE("chown_changes_links_themselves_unless_it_follows") {
  if (!is_root()) return;
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "tree/a");
  write_file(directory / "tree/a/file", "");
  write_file(directory / "outside", "");
  REQUIRE(symlink("../outside", (directory / "tree/link").c_str()) == 0);
  FileService service;
  Request chown = request(MSB_FILE_CHOWN, {directory / "tree"}, MSB_FILE_RECURSIVE);
  chown.fields.user = 1234;
  CHECK(service.call(chown).done == 0u);
  for (const char* name : {"tree", "tree/a", "tree/a/file", "tree/link"}) {
    CHECK(status_of(directory / name).st_uid == 1234);
    CHECK(status_of(directory / name).st_gid == getegid());
  }
  CHECK(status_of(directory / "outside").st_uid == 0);
  chown = request(MSB_FILE_CHOWN, {directory / "tree/link"}, MSB_FILE_FOLLOW);
  chown.fields.group = 99;
  CHECK(service.call(chown).done);
  CHECK(status_of(directory / "outside").st_gid == 99);
  CHECK(status_of(directory / "outside").st_uid == 0);
  CHECK(status_of(directory / "tree/link").st_gid != 99);
}

TEST_CASE("symlink_holds_any_text_and_readlink_gives_it_back") {
  TemporaryDirectory directory;
  FileService service;
  const std::string target = "../any where/\xff\xfe";
  CHECK(service.call(request(MSB_FILE_SYMLINK, {target, directory / "link"})).done == 0u);
  const Answer answer = service.call(request(MSB_FILE_READLINK, {directory / "link"}));
  CHECK(answer.data == target);
  CHECK(answer.done == 0u);
  CHECK(is_refused(service.call(request(MSB_FILE_SYMLINK, {"x", directory / "link"})), EEXIST));
  CHECK(is_refused(service.call(request(MSB_FILE_SYMLINK, {"", directory / "empty"})), ENOENT));
  CHECK(is_refused(service.call(request(MSB_FILE_READLINK, {directory.path()})), EINVAL));
  if (is_root()) {
    Request owned = request(MSB_FILE_SYMLINK, {"x", directory / "owned"});
    owned.fields.user = 5;
    CHECK(service.call(owned).done);
    CHECK(status_of(directory / "owned").st_uid == 5);
  }
}
