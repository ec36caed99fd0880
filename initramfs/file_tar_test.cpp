// SPDX-License-Identifier: Apache-2.0
// PACK and UNPACK, against each other, against Python's tarfile and against tar.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "initramfs/test_files.hpp"

using namespace msb::test;

namespace {

/// A tree with everything that an archive can hold; what root alone may make where that runs it.
void make_tree(const std::string& top) {
  std::filesystem::create_directories(top + "/sub/empty");
  write_file(top + "/file", "hello", 0640);
  write_file(top + "/empty", "", 0444);
  write_file(top + "/block", std::string(512, 'b'));
  write_file(top + "/large", std::string(200'000, 'x') + "end");
  write_file(top + "/set-user-id", "#!", 06755);
  write_file(top + "/sub/" + std::string(120, 'n'), "long name");
  write_file(top + "/sub/\xff\xfe name\n", "bytes");
  REQUIRE(link((top + "/file").c_str(), (top + "/sub/again").c_str()) == 0);
  REQUIRE(link((top + "/file").c_str(), (top + "/zz").c_str()) == 0);
  REQUIRE(symlink("../file", (top + "/sub/link").c_str()) == 0);
  REQUIRE(symlink(std::string(300, 't').c_str(), (top + "/sub/long-link").c_str()) == 0);
  REQUIRE(mkfifo((top + "/fifo").c_str(), 0620) == 0);
  REQUIRE(chmod((top + "/fifo").c_str(), 0620) == 0);
  const int sparse = open((top + "/sparse").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  REQUIRE(ftruncate(sparse, 10'000'000) == 0);
  REQUIRE(pwrite(sparse, "middle", 6, 5'000'000) == 6);
  close(sparse);
  // tmpfs has them since Linux 6.6.
  const bool has_xattrs = setxattr((top + "/file").c_str(), "user.note", "a=b\n\0c", 6, 0) == 0;
  if (has_xattrs) {
    REQUIRE(setxattr((top + "/sub").c_str(), "user.empty", "", 0, 0) == 0);
    REQUIRE(setxattr((top + "/large").c_str(), "user.large", std::string(2000, 'v').c_str(), 2000,
                     0) == 0);
  }
  if (is_root()) {
    REQUIRE(mknod((top + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
    REQUIRE(mknod((top + "/disk").c_str(), S_IFBLK | 0600, makedev(4095, 1048575)) == 0);
    REQUIRE(lchown((top + "/null").c_str(), 3'000'000'000u, 2097152) == 0);
    REQUIRE(lchown((top + "/sub/link").c_str(), 77, 88) == 0);
    REQUIRE(lchown((top + "/empty").c_str(), 1000, 1000) == 0);
    REQUIRE(lsetxattr((top + "/sub/link").c_str(), "trusted.note", "x", 1, 0) == 0);
    REQUIRE(lsetxattr((top + "/null").c_str(), "trusted.note", "y", 1, 0) == 0);
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(top)) {
    set_time(entry.path().string(), 1'600'000'000, 0);
  }
  set_time(top + "/file", 1'700'000'000, 123'456'789);
  set_time(top + "/empty", -1, 250'000'000);
  set_time(top + "/sub/link", 1, 1);
  set_time(top + "/sub/empty", 12, 0);
  set_time(top + "/sub", 5'000'000'000, 999'999'999);
}

}  // namespace

TEST_CASE("unpack_brings_back_exactly_what_pack_took") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "from");
  std::filesystem::create_directories(directory / "to");
  make_tree(directory / "from");
  FileService service;
  const std::string packed = pack(service, directory / "from");
  const Tree expected = read_tree(directory / "from");
  const Answer answer = service.call(request(MSB_FILE_UNPACK, {directory / "to"}), packed);
  INFO(answer.why);
  CHECK(answer.done == expected.size());
  check_same(read_tree(directory / "to"), expected);
  // The holes are holes again.
  CHECK(status_of(directory / "to/sparse").st_blocks * 512 < 1'000'000);
  // And once more over what is there.
  CHECK(service.call(request(MSB_FILE_UNPACK, {directory / "to"}, MSB_FILE_SYNC), packed).done);
  check_same(read_tree(directory / "to"), expected);
}

TEST_CASE("pack_is_read_by_pythons_tarfile_and_by_tar") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "from");
  std::filesystem::create_directories(directory / "python");
  std::filesystem::create_directories(directory / "tar");
  make_tree(directory / "from");
  FileService service;
  write_file(directory / "a.tar", pack(service, directory / "from"));
  const std::string names = python(R"(
with tarfile.open(sys.argv[1]) as archive:
    archive.extractall(sys.argv[2], numeric_owner=True)
    assert all(name.startswith("./") for name in archive.getnames())
    print(len(archive.getnames()))
)",
                                   {directory / "a.tar", directory / "python"});
  Tree expected = read_tree(directory / "from");
  CHECK(std::stoul(names) == expected.size());
  Tree by_python = read_tree(directory / "python");
  // It keeps times as floating-point numbers, those of links not at all, and no attributes.
  for (Tree* tree : {&expected, &by_python}) {
    for (auto& [name, file] : *tree) {
      file.modified_ns = S_ISLNK(file.mode) ? 0 : (file.modified_ns + 5000) / 10'000;
      file.xattrs.clear();
    }
  }
  check_same(by_python, expected);
  const std::string listing = run({"tar", "-t", "-v", "-f", directory / "a.tar"});
  CHECK(listing.find("./sub/empty/") != std::string::npos);
  run({"tar", "-C", directory / "tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "-f",
       directory / "a.tar"});
  check_same(read_tree(directory / "tar"), read_tree(directory / "from"));
}

TEST_CASE("pack_of_anything_but_a_directory_is_one_entry_with_its_name") {
  TemporaryDirectory directory;
  write_file(directory / "file", "content");
  REQUIRE(symlink("file", (directory / "link").c_str()) == 0);
  FileService service;
  const std::string list = R"(
for member in tarfile.open(sys.argv[1]): print(member.name, member.type.decode(), member.linkname)
)";
  write_file(directory / "a.tar", pack(service, directory / "file"));
  CHECK(python(list, {directory / "a.tar"}) == "file 0 \n");
  write_file(directory / "a.tar", pack(service, directory / "link"));
  CHECK(python(list, {directory / "a.tar"}) == "link 2 file\n");
  CHECK(is_refused(service.call(request(MSB_FILE_PACK, {directory / "none"})), ENOENT));
}

TEST_CASE("pack_leaves_sockets_out") {
  TemporaryDirectory directory;
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  (directory / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  close(listener);
  FileService service;
  const Answer answer = service.call(request(MSB_FILE_PACK, {directory.path()}));
  CHECK(answer.done == 0u);
  CHECK(answer.data == std::string(1024, '\0'));
}

TEST_CASE("pack_of_a_file_that_changes_stays_a_tar_stream_and_is_refused_at_the_end") {
  for (const bool grows : {false, true}) {
    CAPTURE(grows);
    TemporaryDirectory directory;
    std::filesystem::create_directories(directory / "from");
    // More than the connection holds, so that the service waits in the middle of it.
    write_file(directory / "from/file", std::string(8'000'000, 'x'));
    set_time(directory / "from/file", 1, 0);
    FileService service;
    service.send(request(MSB_FILE_PACK, {directory / "from"}).frame());
    // Its first bytes show that the size in its header is decided.
    service.wait_for_bytes();
    REQUIRE(truncate((directory / "from/file").c_str(), grows ? 9'000'000 : 10) == 0);
    const Answer answer = service.receive_answer();
    CHECK(is_refused(answer, 0));
    CHECK(answer.why.find("./file") != std::string::npos);
    write_file(directory / "a.tar", answer.data);
    CHECK(python("for member in tarfile.open(sys.argv[1]): print(member.name, member.size)",
                 {directory / "a.tar"}) == "./file 8000000\n");
    CHECK(answer.data.size() == 512 + 8'000'000 + 1024);
  }
}

TEST_CASE("unpack_reads_what_pythons_tarfile_writes_in_all_formats") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "from/d");
  write_file(directory / "from/file", "content", 0640);
  write_file(directory / "from/d/empty", "");
  REQUIRE(link((directory / "from/file").c_str(), (directory / "from/d/hard").c_str()) == 0);
  REQUIRE(symlink("../file", (directory / "from/d/link").c_str()) == 0);
  set_time(directory / "from/file", 1'700'000'000, 0);
  for (const char* name : {"d/empty", "d/link", "d"}) {
    set_time(directory / (std::string("from/") + name), 1'600'000'000, 0);
  }
  for (const std::string format : {"USTAR", "GNU", "PAX"}) {
    CAPTURE(format);
    if (format != "USTAR") {
      // Names and targets that the first one cannot hold.
      std::filesystem::create_directories(directory / ("from/" + std::string(200, 'd')));
      const std::string name =
          directory / ("from/" + std::string(200, 'd') + "/" + std::string(200, 'f'));
      if (!exists(name)) {
        write_file(name, "long");
        REQUIRE(symlink(std::string(250, 't').c_str(), (name + "l").c_str()) == 0);
        REQUIRE(link(name.c_str(), (name + "h").c_str()) == 0);
      }
      for (const std::string& path :
           {name, name + "l", directory / ("from/" + std::string(200, 'd'))}) {
        set_time(path, -3, 0);
      }
    }
    python(R"(
with tarfile.open(sys.argv[1], "w", format=getattr(tarfile, sys.argv[3] + "_FORMAT")) as archive:
    archive.add(sys.argv[2], arcname=".")
)",
           {directory / "a.tar", directory / "from", format});
    std::filesystem::create_directories(directory / format);
    FileService service;
    const Answer answer = service.call(request(MSB_FILE_UNPACK, {directory / format}),
                                       read_file(directory / "a.tar"));
    INFO(answer.why);
    const Tree expected = read_tree(directory / "from");
    CHECK(answer.done == expected.size() + 1);
    check_same(read_tree(directory / format), expected);
  }
}

TEST_CASE("unpack_applies_the_entry_of_the_directory_itself") {
  TemporaryDirectory directory;
  FileService service;
  std::filesystem::create_directories(directory / "to");
  python(R"(
with tarfile.open(sys.argv[1], "w") as archive:
    info = tarfile.TarInfo("./")
    info.type, info.mode, info.mtime, info.uid, info.gid = tarfile.DIRTYPE, 0o711, 5, os.getuid(), os.getgid()
    archive.addfile(info)
    info = tarfile.TarInfo("./file")
    info.uid, info.gid = os.getuid(), os.getgid()
    archive.addfile(info)
)",
         {directory / "a.tar"});
  CHECK(service.call(request(MSB_FILE_UNPACK, {directory / "to"}), read_file(directory / "a.tar"))
            .done == 2u);
  CHECK(status_of(directory / "to").st_mode == (S_IFDIR | 0711u));
  CHECK(status_of(directory / "to").st_mtim.tv_sec == 5);
}

TEST_CASE("unpack_gives_all_to_one_owner_and_makes_the_directory") {
  if (!is_root()) return;
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "from/d");
  write_file(directory / "from/d/file", "x", 04755);
  REQUIRE(symlink("x", (directory / "from/link").c_str()) == 0);
  FileService service;
  Request unpack = request(MSB_FILE_UNPACK, {directory / "new/to"}, MSB_FILE_PARENTS);
  unpack.fields.user = 1000;
  unpack.fields.group = 100;
  const std::string packed = pack(service, directory / "from");
  CHECK(service.call(unpack, packed).done == 3u);
  for (const char* name : {"new", "new/to", "new/to/d", "new/to/d/file", "new/to/link"}) {
    CHECK(status_of(directory / name).st_uid == 1000);
    CHECK(status_of(directory / name).st_gid == 100);
  }
  CHECK(status_of(directory / "new/to/d/file").st_mode == (S_IFREG | 04755u));
  unpack.fields.flags = 0;
  unpack.paths = {directory / "none"};
  CHECK(is_refused(service.call(unpack, packed), ENOENT));
}

TEST_CASE("unpack_replaces_what_is_no_directory_and_merges_what_is") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "from/merged");
  std::filesystem::create_directories(directory / "from/was-link");
  write_file(directory / "from/merged/new", "new");
  write_file(directory / "from/file", "new");
  write_file(directory / "from/was-fifo", "new");
  write_file(directory / "from/was-link/inside", "new");
  std::filesystem::create_directories(directory / "to/merged");
  write_file(directory / "to/merged/old", "old");
  write_file(directory / "outside", "untouched", 0600);
  std::filesystem::create_directories(directory / "elsewhere");
  REQUIRE(symlink("../outside", (directory / "to/file").c_str()) == 0);
  REQUIRE(symlink("../elsewhere", (directory / "to/was-link").c_str()) == 0);
  REQUIRE(mkfifo((directory / "to/was-fifo").c_str(), 0600) == 0);
  FileService service;
  const Answer answer =
      service.call(request(MSB_FILE_UNPACK, {directory / "to"}), pack(service, directory / "from"));
  INFO(answer.why);
  CHECK(answer.done == 6u);
  CHECK(read_file(directory / "to/merged/old") == "old");
  CHECK(read_file(directory / "to/merged/new") == "new");
  CHECK(S_ISREG(status_of(directory / "to/file").st_mode));
  CHECK(S_ISREG(status_of(directory / "to/was-fifo").st_mode));
  CHECK(S_ISDIR(status_of(directory / "to/was-link").st_mode));
  CHECK(read_file(directory / "outside") == "untouched");
  CHECK(names_in(directory / "elsewhere").empty());
}

TEST_CASE("unpack_in_any_order_makes_missing_directories_and_ends_with_the_right_modes") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "to");
  python(R"(
with tarfile.open(sys.argv[1], "w") as archive:
    def add(name, type=tarfile.REGTYPE, mode=0o644):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime, info.uid, info.gid = type, mode, 9, os.getuid(), os.getgid()
        archive.addfile(info)
    add("a/b/one"); add("c/two"); add("a/three")
    add("a", tarfile.DIRTYPE, 0o700); add("a/b", tarfile.DIRTYPE, 0o750)
)",
         {directory / "a.tar"});
  FileService service;
  CHECK(service.call(request(MSB_FILE_UNPACK, {directory / "to"}), read_file(directory / "a.tar"))
            .done == 5u);
  CHECK(status_of(directory / "to/a").st_mode == (S_IFDIR | 0700u));
  CHECK(status_of(directory / "to/a").st_mtim.tv_sec == 9);
  CHECK(status_of(directory / "to/a/b").st_mode == (S_IFDIR | 0750u));
  CHECK(status_of(directory / "to/a/b").st_mtim.tv_sec == 9);
  CHECK(status_of(directory / "to/c").st_mode == (S_IFDIR | 0755u));
}

