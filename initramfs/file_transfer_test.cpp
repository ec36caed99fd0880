// SPDX-License-Identifier: Apache-2.0
// READ and WRITE.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <functional>

#include "initramfs/test_files.hpp"

using namespace msb::test;

namespace {

/// Bytes that do not repeat within a frame.
std::string pattern(size_t size) {
  std::string bytes(size, '\0');
  uint32_t state = 1;
  for (char& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

Answer write_to(FileService& service, const std::string& path, const std::string& content,
                uint32_t flags = 0, uint64_t offset = 0) {
  Request write = request(MSB_FILE_WRITE, {path}, flags, 0640);
  write.fields.offset = offset;
  return service.call(write, content);
}

/// As on a file system that has no unnamed files.
void refuse_unnamed_files() {
  sock_filter program[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
                           BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
                           BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog all{.len = sizeof program / sizeof *program, .filter = program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) != 0) {
    _exit(97);
  }
}

}  // namespace

TEST_CASE("read_gives_the_bytes_that_were_asked_for") {
  TemporaryDirectory directory;
  const std::string content = pattern(700'001);
  write_file(directory / "file", content);
  FileService service;
  Answer answer = service.call(request(MSB_FILE_READ, {directory / "file"}));
  CHECK(answer.done == content.size());
  CHECK(answer.data == content);

  const auto part = [&](uint64_t offset, uint64_t length) {
    Request read = request(MSB_FILE_READ, {directory / "file"});
    read.fields.offset = offset;
    read.fields.length = length;
    return service.call(read);
  };
  CHECK(part(0, 0).data.empty());
  CHECK(part(0, 1).data == content.substr(0, 1));
  CHECK(part(65'535, 65'537).data == content.substr(65'535, 65'537));
  CHECK(part(700'000, 10).data == content.substr(700'000));
  CHECK(part(700'001, 10).done == 0u);
  CHECK(part(1'000'000'000'000, UINT64_MAX).done == 0u);
}

TEST_CASE("read_takes_what_has_no_size_and_refuses_what_would_wait") {
  TemporaryDirectory directory;
  FileService service;
  Request zeros = request(MSB_FILE_READ, {"/dev/zero"});
  zeros.fields.length = 100'000;
  CHECK(service.call(zeros).data == std::string(100'000, '\0'));
  CHECK(service.call(request(MSB_FILE_READ, {"/dev/null"})).done == 0u);
  CHECK_FALSE(service.call(request(MSB_FILE_READ, {"/proc/self/status"})).data.empty());

  REQUIRE(mkfifo((directory / "fifo").c_str(), 0600) == 0);
  CHECK(is_refused(service.call(request(MSB_FILE_READ, {directory / "fifo"})), EOPNOTSUPP));
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  (directory / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK(is_refused(service.call(request(MSB_FILE_READ, {directory / "socket"})), EOPNOTSUPP));
  close(listener);
  CHECK(is_refused(service.call(request(MSB_FILE_READ, {directory.path()})), EISDIR));
  CHECK(is_refused(service.call(request(MSB_FILE_READ, {directory / "none"})), ENOENT));
}

TEST_CASE("read_ends_when_the_host_goes_away") {
  FileService service;
  service.send(request(MSB_FILE_READ, {"/dev/zero"}).frame());
  CHECK(service.close() == 0);
}

TEST_CASE("half_close_ends_what_is_under_way") {
  FileService service;
  Request read = request(MSB_FILE_READ, {"/dev/zero"});
  read.fields.length = 64 << 20;
  service.send(read.frame());
  service.half_close();
  const Answer answer = service.receive_answer();
  CHECK(answer.closed);
  CHECK(answer.data.size() < read.fields.length);
  CHECK(service.wait() == 0);
}

TEST_CASE("write_makes_a_file_with_mode_and_replaces_one_without") {
  TemporaryDirectory directory;
  FileService service([] { umask(077); });
  const std::string content = pattern(300'000);
  CHECK(write_to(service, directory / "file", content).done == content.size());
  CHECK(read_file(directory / "file") == content);
  CHECK(status_of(directory / "file").st_mode == (S_IFREG | 0640u));

  REQUIRE(chmod((directory / "file").c_str(), 0604) == 0);
  const auto inode = status_of(directory / "file").st_ino;
  CHECK(write_to(service, directory / "file", "short", MSB_FILE_SYNC).done == 5u);
  CHECK(read_file(directory / "file") == "short");
  CHECK(status_of(directory / "file").st_mode == (S_IFREG | 0604u));
  CHECK(status_of(directory / "file").st_ino == inode);
  CHECK(write_to(service, directory / "empty", "", MSB_FILE_SYNC).done == 0u);
  CHECK(status_of(directory / "empty").st_size == 0);
}

TEST_CASE("write_appends_updates_and_excludes") {
  TemporaryDirectory directory;
  FileService service;
  const std::string file = directory / "file";
  CHECK(write_to(service, file, "abc", MSB_FILE_APPEND).done == 3u);
  CHECK(write_to(service, file, "def", MSB_FILE_APPEND).done == 3u);
  CHECK(read_file(file) == "abcdef");
  CHECK(write_to(service, file, "XY", MSB_FILE_UPDATE, 2).done == 2u);
  CHECK(read_file(file) == "abXYef");
  CHECK(write_to(service, file, "Z", MSB_FILE_UPDATE, 8).done == 1u);
  CHECK(read_file(file) == std::string("abXYef\0\0Z", 9));
  CHECK(is_refused(write_to(service, file, "new", MSB_FILE_EXCLUSIVE), EEXIST));
  CHECK(is_refused(write_to(service, file, "new", MSB_FILE_EXCLUSIVE | MSB_FILE_ATOMIC), EEXIST));
  CHECK(read_file(file).size() == 9);
  CHECK(write_to(service, directory / "new", "new", MSB_FILE_EXCLUSIVE).done == 3u);
  CHECK(write_to(service, directory / "a", "new", MSB_FILE_EXCLUSIVE | MSB_FILE_ATOMIC).done == 3u);
  CHECK(read_file(directory / "a") == "new");
  REQUIRE(symlink("nowhere", (directory / "link").c_str()) == 0);
  CHECK(is_refused(write_to(service, directory / "link", "x", MSB_FILE_EXCLUSIVE), EEXIST));
}

TEST_CASE("write_makes_parents_only_when_asked") {
  TemporaryDirectory directory;
  FileService service;
  CHECK(is_refused(write_to(service, directory / "a/b/file", "x"), ENOENT));
  CHECK(is_refused(write_to(service, directory / "a/b/file", "x", MSB_FILE_ATOMIC), ENOENT));
  CHECK(write_to(service, directory / "a/b/file", "x", MSB_FILE_PARENTS).done == 1u);
  CHECK(write_to(service, directory / "c/d/f", "x", MSB_FILE_PARENTS | MSB_FILE_ATOMIC).done == 1u);
  CHECK(status_of(directory / "c/d").st_mode == (S_IFDIR | 0755u));
}

TEST_CASE("write_gives_a_new_file_its_owner_and_keeps_set_user_id") {
  if (!is_root()) return;
  TemporaryDirectory directory;
  FileService service;
  for (const uint32_t flags : {0u, MSB_FILE_ATOMIC}) {
    CAPTURE(flags);
    const std::string file = directory / ("file" + std::to_string(flags));
    Request write = request(MSB_FILE_WRITE, {file}, flags, 04755);
    write.fields.user = 1000;
    write.fields.group = 1001;
    CHECK(service.call(write, "x").done == 1u);
    CHECK(status_of(file).st_mode == (S_IFREG | 04755u));
    CHECK(status_of(file).st_uid == 1000);
    CHECK(status_of(file).st_gid == 1001);
    // Who owns it stays when it is replaced.
    write.fields.user = 7;
    write.fields.mode = 0600;
    CHECK(service.call(write, "yz").done == 2u);
    CHECK(read_file(file) == "yz");
    CHECK(status_of(file).st_uid == 1000);
    CHECK(status_of(file).st_mode == (S_IFREG | 04755u));
  }
}

TEST_CASE("write_that_is_refused_reads_on_and_the_next_request_is_answered") {
  TemporaryDirectory directory;
  FileService service;
  const std::string content = pattern(1'000'000);
  CHECK(is_refused(write_to(service, directory / "none/file", content), ENOENT));
  CHECK(is_refused(write_to(service, directory.path(), content), EISDIR));
  CHECK(is_refused(write_to(service, directory.path(), content, MSB_FILE_ATOMIC), EISDIR));
  CHECK(is_refused(write_to(service, "/dev/full", content), ENOSPC));
  CHECK(is_refused(write_to(service, "/dev/null", "x", MSB_FILE_ATOMIC), EOPNOTSUPP));
  REQUIRE(mkfifo((directory / "fifo").c_str(), 0600) == 0);
  CHECK(is_refused(write_to(service, directory / "fifo", content), EOPNOTSUPP));
  for (const uint32_t flags : {MSB_FILE_ATOMIC | MSB_FILE_APPEND, MSB_FILE_ATOMIC | MSB_FILE_UPDATE,
                               MSB_FILE_APPEND | MSB_FILE_UPDATE, 1u << 20}) {
    CHECK(
        is_refused(write_to(service, directory / "x", content, flags), MSB_STAGE_REQUEST, EINVAL));
  }
  CHECK(is_refused(write_to(service, directory / "x", content, 0, 1), MSB_STAGE_REQUEST, EINVAL));
  CHECK(write_to(service, "/dev/null", content).done == content.size());
  CHECK(names_in(directory.path()) == std::vector<std::string>{"fifo"});
}

TEST_CASE("atomic_write_replaces_the_file_that_a_link_leads_to") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "a/b");
  write_file(directory / "a/file", "old", 0604);
  REQUIRE(symlink("../file", (directory / "a/b/one").c_str()) == 0);
  REQUIRE(symlink((directory / "a/b/one").c_str(), (directory / "two").c_str()) == 0);
  const auto inode = status_of(directory / "a/file").st_ino;
  FileService service;
  CHECK(write_to(service, directory / "two", "new", MSB_FILE_ATOMIC).done == 3u);
  CHECK(read_file(directory / "a/file") == "new");
  CHECK(status_of(directory / "a/file").st_mode == (S_IFREG | 0604u));
  CHECK(status_of(directory / "a/file").st_ino != inode);
  CHECK(S_ISLNK(status_of(directory / "two").st_mode));
  CHECK(names_in(directory / "a") == std::vector<std::string>{"b", "file"});
  REQUIRE(symlink("loop", (directory / "loop").c_str()) == 0);
  CHECK(is_refused(write_to(service, directory / "loop", "x", MSB_FILE_ATOMIC), ELOOP));
}

/// With unnamed files where the file system has them, and without.
TEST_CASE("atomic_write_shows_nothing_before_its_end_and_leaves_nothing_without_it") {
  for (const auto& before :
       {std::function<void()>(), std::function<void()>(refuse_unnamed_files)}) {
    CAPTURE(static_cast<bool>(before));
    TemporaryDirectory directory;
    write_file(directory / "file", "old");
    const std::string start =
        request(MSB_FILE_WRITE, {directory / "file"}, MSB_FILE_ATOMIC).frame() +
        frame(MSB_FILE_DATA, pattern(MSB_MAX_DATA));
    for (const bool half : {false, true}) {
      FileService service(before);
      service.send(start + frame(MSB_FILE_DATA, pattern(MSB_MAX_DATA)));
      const size_t names = before ? 2 : 1;
      for (int i = 0; i < 1000 && names_in(directory.path()).size() != names; i++) usleep(1000);
      CHECK(names_in(directory.path()).size() == names);
      CHECK(read_file(directory / "file") == "old");
      if (half) service.half_close();
      CHECK((half ? service.wait() : service.close()) == 0);
      CHECK(read_file(directory / "file") == "old");
      CHECK(names_in(directory.path()) == std::vector<std::string>{"file"});
    }
    // Cut in the middle of a frame, and by a broken one.
    for (const std::string& rest : {std::string(), frame(MSB_FILE_STAT, std::string(40, '/'))}) {
      FileService service(before);
      service.send(start.substr(0, start.size() - (rest.empty() ? 100 : 0)) + rest);
      if (rest.empty()) service.half_close();
      CHECK(service.wait() == 0);
      CHECK(read_file(directory / "file") == "old");
      CHECK(names_in(directory.path()) == std::vector<std::string>{"file"});
    }
    FileService service(before);
    CHECK(write_to(service, directory / "file", "new", MSB_FILE_ATOMIC).done == 3u);
    CHECK(read_file(directory / "file") == "new");
    CHECK(is_refused(write_to(service, "/dev", "x", MSB_FILE_ATOMIC), EISDIR));
    CHECK(names_in(directory.path()) == std::vector<std::string>{"file"});
  }
}

TEST_CASE("write_of_a_vanished_host_keeps_what_came") {
  TemporaryDirectory directory;
  FileService service;
  service.send(request(MSB_FILE_WRITE, {directory / "file"}, 0, 0644).frame() +
               frame(MSB_FILE_DATA, "abc"));
  CHECK(service.close() == 0);
  CHECK(read_file(directory / "file") == "abc");
}

TEST_CASE("large_files_pass_in_bounded_memory") {
  TemporaryDirectory directory;
  FileService service;
  const std::string piece = pattern(1 << 20);
  std::string content;
  for (int i = 0; i < 64; i++) content += piece;
  // What every kind of request needs, before it is measured.
  std::filesystem::create_directories(directory / "small");
  std::filesystem::create_directories(directory / "copy");
  CHECK(write_to(service, directory / "small/file", piece).done);
  CHECK(service.call(request(MSB_FILE_READ, {directory / "small/file"})).done);
  Answer packed = service.call(request(MSB_FILE_PACK, {directory / "small"}));
  CHECK(service.call(request(MSB_FILE_UNPACK, {directory / "copy"}), packed.data).done);
  const long before = service.status_kib("VmHWM");

  std::filesystem::create_directories(directory / "tree");
  for (const uint32_t flags : {0u, MSB_FILE_ATOMIC}) {
    CHECK(write_to(service, directory / "tree/file", content, flags).done == content.size());
    CHECK(service.call(request(MSB_FILE_READ, {directory / "tree/file"})).data == content);
  }
  packed = service.call(request(MSB_FILE_PACK, {directory / "tree"}));
  CHECK(packed.data.size() > content.size());
  CHECK(service.call(request(MSB_FILE_UNPACK, {directory / "copy"}), packed.data).done == 1u);
  CHECK(read_file(directory / "copy/file") == content);
  CHECK(service.status_kib("VmHWM") - before < 2048);
}
