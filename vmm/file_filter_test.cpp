// SPDX-License-Identifier: Apache-2.0
#include "vmm/file_filter.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>

namespace msb::vmm {
namespace {

// How a process ends that is restricted and then does `work`: wait(2)'s status.
int status_of(const std::function<int()>& work) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!restrict_to_files()) {
      ::_exit(99);
    }
    // Not _exit(3), before which a sanitizer does what is not allowed.
    ::syscall(SYS_exit_group, work());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

TEST_CASE("files can be worked on") {
  const int status = status_of([] {
    struct statx found{};
    const int directory = ::open("/tmp", O_PATH | O_CLOEXEC);
    const bool good = directory >= 0 &&
                      ::statx(directory, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &found) == 0 &&
                      S_ISDIR(found.stx_mode) && ::close(directory) == 0 &&
                      ::ioctl(-1, KVM_IRQ_LINE, nullptr) != 0 && errno == EBADF;
    return good ? 7 : 8;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 7);
}

TEST_CASE("anything else ends the process") {
  const std::function<int()> attempts[] = {
      [] { return ::socket(AF_INET, SOCK_STREAM, 0); },
      [] { return static_cast<int>(::syscall(SYS_execve, "/bin/true", nullptr, nullptr)); },
      [] { return static_cast<int>(::syscall(SYS_clone, 0, 0, 0, 0, 0)); },
      [] { return ::ioctl(0, KVM_RUN, 0); },
      [] { return static_cast<int>(::syscall(SYS_ptrace, 0, 0, 0, 0)); },
      [] { return static_cast<int>(::syscall(SYS_mount, 0, 0, 0, 0, 0)); },
      [] { return static_cast<int>(::syscall(SYS_io_uring_setup, 1, nullptr)); },
      [] { return static_cast<int>(::syscall(SYS_chroot, "/tmp")); },
      [] {
        return static_cast<int>(::syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_EXEC,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      },
  };
  for (const auto& attempt : attempts) {
    const int status = status_of(attempt);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGSYS);
  }
}

}  // namespace
}  // namespace msb::vmm
