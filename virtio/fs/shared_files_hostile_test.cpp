// SPDX-License-Identifier: Apache-2.0
// Shared directories and a guest, or a host, that wants out of them or more than it may have
// (hostile-input.md 30, 38).
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <linux/posix_acl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "virtio/fs/fuse_server.hpp"
#include "virtio/fs/posix_acl.hpp"
#include "virtio/fs/xattr_names.hpp"
#include "virtio/testing/acl_bytes.hpp"
#include "virtio/testing/fuse_client.hpp"
#include "virtio/testing/share_fixture.hpp"

namespace msb::virtio {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::FuseClient;
using testing::kUnknown;
using testing::mode_of;
using testing::put;
using testing::xattr_of;
using Fixture = testing::ShareFixture;

struct ReadOnly : Fixture {
  ReadOnly() : Fixture(true) {}
};

TEST_CASE_FIXTURE(Fixture, "no name leads out of a directory") {
  REQUIRE(guest.mkdir(work, "folder", 0755).error == 0);
  const std::uint64_t folder = guest.walk(work, "folder");
  put(host() / "file", "x");
  const std::uint64_t file = guest.walk(work, "file");
  for (const std::string_view name :
       {"..", ".", "", "/", "../outside", "../outside/canary", "folder/..", "a/b", "/etc/passwd"}) {
    CAPTURE(name);
    CHECK(guest.lookup(work, name).error == -EINVAL);
    CHECK(guest.lookup(folder, name).error == -EINVAL);
    CHECK(guest.create(work, name, 0644).error == -EINVAL);
    CHECK(guest.mkdir(work, name, 0755).error == -EINVAL);
    CHECK(guest.mknod(work, name, S_IFREG | 0644).error == -EINVAL);
    CHECK(guest.symlink(work, name, "x").error == -EINVAL);
    CHECK(guest.link(file, work, name).error == -EINVAL);
    CHECK(guest.unlink(work, name).error == -EINVAL);
    CHECK(guest.rmdir(work, name).error == -EINVAL);
    CHECK(guest.rename(work, name, work, "y").error == -EINVAL);
    CHECK(guest.rename(work, "file", work, name).error == -EINVAL);
  }
  CHECK(guest.lookup(work, std::string(256, 'n')).error == -ENAMETOOLONG);
}

TEST_CASE_FIXTURE(Fixture, "links that lead out are links, whatever is done to them") {
  fs::create_symlink(outside() / "canary", host() / "file");
  fs::create_symlink("../outside", host() / "folder");
  fs::create_symlink("/proc/self/root", host() / "magic");
  for (const char* name : {"file", "folder", "magic"}) {
    CAPTURE(name);
    const auto entry = guest.lookup(work, name).as<fuse_entry_out>();
    REQUIRE(S_ISLNK(entry.attr.mode));
    const std::uint64_t link = entry.nodeid;
    CHECK(guest.ask_with(FUSE_READLINK, link).text() == fs::read_symlink(host() / name));
    CHECK(guest.open(link, O_RDONLY).error < 0);
    CHECK(guest.open(link, O_RDWR | O_TRUNC).error < 0);
    CHECK(guest.create(work, name, 0644, O_RDWR | O_CREAT | O_TRUNC).error < 0);
    CHECK(guest.ask_with(FUSE_OPENDIR, link, fuse_open_in{}).error == -ENOTDIR);
    CHECK(guest.lookup(link, "canary").error == -ENOTDIR);
    CHECK(guest.create(link, "new", 0644).error == -ENOTDIR);
    CHECK(guest.mkdir(link, "new", 0755).error == -ENOTDIR);
    CHECK(guest.rename(link, "canary", work, "stolen").error == -ENOTDIR);
    CHECK(guest.rename(work, name, link, "stolen").error == -ENOTDIR);
    CHECK(guest.truncate(link, 0).error < 0);
    CHECK(guest.set_xattr(link, "user.x", "y").error == -EPERM);
    CHECK(guest.get_xattr(link, "user.x").error == -ENODATA);
    guest.chmod(link, 0777);
    guest.chown(link, 1234, 1234);
    fuse_setattr_in times{};
    times.valid = FATTR_ATIME | FATTR_MTIME;
    times.mtime = 7;
    CHECK(guest.ask_with(FUSE_SETATTR, link, times).error == 0);
    CHECK(guest.attr(link).mtime == 7);
    struct stat canary{};
    REQUIRE(::stat((outside() / "canary").c_str(), &canary) == 0);
    CHECK(canary.st_mtime != 7);
    CHECK(canary.st_uid == ::geteuid());
    CHECK(guest.link(link, work, std::string(name) + "-hard").error == 0);
    CHECK(fs::is_symlink(host() / (std::string(name) + "-hard")));
  }
  CHECK(fs::is_symlink(host() / "file"));
}

TEST_CASE_FIXTURE(Fixture, "a directory that becomes a link under the guest's feet leads nowhere") {
  REQUIRE(guest.mkdir(work, "folder", 0755).error == 0);
  put(host() / "folder/canary", "inner");
  const std::uint64_t folder = guest.walk(work, "folder");
  // Not opened before: the guest knows it by its name alone.
  fs::rename(host() / "folder", host() / "moved");
  fs::create_symlink("../outside", host() / "folder");
  CHECK(guest.lookup(folder, "canary").error == -ESTALE);
  CHECK(guest.create(folder, "new", 0644).error == -ESTALE);
  CHECK(guest.unlink(folder, "canary").error == -ESTALE);
  CHECK(guest.getattr(folder).error == -ESTALE);
  CHECK(content_of(host() / "moved/canary") == "inner");
}

TEST_CASE_FIXTURE(Fixture,
                  "a directory that the guest has open and that becomes a link stays what it was") {
  REQUIRE(guest.mkdir(work, "folder", 0755).error == 0);
  put(host() / "folder/file", "inner");
  const std::uint64_t folder = guest.walk(work, "folder");
  CHECK(guest.walk(folder, "file") != 0);  // opens it
  fs::rename(host() / "folder", host() / "moved");
  fs::create_symlink("../outside", host() / "folder");
  CHECK(guest.create(folder, "new", 0644).error == 0);
  CHECK(fs::exists(host() / "moved/new"));
}

TEST_CASE_FIXTURE(Fixture, "pipes, sockets and devices are shown, and never opened") {
  REQUIRE(::mkfifo((host() / "pipe").c_str(), 0666) == 0);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (host() / "socket").string().copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  ::close(socket);
  std::vector<std::string> names{"pipe", "socket"};
  if (::mknod((host() / "device").c_str(), S_IFCHR | 0666, 0x103) == 0) {
    names.emplace_back("device");
  }
  for (const std::string& name : names) {
    CAPTURE(name);
    const std::uint64_t node = guest.walk(work, name);
    REQUIRE(node != 0);
    CHECK(guest.open(node, O_RDONLY).error == -ENXIO);
    CHECK(guest.open(node, O_RDWR | O_NONBLOCK).error == -ENXIO);
    CHECK(guest.create(work, name, 0644, O_RDWR | O_CREAT).error == -ENXIO);
    CHECK(guest.create(work, name, 0644, O_RDWR | O_CREAT | O_EXCL).error == -EEXIST);
    CHECK(guest.truncate(node, 0).error == -EINVAL);
    CHECK(guest.ask_with(FUSE_OPENDIR, node, fuse_open_in{}).error == -ENOTDIR);
    CHECK(guest.set_xattr(node, "user.x", "y").error == -EPERM);
  }
  // A file that becomes a pipe before it is opened.
  put(host() / "file", "x");
  const std::uint64_t file = guest.walk(work, "file");
  fs::remove(host() / "file");
  REQUIRE(::mkfifo((host() / "file").c_str(), 0666) == 0);
  CHECK(guest.open(file, O_RDONLY).error == -ESTALE);
}

TEST_CASE("the kernel's own file systems are not among what is shared, wherever they are mounted") {
  FuseServer server(SharedTree(), OwnerRule(::geteuid(), ::getegid()), {});
  FuseClient guest(server);
  CHECK_FALSE(
      server.add_share("proc", Fd(::open("/proc", O_PATH | O_CLOEXEC)), true, ShareCache::kAuto));
  REQUIRE(server.add_share("host", Fd(::open("/", O_PATH | O_CLOEXEC)), true, ShareCache::kAuto));
  const std::uint64_t host = guest.walk(1, "host");
  // By which the guest would read and write the memory of this process.
  CHECK(guest.lookup(host, "proc").error == -EACCES);
  CHECK(guest.lookup(host, "sys").error == -EACCES);
  CHECK(guest.lookup(host, "tmp").error == 0);
  for (const auto& entry : guest.list(host, true)) {
    CHECK((entry.name != "proc" || entry.node == 0));
  }
}

TEST_CASE(
    "a file that is open is reached also when its name is gone and its descriptor was let go") {
  Fixture fixture(false, {.nodes = 100, .node_descriptors = 2, .handles = 10});
  FuseClient& guest = fixture.guest;
  const auto let_go = [&] {
    for (int i = 0; i < 5; ++i) {
      const auto made = guest.mkdir(fixture.work, "other-" + std::to_string(i), 0755);
      const std::uint64_t node = made.error == 0
                                     ? made.as<fuse_entry_out>().nodeid
                                     : guest.walk(fixture.work, "other-" + std::to_string(i));
      guest.lookup(node, "x");
    }
  };
  const auto created = guest.create(fixture.work, "file", 0644);
  const std::uint64_t node = FuseClient::entry(created).nodeid;
  const std::uint64_t file = FuseClient::handle(created);
  CHECK(guest.unlink(fixture.work, "file").error == 0);
  let_go();
  CHECK(guest.attr(node).nlink == 0);
  guest.uid = 1000;
  CHECK(guest.write(node, file, 0, "content", FUSE_WRITE_KILL_SUIDGID).error == 0);
  guest.uid = 0;
  CHECK(guest.chmod(node, 0600).error == 0);
  CHECK(guest.truncate(node, 3).error == 0);
  CHECK(guest.open(node, O_RDONLY).error == 0);
  // One without a name gets one.
  const auto unnamed =
      guest.ask_with(FUSE_TMPFILE, fixture.work, fuse_create_in{O_RDWR, 0644, 0, 0}, "");
  let_go();
  CHECK(guest.link(FuseClient::entry(unnamed).nodeid, fixture.work, "named").error == 0);
  // One that the host replaced.
  const std::uint64_t old = guest.walk(fixture.work, "named");
  fs::remove(fixture.host() / "named");
  put(fixture.host() / "named", "new");
  let_go();
  CHECK(guest.attr(old).size == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "filling a file by a copy, or giving it room, takes privileges away too") {
  put(host() / "from", "evil");
  const std::uint64_t from = guest.walk(work, "from");
  const auto in = guest.open(from, O_RDONLY).as<fuse_open_out>().fh;
  const auto created = guest.create(work, "program", 0775);
  const std::uint64_t node = FuseClient::entry(created).nodeid;
  const std::uint64_t out = FuseClient::handle(created);
  guest.uid = 1000;
  CHECK(guest.chmod(node, 06775).error == 0);
  CHECK(
      guest.ask_with(FUSE_COPY_FILE_RANGE, from, fuse_copy_file_range_in{in, 0, node, out, 0, 4, 0})
          .error == 0);
  CHECK(guest.attr(node).mode == (S_IFREG | 0775));
  CHECK(guest.chmod(node, 06775).error == 0);
  CHECK(guest.ask_with(FUSE_FALLOCATE, node, fuse_fallocate_in{out, 0, 10, 0, 0}).error == 0);
  CHECK(guest.attr(node).mode == (S_IFREG | 0775));
}

TEST_CASE_FIXTURE(Fixture,
                  "what is kept beside files of others is theirs to write, so it does not count") {
  if (::geteuid() != 0) {
    return;
  }
  put(host() / "file", "content");
  const std::string planted = "1 104755 0 0 0";
  REQUIRE(::setxattr((host() / "file").c_str(), kOwnerXattr, planted.data(), planted.size(), 0) ==
          0);
  const std::string capability = "user.msb.security.capability";
  REQUIRE(::setxattr((host() / "file").c_str(), capability.c_str(), "cap", 3, 0) == 0);
  REQUIRE(::chown((host() / "file").c_str(), 4321, 4321) == 0);
  const std::uint64_t file = guest.walk(work, "file");
  CHECK(guest.attr(file).mode == (S_IFREG | 0666));
  CHECK(guest.attr(file).uid == 4321);
  CHECK(guest.get_xattr(file, "security.capability").error == -ENODATA);
  // Root may take it over.
  CHECK(guest.chown(file, 5, 6).error == 0);
  CHECK(guest.attr(file).uid == 5);
}

TEST_CASE_FIXTURE(Fixture, "what a guest makes is worth nothing more on the host") {
  guest.uid = 1000;
  guest.gid = 1001;
  const auto created = FuseClient::entry(guest.create(work, "program", 04755));
  CHECK(created.attr.mode == (S_IFREG | 04755));
  CHECK(created.attr.uid == 1000);
  CHECK(created.attr.gid == 1001);
  CHECK((mode_of(host() / "program") & 07777) == 0755);
  struct stat status{};
  REQUIRE(::stat((host() / "program").c_str(), &status) == 0);
  CHECK(status.st_uid == ::geteuid());
  guest.uid = guest.gid = 0;
  for (const std::uint32_t mode : {0U, 04000U, 06777U, 01777U, 0400U, 0111U}) {
    CAPTURE(mode);
    CHECK(guest.chmod(created.nodeid, mode).error == 0);
    CHECK(guest.attr(created.nodeid).mode == (S_IFREG | mode));
    CHECK((mode_of(host() / "program") & 07777) == ((mode & 0777) | 0600));
  }
  const auto device = guest.mknod(work, "device", S_IFCHR | 0666, 0x103).as<fuse_entry_out>();
  CHECK(device.attr.mode == (S_IFCHR | 0666));
  CHECK(device.attr.rdev == 0x103);
  CHECK(S_ISREG(mode_of(host() / "device")));
  CHECK(guest.mkdir(work, "folder", 03770).error == 0);
  CHECK((mode_of(host() / "folder") & 07777) == 0770);
  CHECK(guest.attr(guest.walk(work, "folder")).mode == (S_IFDIR | 03770));
  CHECK(guest.mknod(work, "none", S_IFLNK | 0777).error == -EINVAL);
  CHECK(guest.mknod(work, "none", 0644).error == -EINVAL);
}

TEST_CASE_FIXTURE(
    Fixture, "what the host says of a mode later counts, and rubbish in our attribute does not") {
  const auto created = FuseClient::entry(guest.create(work, "file", 0444));
  CHECK((mode_of(host() / "file") & 07777) == 0644);
  CHECK(guest.attr(created.nodeid).mode == (S_IFREG | 0444));
  fs::permissions(host() / "file", fs::perms(0600));
  CHECK(guest.attr(created.nodeid).mode == (S_IFREG | 0600));
  for (const std::string rubbish : {"", "1", "2 100644 0 0 0", "1 100644 0 0", "1 100644 0 0 0 0",
                                    "1 100644 -1 0 0", "1 120777 5 5 5", "1 777100644 5 5 5",
                                    "1 100644 99999999999 0 0", "1  100644 5 5 5", "x"}) {
    CAPTURE(rubbish);
    REQUIRE(::setxattr((host() / "file").c_str(), kOwnerXattr, rubbish.data(), rubbish.size(), 0) ==
            0);
    CHECK(guest.attr(created.nodeid).mode == (S_IFREG | 0600));
    CHECK(guest.attr(created.nodeid).uid == 0);
  }
  // Of another type: as when it was copied from a device.
  const std::string directory = "1 40755 5 5 0";
  REQUIRE(::setxattr((host() / "file").c_str(), kOwnerXattr, directory.data(), directory.size(),
                     0) == 0);
  CHECK(guest.attr(created.nodeid).uid == 0);
}

TEST_CASE_FIXTURE(
    Fixture, "extended attributes keep their names, but ours, and are of one kind on the host") {
  const std::uint64_t file = FuseClient::entry(guest.create(work, "file", 0644)).nodeid;
  CHECK(guest.set_xattr(file, "user.mine", "1").error == 0);
  CHECK(guest.set_xattr(file, "security.capability", "cap").error == 0);
  CHECK(guest.set_xattr(file, "trusted.overlay.opaque", "y").error == 0);
  CHECK(guest.set_xattr(file, "system.posix_acl_access", "acl").error == -EINVAL);
  CHECK(xattr_of(host() / "file", "user.mine") == "1");
  CHECK(xattr_of(host() / "file", "user.msb.security.capability") == "cap");
  CHECK(xattr_of(host() / "file", "security.capability").empty());
  CHECK(xattr_of(host() / "file", "system.posix_acl_access").empty());
  CHECK(guest.get_xattr(file, "trusted.overlay.opaque").text() == "y");
  CHECK(guest.get_xattr(file, "user.mine", 0).as<fuse_getxattr_out>().size == 1);
  CHECK(guest.chown(file, 7, 8).error == 0);  // which takes the capability away
  const std::string names = guest.list_xattrs(file).text();
  CHECK(names.find("owner") == std::string::npos);
  CHECK(names.find("capability") == std::string::npos);
  CHECK(names.find("trusted.overlay.opaque") != std::string::npos);
  for (const std::string name :
       {"user.msb.owner", "user.msb.x", "user.msb.security.capability", "owner", ""}) {
    CAPTURE(name);
    CHECK(guest.set_xattr(file, name, "1 104777 0 0 0").error == -EPERM);
    CHECK(guest.get_xattr(file, name).error == -ENODATA);
    CHECK(guest.ask_with(FUSE_REMOVEXATTR, file, name).error == -ENODATA);
  }
  CHECK(guest.attr(file).uid == 7);
  CHECK(guest.set_xattr(file, std::string(256, 'x'), "y").error == -ERANGE);
  CHECK(guest.set_xattr(file, "user.large", std::string(65536, 'x')).error < 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "access lists and modes are kept in step, and directories pass theirs on") {
  const auto text = [](const std::vector<testing::AclLine>& lines) {
    const auto bytes = testing::acl_bytes(lines);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  constexpr std::uint32_t kNone = ~std::uint32_t{0};
  const auto list = [&](std::uint16_t user, std::uint16_t mask, std::uint16_t other) {
    return text({{ACL_USER_OBJ, user, kNone},
                 {ACL_USER, 7, 1000},
                 {ACL_GROUP_OBJ, 4, kNone},
                 {ACL_MASK, mask, kNone},
                 {ACL_OTHER, other, kNone}});
  };
  const std::uint64_t file = FuseClient::entry(guest.create(work, "file", 0640)).nodeid;
  CHECK(guest.set_xattr(file, kAccessAclXattr, list(6, 6, 0)).error == 0);
  CHECK(guest.attr(file).mode == (S_IFREG | 0660));
  CHECK(guest.chmod(file, 0411).error == 0);
  CHECK(guest.get_xattr(file, kAccessAclXattr).text() == list(4, 1, 1));
  CHECK(xattr_of(host() / "file", "system.posix_acl_access").empty());
  // One that says no more than the mode is not kept.
  CHECK(guest
            .set_xattr(
                file, kAccessAclXattr,
                text({{ACL_USER_OBJ, 6, kNone}, {ACL_GROUP_OBJ, 4, kNone}, {ACL_OTHER, 4, kNone}}))
            .error == 0);
  CHECK(guest.get_xattr(file, kAccessAclXattr).error == -ENODATA);
  CHECK(guest.attr(file).mode == (S_IFREG | 0644));
  CHECK(guest.set_xattr(file, kDefaultAclXattr, list(7, 7, 7)).error == -EACCES);

  REQUIRE(guest.mkdir(work, "folder", 0755).error == 0);
  const std::uint64_t folder = guest.walk(work, "folder");
  CHECK(guest.set_xattr(folder, kDefaultAclXattr, list(7, 7, 5)).error == 0);
  guest.umask = 077;  // which an inherited list stands in for
  const auto made = FuseClient::entry(guest.create(folder, "made", 0664));
  CHECK(made.attr.mode == (S_IFREG | 0664));
  CHECK(guest.get_xattr(made.nodeid, kAccessAclXattr).text() == list(6, 6, 4));
  const auto below = guest.mkdir(folder, "below", 0700).as<fuse_entry_out>();
  CHECK(below.attr.mode == (S_IFDIR | 0700));
  CHECK(guest.get_xattr(below.nodeid, kAccessAclXattr).text() == list(7, 0, 0));
  CHECK(guest.get_xattr(below.nodeid, kDefaultAclXattr).text() == list(7, 7, 5));
  CHECK(FuseClient::entry(guest.create(work, "masked", 0666)).attr.mode == (S_IFREG | 0600));
}

TEST_CASE_FIXTURE(Fixture, "writing takes capabilities and set-user-ID away") {
  const auto created = guest.create(work, "program", 0755);
  const std::uint64_t node = FuseClient::entry(created).nodeid;
  const std::uint64_t file = FuseClient::handle(created);
  CHECK(guest.set_xattr(node, "security.capability", "cap").error == 0);
  CHECK(guest.write(node, file, 0, "x").error == 0);
  CHECK(guest.get_xattr(node, "security.capability").error == -ENODATA);
  CHECK(guest.chmod(node, 06755).error == 0);
  CHECK(guest.write(node, file, 0, "x").error == 0);
  CHECK(guest.attr(node).mode == (S_IFREG | 06755));  // root's own
  CHECK(guest.write(node, file, 0, "x", FUSE_WRITE_KILL_SUIDGID).error == 0);
  CHECK(guest.attr(node).mode == (S_IFREG | 0755));
  CHECK(guest.chmod(node, 06755).error == 0);
  CHECK(guest.open(node, O_WRONLY | O_TRUNC, FUSE_OPEN_KILL_SUIDGID).error == 0);
  CHECK(guest.attr(node).mode == (S_IFREG | 0755));
  CHECK(guest.chmod(node, 06644).error == 0);
  CHECK(guest.chown(node, 5, 5).error == 0);
  CHECK(guest.attr(node).mode == (S_IFREG | 02644));  // without S_IXGRP it is no such program
}

TEST_CASE_FIXTURE(Fixture,
                  "a group's directory gives its group, and programs of it only to members") {
  REQUIRE(guest.mkdir(work, "team", 0777).error == 0);
  const std::uint64_t team = guest.walk(work, "team");
  REQUIRE(guest.chown(team, 0, 2000).error == 0);
  REQUIRE(guest.chmod(team, 02777).error == 0);
  guest.uid = guest.gid = 1000;
  const auto program = FuseClient::entry(guest.create(team, "program", 02755));
  CHECK(program.attr.gid == 2000);
  CHECK(program.attr.mode == (S_IFREG | 0755));
  const auto folder = guest.mkdir(team, "folder", 0755).as<fuse_entry_out>();
  CHECK(folder.attr.gid == 2000);
  CHECK(folder.attr.mode == (S_IFDIR | 02755));
}

TEST_CASE_FIXTURE(ReadOnly, "nothing changes in a share that is read-only") {
  put(host() / "file", "content");
  fs::create_directory(host() / "folder");
  const std::uint64_t file = guest.walk(work, "file");
  const std::uint64_t folder = guest.walk(work, "folder");
  const auto before = fs::last_write_time(host() / "file");
  CHECK(guest.open(file, O_RDWR).error == -EROFS);
  CHECK(guest.open(file, O_WRONLY).error == -EROFS);
  CHECK(guest.open(file, O_RDONLY | O_TRUNC).error == -EROFS);
  CHECK(guest.create(work, "new", 0644).error == -EROFS);
  CHECK(guest.create(work, "file", 0644).error == -EROFS);
  CHECK(guest.ask_with(FUSE_TMPFILE, work, fuse_create_in{O_RDWR, 0644, 0, 0}, "").error == -EROFS);
  CHECK(guest.mkdir(work, "new", 0755).error == -EROFS);
  CHECK(guest.mknod(work, "new", S_IFREG | 0644).error == -EROFS);
  CHECK(guest.symlink(work, "new", "x").error == -EROFS);
  CHECK(guest.link(file, work, "new").error == -EROFS);
  CHECK(guest.unlink(work, "file").error == -EROFS);
  CHECK(guest.rmdir(work, "folder").error == -EROFS);
  CHECK(guest.rename(work, "file", folder, "file").error == -EROFS);
  CHECK(guest.chmod(file, 0777).error == -EROFS);
  CHECK(guest.chown(file, 1, 1).error == -EROFS);
  CHECK(guest.truncate(file, 0).error == -EROFS);
  CHECK(guest.set_xattr(file, "user.x", "y").error == -EROFS);
  CHECK(guest.ask_with(FUSE_REMOVEXATTR, file, "user.x").error == -EROFS);
  const auto opened = guest.open(file, O_RDONLY).as<fuse_open_out>().fh;
  CHECK(guest.read(file, opened, 0, 100).text() == "content");
  CHECK(guest.write(file, opened, 0, "x").error == -EBADF);
  CHECK(guest.ask_with(FUSE_FALLOCATE, file, fuse_fallocate_in{opened, 0, 100, 0, 0}).error ==
        -EBADF);
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE | FATTR_FH;
  in.fh = opened;
  CHECK(guest.ask_with(FUSE_SETATTR, file, in).error == -EROFS);
  CHECK(content_of(host() / "file") == "content");
  CHECK(fs::last_write_time(host() / "file") == before);
}

TEST_CASE(
    "two shares of one directory keep their own rules, and nothing goes from one to the other") {
  Fixture fixture;
  put(fixture.host() / "file", "content");
  Fd root(::open(fixture.host().c_str(), O_PATH | O_CLOEXEC));
  REQUIRE(fixture.server.add_share("again", std::move(root), true, ShareCache::kNever));
  FuseClient& guest = fixture.guest;
  const std::uint64_t again = guest.walk(1, "again");
  const std::uint64_t there = guest.walk(again, "file");
  const std::uint64_t here = guest.walk(fixture.work, "file");
  CHECK(there != here);
  CHECK(guest.open(there, O_RDWR).error == -EROFS);
  CHECK(guest.open(here, O_RDWR).error == 0);
  CHECK(guest.link(there, fixture.work, "linked").error == -EXDEV);
  CHECK(guest.rename(again, "file", fixture.work, "x").error == -EROFS);
  CHECK(guest.rename(fixture.work, "file", again, "x").error == -EROFS);
  CHECK(guest.lookup(1, "again").as<fuse_entry_out>().entry_valid == 0);
  CHECK(guest.lookup(1, "work").as<fuse_entry_out>().entry_valid == 1);
}

TEST_CASE_FIXTURE(Fixture, "numbers that the guest was never given, or gave back, mean nothing") {
  put(host() / "file", "content");
  const std::uint64_t file = guest.walk(work, "file");
  for (const std::uint64_t node : {file + 1, file + 1000, kUnknown, kUnknown >> 1}) {
    CHECK(guest.getattr(node).error == -ESTALE);
    CHECK(guest.open(node, O_RDONLY).error == -ESTALE);
    CHECK(guest.lookup(node, "file").error == -ESTALE);
    CHECK(guest.rename(work, "file", node, "x").error == -ESTALE);
    CHECK(guest.link(node, work, "x").error == -ESTALE);
    guest.forget(node, kUnknown);
  }
  const auto opened = guest.open(file, O_RDWR).as<fuse_open_out>().fh;
  for (const std::uint64_t handle : {std::uint64_t{0}, opened + 1, kUnknown}) {
    CHECK(guest.read(file, handle, 0, 1).error == -EBADF);
    CHECK(guest.write(file, handle, 0, "x").error == -EBADF);
    CHECK(guest.release(file, handle).error == -EBADF);
  }
  CHECK(guest.read(work, opened, 0, 1).error == -EBADF);  // another node's
  CHECK(guest.release(work, opened).error == -EBADF);
  guest.forget(file, kUnknown);  // more than it had
  CHECK(guest.getattr(file).error == -ESTALE);
  CHECK(guest.read(file, opened, 0, 100).text() == "content");  // the handle is open
  CHECK(guest.release(file, opened).error == 0);
  guest.forget(work, kUnknown);
  CHECK(guest.getattr(work).error == 0);  // the root of a share is no guest's to forget
  fuse_batch_forget_in batch{};
  batch.count = 0xffff'ffff;  // and there are two
  CHECK(guest
            .ask_with(FUSE_BATCH_FORGET, 0, batch, fuse_forget_one{work, kUnknown},
                      fuse_forget_one{kUnknown, kUnknown})
            .error == FuseClient::kSilence);
  CHECK(guest.walk(work, "file") > file);  // a number of its own again
}

TEST_CASE(
    "a guest that keeps all that it is given is refused more, and served again once it gives "
    "back") {
  Fixture fixture(false, {.nodes = 20, .node_descriptors = 4, .handles = 5});
  FuseClient& guest = fixture.guest;
  std::vector<std::uint64_t> nodes;
  std::int32_t error = 0;
  for (int i = 0; i < 30 && error == 0; ++i) {
    const auto made = guest.mkdir(fixture.work, std::to_string(i), 0755);
    error = made.error;
    if (error == 0) {
      nodes.push_back(made.as<fuse_entry_out>().nodeid);
    }
  }
  CHECK(error == -ENFILE);
  CHECK(nodes.size() == 19);
  CHECK(fixture.server.files().nodes().open_descriptors() <= 4);
  for (const std::uint64_t node : nodes) {
    guest.forget(node, 1);
  }
  CHECK(fixture.server.files().nodes().size() == 1);
  put(fixture.host() / "file", "x");
  const std::uint64_t file = guest.walk(fixture.work, "file");
  std::vector<std::uint64_t> handles;
  for (int i = 0; i < 5; ++i) {
    handles.push_back(guest.open(file, O_RDONLY).as<fuse_open_out>().fh);
  }
  CHECK(guest.open(file, O_RDONLY).error == -ENFILE);
  CHECK(guest.create(fixture.work, "new", 0644).error == -ENFILE);
  CHECK_FALSE(fs::exists(fixture.host() / "new"));
  CHECK(guest.release(file, handles.back()).error == 0);
  CHECK(guest.open(file, O_RDONLY).error == 0);
}

TEST_CASE("more nodes than descriptors: they are found again by name, as deep as the tree is") {
  Fixture fixture(false, {.nodes = 1000, .node_descriptors = 3, .handles = 10});
  FuseClient& guest = fixture.guest;
  std::vector<std::uint64_t> chain{fixture.work};
  for (int i = 0; i < 300; ++i) {
    chain.push_back(guest.mkdir(chain.back(), "down", 0755).as<fuse_entry_out>().nodeid);
  }
  put(fixture.host() / "file", "x");
  CHECK(guest.create(chain.back(), "bottom", 0644).error == 0);
  CHECK(fixture.server.files().nodes().open_descriptors() <= 3);
  // Renamed at the top: all below is where it was, under another name.
  CHECK(guest.rename(fixture.work, "down", fixture.work, "renamed").error == 0);
  for (int i = 0; i < 5; ++i) {
    guest.walk(fixture.work, "file");
    guest.open(guest.walk(fixture.work, "file"), O_RDONLY);
    CHECK(guest.walk(chain.back(), "bottom") != 0);
    CHECK(guest.getattr(chain[150]).error == 0);
  }
  // Renamed by the host: the guest has to look again.
  fs::rename(fixture.host() / "renamed", fixture.host() / "elsewhere");
  for (int i = 0; i < 5; ++i) {
    guest.open(guest.walk(fixture.work, "file"), O_RDONLY);
  }
  CHECK(guest.getattr(chain[200]).error <= 0);
  CHECK(guest.walk(fixture.work, "elsewhere") == chain[1]);
  CHECK(guest.getattr(chain[200]).error == 0);
}

TEST_CASE_FIXTURE(Fixture, "a guest that starts anew finds nothing open") {
  put(host() / "file", "content");
  const std::uint64_t file = guest.walk(work, "file");
  const auto opened = guest.open(file, O_RDONLY).as<fuse_open_out>().fh;
  guest.init();
  CHECK(server.files().open_handles() == 0);
  CHECK(server.files().nodes().size() == 1);
  CHECK(guest.read(file, opened, 0, 1).error == -EBADF);
  CHECK(guest.walk(work, "file") != file);
}

TEST_CASE_FIXTURE(Fixture, "sizes and offsets that no file has are refused") {
  const auto created = guest.create(work, "file", 0644);
  const std::uint64_t node = FuseClient::entry(created).nodeid;
  const std::uint64_t file = FuseClient::handle(created);
  for (const std::uint64_t offset : {std::uint64_t{1} << 63, kUnknown, kUnknown >> 1}) {
    CAPTURE(offset);
    CHECK(guest.write(node, file, offset, "x").error < 0);
    CHECK(guest.read(node, file, offset, 10).payload.empty());
    CHECK(guest.truncate(node, offset).error < 0);
    CHECK(guest.ask_with(FUSE_FALLOCATE, node, fuse_fallocate_in{file, offset, 1, 0, 0}).error < 0);
    CHECK(guest.ask_with(FUSE_LSEEK, node, fuse_lseek_in{file, offset, SEEK_DATA, 0}).error < 0);
    CHECK(guest
              .ask_with(FUSE_COPY_FILE_RANGE, node,
                        fuse_copy_file_range_in{file, offset, node, file, 0, 10, 0})
              .error <= 0);
  }
  fuse_write_in in{};
  in.fh = file;
  for (const std::uint32_t size : {0U, 2U, 4U, 1U << 20, 0xffff'ffffU}) {
    in.size = size;
    CHECK(guest.ask(FUSE_WRITE, node, FuseClient::body(in, std::string_view("xx"))).error ==
          (size == 3 ? 0 : -EINVAL));
  }
  CHECK(guest.ask_with(FUSE_LSEEK, node, fuse_lseek_in{file, 0, SEEK_END, 0}).error == -EINVAL);
  CHECK(guest.ask_with(FUSE_FALLOCATE, node, fuse_fallocate_in{file, 0, 1, 0x8000'0000, 0}).error ==
        -EOPNOTSUPP);
  CHECK(guest.rename(work, "file", work, "x", 1U << 3).error == -EINVAL);
  CHECK(guest.attr(node).size == 0);
}

TEST_CASE_FIXTURE(
    Fixture, "every operation on every kind of shared node, cut at every length, stays inside") {
  put(host() / "file", "content");
  fs::create_directory(host() / "folder");
  fs::create_symlink("../outside/canary", host() / "link");
  REQUIRE(::mkfifo((host() / "pipe").c_str(), 0600) == 0);
  std::size_t answers = 0;
  for (std::uint32_t opcode = 1; opcode < 60; ++opcode) {
    for (const char* name : {"", "file", "folder", "link", "pipe"}) {
      for (const char filler : {'\0', '.', '\xff'}) {
        for (std::size_t size = 0; size <= 96; ++size) {
          guest.init();
          const std::uint64_t node = guest.walk(guest.walk(1, "work"), name);
          std::vector<std::byte> body(size, static_cast<std::byte>(filler));
          if (size > 1 && filler == '.') {
            body.back() = std::byte{0};
          }
          const auto reply = guest.ask(opcode, node, body, 4096);
          if (reply.error > FuseClient::kSilence || reply.error < -200 ||
              reply.payload.size() > 4096) {
            FAIL("opcode ", opcode, " on ", name, " with ", size, " bytes: ", reply.error);
          }
          ++answers;
          if (!fs::exists(host() / "file")) {
            put(host() / "file", "content");
          }
        }
      }
    }
  }
  MESSAGE(answers, " requests");
}

TEST_CASE("names of attributes go to the host and back") {
  CHECK(host_xattr("user.a") == "user.a");
  CHECK(host_xattr("security.capability") == "user.msb.security.capability");
  CHECK(host_xattr("user.msb.a").empty());
  CHECK(host_xattr("").empty());
  CHECK(host_xattr("owner").empty());
  CHECK(host_xattr(std::string(250, 'x')).empty());
  CHECK(guest_xattr("user.a") == "user.a");
  CHECK(guest_xattr("user.msb.security.capability") == "security.capability");
  CHECK_FALSE(guest_xattr("user.msb.owner"));
  CHECK_FALSE(guest_xattr("user.msb.user.a"));
  CHECK_FALSE(guest_xattr("security.selinux"));
  CHECK_FALSE(guest_xattr("system.posix_acl_access"));
}

TEST_CASE("the user who runs the sandbox is its root, and strangers are nobody") {
  struct statx status{};
  status.stx_mode = S_IFREG | 0640;
  status.stx_uid = 1000;
  status.stx_gid = 100;
  CHECK(OwnerRule(1000, 100).shown(status, {}) == GuestOwner{S_IFREG | 0640, 0, 0, 0});
  CHECK(OwnerRule(1001, 101).shown(status, {}) == GuestOwner{S_IFREG | 0640, kNobody, kNobody, 0});
  CHECK(OwnerRule(0, 0).shown(status, {}) == GuestOwner{S_IFREG | 0640, 1000, 100, 0});
  status.stx_uid = status.stx_gid = 0;
  CHECK(OwnerRule(1000, 100).shown(status, {}) == GuestOwner{S_IFREG | 0640, kNobody, kNobody, 0});
  const GuestOwner owner{S_IFREG | 06440, 5, 6, 0};
  CHECK(GuestOwner::parse(owner.text()) == owner);
  CHECK(OwnerRule(0, 0).shown(status, owner) == owner);
}

}  // namespace
}  // namespace msb::virtio
