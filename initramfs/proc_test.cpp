// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/proc.h"
}

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace {

bool note(void* context, const char* line) {
  *static_cast<std::string*>(context) = line;
  return false;
}

std::string first_line(const char* path) {
  std::string line;
  proc_read(path, note, &line);
  return line;
}

bool opens(const char* path) {
  int directory = proc_open_directory(path);
  if (directory < 0) return false;
  close(directory);
  return true;
}

}  // namespace

TEST_CASE("proc_that_is_kept_is_not_covered_by_what_is_mounted_later") {
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount("", "/", "", MS_REC | MS_PRIVATE, nullptr) != 0) {
      _exit(90);
    }
    proc_keep();
    if (mount("none", "/proc/1", "tmpfs", 0, nullptr) != 0 ||
        mount("none", "/proc", "tmpfs", 0, nullptr) != 0 || access("/proc/1", F_OK) == 0) {
      _exit(91);
    }
    bool seen = first_line("loadavg").find('/') != std::string::npos && opens(".") && opens("1/fd");
    _exit(seen ? 0 : 92);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 90) {
    MESSAGE("not run: only root has mounts of its own");
    return;
  }
  CHECK(status == 0);
}

TEST_CASE("proc_that_is_not_kept_is_the_one_at_its_path") {
  CHECK(first_line("self/comm") == "initramfs_test");
  CHECK(opens("self/fd"));
  CHECK_FALSE(opens("nothing"));
  CHECK(first_line("nothing").empty());
}