TEST_CASE("unpack_of_an_empty_stream_is_nothing") {
  TemporaryDirectory directory;
  FileService service;
  CHECK(service.call(request(MSB_FILE_UNPACK, {directory.path()}), "").done == 0u);
  CHECK(service.call(request(MSB_FILE_UNPACK, {directory.path()}), std::string(512, '\0')).done ==
        0u);
  CHECK(
      service.call(request(MSB_FILE_UNPACK, {directory.path()}), std::string(10'240, '\0')).done ==
      0u);
}

TEST_CASE("unpack_of_a_vanished_host_leaves_no_half_file") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "from");
  std::filesystem::create_directories(directory / "to");
  write_file(directory / "from/file", std::string(100'000, 'x'));
  std::string packed;
  {
    FileService service;
    packed = pack(service, directory / "from");
  }
  FileService service;
  service.send(request(MSB_FILE_UNPACK, {directory / "to"}).frame() +
               frame(MSB_FILE_DATA, packed.substr(0, 50'000)));
  CHECK(service.close() == 0);
  CHECK(names_in(directory / "to").empty());
}

TEST_CASE("unpack_without_room_is_refused_with_the_reason") {
  if (!is_root()) return;  // mounting needs it
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "from");
  std::filesystem::create_directories(directory / "small");
  write_file(directory / "from/file", std::string(1'000'000, 'x'));
  FileService service([&] {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("small", (directory / "small").c_str(), "tmpfs", 0, "size=256k") != 0) {
      _exit(97);
    }
  });
  const std::string packed = pack(service, directory / "from");
  CHECK(is_refused(service.call(request(MSB_FILE_UNPACK, {directory / "small"}), packed), ENOSPC));
  CHECK(service.call(request(MSB_FILE_LIST, {directory / "small"})).done == 0u);
  Request write = request(MSB_FILE_WRITE, {directory / "small/file"}, MSB_FILE_ATOMIC, 0644);
  CHECK(is_refused(service.call(write, packed), ENOSPC));
  CHECK(service.call(request(MSB_FILE_LIST, {directory / "small"})).done == 0u);
}
