// SPDX-License-Identifier: Apache-2.0
#include "initramfs/test_files.hpp"

extern "C" {
#include "initramfs/file_service.h"
}

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace msb::test {
namespace {

constexpr int kPatienceSeconds = 20;

std::string link_target(const std::string& path) {
  char target[4096];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  REQUIRE(length >= 0);
  return {target, static_cast<size_t>(length)};
}

std::map<std::string, std::string> xattrs_of(const std::string& path) {
  std::vector<char> names(65536);
  const ssize_t length = llistxattr(path.c_str(), names.data(), names.size());
  std::map<std::string, std::string> xattrs;
  for (ssize_t at = 0; at < length;) {
    const std::string name = names.data() + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    std::vector<char> value(65536);
    const ssize_t size = lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    REQUIRE(size >= 0);
    xattrs[name] = std::string(value.data(), static_cast<size_t>(size));
  }
  return xattrs;
}

int wait_for(pid_t pid) {
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "msb-files-XXXXXX").string();
  REQUIRE(mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_file(const std::string& path, const std::string& content, mode_t mode) {
  std::ofstream(path, std::ios::binary) << content;
  REQUIRE(chmod(path.c_str(), mode) == 0);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

struct stat status_of(const std::string& path) {
  struct stat status{};
  REQUIRE_MESSAGE(lstat(path.c_str(), &status) == 0, path);
  return status;
}

bool exists(const std::string& path) {
  struct stat status{};
  return lstat(path.c_str(), &status) == 0;
}

std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

bool is_root() {
  return geteuid() == 0;
}

std::string run(const std::vector<std::string>& arguments) {
  int both[2];
  REQUIRE(pipe2(both, O_CLOEXEC) == 0);
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    alarm(kPatienceSeconds);
    dup2(both[1], 1);
    dup2(both[1], 2);
    std::vector<char*> pointers;
    for (const std::string& argument : arguments) {
      pointers.push_back(const_cast<char*>(argument.c_str()));
    }
    pointers.push_back(nullptr);
    execvp(pointers[0], pointers.data());
    _exit(127);
  }
  ::close(both[1]);
  std::string output;
  char buffer[4096];
  ssize_t n = 0;
  while ((n = read(both[0], buffer, sizeof buffer)) > 0) {
    output.append(buffer, static_cast<size_t>(n));
  }
  ::close(both[0]);
  REQUIRE_MESSAGE(wait_for(pid) == 0, output);
  return output;
}

std::string python(const std::string& script, const std::vector<std::string>& arguments) {
  std::vector<std::string> all = {"/usr/bin/python3", "-c",
                                  "import io, os, stat, sys, tarfile\n" + script};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return run(all);
}

void set_time(const std::string& path, int64_t seconds, long nanoseconds) {
  const timespec times[2] = {{0, UTIME_OMIT}, {seconds, nanoseconds}};
  REQUIRE(utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
}

Tree read_tree(const std::string& path) {
  Tree tree;
  std::map<std::pair<dev_t, ino_t>, std::string> first_names;
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  for (const std::string& full : paths) {
    const struct stat status = status_of(full);
    const std::string name = full.substr(path.size() + 1);
    File file{.mode = status.st_mode,
              .user = status.st_uid,
              .group = status.st_gid,
              .modified_ns = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec,
              .device = status.st_rdev,
              .content = {},
              .same_as = {},
              .xattrs = xattrs_of(full)};
    if (S_ISREG(status.st_mode)) file.content = read_file(full);
    if (S_ISLNK(status.st_mode)) file.content = link_target(full);
    if (S_ISREG(status.st_mode) && status.st_nlink > 1) {
      file.same_as = first_names.try_emplace({status.st_dev, status.st_ino}, name).first->second;
    }
    tree[name] = file;
  }
  return tree;
}

std::string describe(const File& file) {
  std::ostringstream text;
  text << std::oct << file.mode << std::dec << ' ' << file.user << ':' << file.group << ' '
       << file.modified_ns << ' ' << file.device << ' ' << file.content.size() << " bytes "
       << std::hash<std::string>{}(file.content) << " same as '" << file.same_as << "'";
  for (const auto& [name, value] : file.xattrs) text << ' ' << name << '=' << value;
  return text.str();
}

void check_same(const Tree& actual, const Tree& expected) {
  for (const auto& [name, file] : expected) {
    INFO(name);
    REQUIRE(actual.contains(name));
    CHECK(describe(actual.at(name)) == describe(file));
    CHECK(actual.at(name) == file);
  }
  CHECK(actual.size() == expected.size());
}

std::string frame(uint32_t type, const std::string& payload) {
  const msb_frame_header header{.type = type, .length = static_cast<uint32_t>(payload.size())};
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) + payload;
}

std::string Request::frame() const {
  std::string payload(reinterpret_cast<const char*>(&fields), sizeof fields);
  for (const std::string& path : paths) payload += path + '\0';
  return test::frame(type, payload);
}

Request request(uint32_t type, std::vector<std::string> paths, uint32_t flags, uint32_t mode) {
  return {.type = type,
          .paths = std::move(paths),
          .fields = {.flags = flags,
                     .mode = mode,
                     .user = UINT32_MAX,
                     .group = UINT32_MAX,
                     .offset = 0,
                     .length = type == MSB_FILE_READ ? UINT64_MAX : 0}};
}

std::string data_frames(const std::string& bytes) {
  std::string frames;
  for (size_t at = 0; at < bytes.size(); at += MSB_MAX_DATA) {
    frames += frame(MSB_FILE_DATA, bytes.substr(at, MSB_MAX_DATA));
  }
  return frames + frame(MSB_FILE_DATA);
}

bool is_refused(const Answer& answer, uint32_t stage, int code) {
  INFO(answer.why);
  CHECK(answer.refused.has_value());
  if (!answer.refused) return false;
  CHECK(answer.refused->stage == stage);
  CHECK(answer.refused->code == static_cast<uint32_t>(code));
  CHECK_FALSE(answer.why.empty());
  return answer.refused->stage == stage && answer.refused->code == static_cast<uint32_t>(code);
}

bool is_refused(const Answer& answer, int code) {
  return is_refused(answer, MSB_STAGE_FILE, code);
}

FileService::FileService(const std::function<void()>& before) {
  int both[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
  pid_ = fork();
  REQUIRE(pid_ >= 0);
  if (pid_ == 0) {
    ::close(both[0]);
    alarm(10 * kPatienceSeconds);  // a test that hangs leaves nothing behind
    if (before) before();
    file_service_run(both[1], nullptr, 0);
  }
  ::close(both[1]);
  descriptor_ = both[0];
  const timeval patience{.tv_sec = kPatienceSeconds, .tv_usec = 0};
  setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  REQUIRE(receive_answer().done == 0u);
}

FileService::~FileService() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

void FileService::send(const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(descriptor_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // what the service thinks of it is seen when receiving
    sent += static_cast<size_t>(n);
  }
}

bool FileService::receive_exactly(char* to, size_t length) {
  size_t filled = 0;
  while (filled < length) {
    const ssize_t n = recv(descriptor_, to + filled, length - filled, 0);
    // A reset comes where the service closed with something unread.
    REQUIRE_MESSAGE((n >= 0 || errno == ECONNRESET), "the service does not answer");
    if (n <= 0) return false;
    filled += static_cast<size_t>(n);
  }
  return true;
}

Answer FileService::receive_answer() {
  Answer answer;
  while (!answer.done && !answer.refused) {
    msb_frame_header header{};
    std::string payload;
    if (receive_exactly(reinterpret_cast<char*>(&header), sizeof header)) {
      REQUIRE(header.length <= MSB_MAX_DATA);
      payload.resize(header.length);
    } else {
      answer.closed = true;
    }
    if (answer.closed || !receive_exactly(payload.data(), payload.size())) {
      answer.closed = true;
      return answer;
    }
    if (header.type == MSB_FILE_DATA) {
      REQUIRE_FALSE(payload.empty());
      answer.data += payload;
    } else if (header.type == MSB_FILE_ENTRY) {
      REQUIRE(payload.size() <= MSB_MAX_REQUEST);
      Entry entry;
      REQUIRE(payload.size() >= sizeof entry.fixed + 2);
      std::memcpy(&entry.fixed, payload.data(), sizeof entry.fixed);
      entry.name = payload.c_str() + sizeof entry.fixed;
      entry.target = payload.c_str() + sizeof entry.fixed + entry.name.size() + 1;
      REQUIRE(payload.size() == sizeof entry.fixed + entry.name.size() + entry.target.size() + 2);
      answer.entries.push_back(entry);
    } else if (header.type == MSB_DONE) {
      REQUIRE(payload.size() == sizeof(msb_done));
      uint64_t value = 0;
      std::memcpy(&value, payload.data(), sizeof value);
      answer.done = value;
    } else {
      REQUIRE(header.type == MSB_REFUSED);
      REQUIRE(payload.size() >= sizeof(msb_failure));
      REQUIRE(payload.size() <= MSB_MAX_SMALL);
      msb_failure failure{};
      std::memcpy(&failure, payload.data(), sizeof failure);
      answer.refused = failure;
      answer.why = payload.substr(sizeof failure);
    }
  }
  return answer;
}

Answer FileService::call(const Request& request) {
  send(request.frame());
  return receive_answer();
}

Answer FileService::call(const Request& request, const std::string& data) {
  return exchange(request.frame() + data_frames(data));
}

Answer FileService::exchange(const std::string& bytes) {
  std::thread sender([&] { send(bytes); });
  Answer answer = receive_answer();
  sender.join();
  return answer;
}

void FileService::wait_for_bytes() {
  pollfd one{.fd = descriptor_, .events = POLLIN, .revents = 0};
  REQUIRE(poll(&one, 1, kPatienceSeconds * 1000) == 1);
}

void FileService::half_close() {
  shutdown(descriptor_, SHUT_WR);
}

int FileService::close() {
  ::close(descriptor_);
  descriptor_ = -1;
  return wait();
}

int FileService::wait() {
  const int status = wait_for(pid_);
  pid_ = -1;
  return status;
}

long FileService::status_kib(const std::string& field) const {
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with(field + ":")) return std::stol(line.substr(field.size() + 1));
  }
  FAIL("no field ", field);
  return 0;
}

std::string pack(FileService& service, const std::string& path) {
  const Answer answer = service.call(request(MSB_FILE_PACK, {path}));
  INFO(answer.why);
  REQUIRE(answer.done.has_value());
  CHECK(answer.data.size() % 512 == 0);
  return answer.data;
}

}  // namespace msb::test
