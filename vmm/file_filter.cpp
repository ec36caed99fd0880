// SPDX-License-Identifier: Apache-2.0
#include "vmm/file_filter.hpp"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <seccomp.h>
#include <sys/mman.h>

#include <memory>

namespace msb::vmm {

namespace {

// What virtio/fs asks the host for.
constexpr int kFileCalls[] = {
    SCMP_SYS(chmod),       SCMP_SYS(close),     SCMP_SYS(copy_file_range),
    SCMP_SYS(fallocate),   SCMP_SYS(fchownat),  SCMP_SYS(fcntl),
    SCMP_SYS(fstat),       SCMP_SYS(fstatfs),   SCMP_SYS(ftruncate),
    SCMP_SYS(getdents64),  SCMP_SYS(getxattr),  SCMP_SYS(lgetxattr),
    SCMP_SYS(linkat),      SCMP_SYS(listxattr), SCMP_SYS(lseek),
    SCMP_SYS(mkdirat),     SCMP_SYS(mknodat),   SCMP_SYS(newfstatat),
    SCMP_SYS(open),        SCMP_SYS(openat),    SCMP_SYS(openat2),
    SCMP_SYS(preadv2),     SCMP_SYS(pwritev2),  SCMP_SYS(readlinkat),
    SCMP_SYS(removexattr), SCMP_SYS(renameat2), SCMP_SYS(setxattr),
    SCMP_SYS(statx),       SCMP_SYS(symlinkat), SCMP_SYS(syncfs),
    SCMP_SYS(unlinkat),    SCMP_SYS(utimensat), SCMP_SYS(flock),
};
// What any thread of ours does: memory, locks, the eventfd of the loop, its end.
constexpr int kThreadCalls[] = {
    SCMP_SYS(brk),          SCMP_SYS(clock_gettime),  SCMP_SYS(exit),
    SCMP_SYS(exit_group),   SCMP_SYS(futex),          SCMP_SYS(getpid),
    SCMP_SYS(gettid),       SCMP_SYS(madvise),        SCMP_SYS(munmap),
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sched_yield),  SCMP_SYS(tgkill),         SCMP_SYS(write),
    SCMP_SYS(writev),
};

}  // namespace

Result<void> restrict_to_files() {
  const std::unique_ptr<void, decltype(&::seccomp_release)> filter(
      ::seccomp_init(SCMP_ACT_KILL_PROCESS), &::seccomp_release);
  if (filter == nullptr) {
    return fail("cannot make a filter of system calls");
  }
  int status = 0;
  const auto allow = [&](int call) {
    if (status == 0) {
      status = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0);
    }
  };
  for (const int call : kFileCalls) {
    allow(call);
  }
  for (const int call : kThreadCalls) {
    allow(call);
  }
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) {
    if (status == 0) {
      status = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 1,
                                  scmp_arg_cmp{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0});
    }
  }
  if (status == 0) {  // the guest's interrupt: vmm/kvm.cpp
    status = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                scmp_arg_cmp{1, SCMP_CMP_EQ, KVM_IRQ_LINE, 0});
  }
  if (status == 0) {
    status = ::seccomp_load(filter.get());
  }
  if (status != 0) {
    return fail_errno(-status, "cannot restrict what the thread that works on files may do");
  }
  return {};
}

}  // namespace msb::vmm
