// SPDX-License-Identifier: Apache-2.0
// A file service in a process of its own, reached over a Unix socket as it would be over vsock, a
// client of it, and trees of files to try it on.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "protocol/msb_exec.h"

namespace msb::test {

/// A fresh directory below the system's temporary one, removed with all that is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

void write_file(const std::string& path, const std::string& content, mode_t mode = 0644);
std::string read_file(const std::string& path);
bool exists(const std::string& path);  // also a symbolic link that leads nowhere
struct stat status_of(const std::string& path);
std::vector<std::string> names_in(const std::string& path);  // sorted
bool is_root();

/// What a program prints; the test fails unless it ends with status 0.
std::string run(const std::vector<std::string>& arguments);

/// The same of a Python script with io, os, sys and tarfile imported.
std::string python(const std::string& script, const std::vector<std::string>& arguments = {});

/// Sets the time of modification.
void set_time(const std::string& path, int64_t seconds, long nanoseconds);

/// Everything about one file that an archive keeps.
struct File {
  mode_t mode = 0;
  uid_t user = 0;
  gid_t group = 0;
  int64_t modified_ns = 0;
  dev_t device = 0;     // of a device node
  std::string content;  // of a regular file; the target of a symbolic link
  std::string same_as;  // of several names of one file, the first
  std::map<std::string, std::string> xattrs;

  bool operator==(const File&) const = default;
};
using Tree = std::map<std::string, File>;
/// All that is below a directory, by its relative path.
Tree read_tree(const std::string& path);
std::string describe(const File& file);
void check_same(const Tree& actual, const Tree& expected);

struct Entry {
  msb_file_entry fixed{};
  std::string name;
  std::string target;
};

/// What came for one request.
struct Answer {
  std::optional<uint64_t> done;
  std::optional<msb_failure> refused;
  std::string why;  // the text of REFUSED
  std::vector<Entry> entries;
  std::string data;
  bool closed = false;  // the service closed the connection instead
};

/// Checks that the answer is REFUSED, and with these.
bool is_refused(const Answer& answer, uint32_t stage, int code);
bool is_refused(const Answer& answer, int code);  // stage FILE

struct Request {
  uint32_t type = 0;
  std::vector<std::string> paths;
  msb_file_request fields = {};

  std::string frame() const;
};

/// A request whose `user` and `group` leave the owner.
Request request(uint32_t type, std::vector<std::string> paths, uint32_t flags = 0,
                uint32_t mode = 0);

std::string frame(uint32_t type, const std::string& payload = {});
/// DATA frames of 64 KiB, the empty one last.
std::string data_frames(const std::string& bytes);

class FileService {
 public:
  /// Forks the service; `before` runs in its process first.
  explicit FileService(const std::function<void()>& before = {});
  ~FileService();
  FileService(const FileService&) = delete;
  FileService& operator=(const FileService&) = delete;

  Answer call(const Request& request);
  /// The same with DATA behind it.
  Answer call(const Request& request, const std::string& data);
  /// Sends bytes while reading what comes, and gives the answer.
  Answer exchange(const std::string& bytes);
  void send(const std::string& bytes);
  Answer receive_answer();
  /// Waits until something has come, and takes nothing.
  void wait_for_bytes();
  /// Closes the connection and waits for the process. Returns its exit status, -1 for a signal.
  int close();
  void half_close();
  /// Waits until the process has ended by itself.
  int wait();
  /// A field of /proc/PID/status in KiB.
  long status_kib(const std::string& field) const;

 private:
  bool receive_exactly(char* to, size_t length);
  int descriptor_ = -1;
  pid_t pid_ = -1;
};

/// The stream of a PACK, which must succeed.
std::string pack(FileService& service, const std::string& path);

}  // namespace msb::test
