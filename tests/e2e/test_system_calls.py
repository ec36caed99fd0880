# SPDX-License-Identifier: Apache-2.0
"""The guest's kernel has every system call that an image may make under Docker's default seccomp profile."""

import re
import subprocess

import pytest
from conftest import REPOSITORY, TIMEOUT, Vmm
from raw_tar import RawTar, write_image

# The names that Docker's default profile allows on amd64, those for which it wants a capability included: a guest's root
# has all of them. Names of other architectures and of 32-bit programs are left out.
ALLOWED = """
accept accept4 access acct adjtimex alarm arch_prctl bind bpf brk cachestat capget capset chdir chmod chown chroot clock_adjtime
clock_getres clock_gettime clock_nanosleep clock_settime clone clone3 close close_range connect copy_file_range creat
delete_module dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_init
fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr finit_module flistxattr flock fork
fremovexattr fsconfig fsetxattr fsmount fsopen fspick fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv
futex_wake futimesat get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid
getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
getsid getsockname getsockopt gettid gettimeofday getuid getxattr init_module inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit io_uring_enter io_uring_register
io_uring_setup ioctl ioperm iopl ioprio_get ioprio_set kcmp kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr llistxattr lookup_dcookie lremovexattr lseek
lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat madvise map_shadow_stack mbind membarrier memfd_create
memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mount mount_setattr move_mount mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock
munlockall munmap name_to_handle_at nanosleep newfstatat open open_by_handle_at open_tree openat openat2 pause perf_event_open
personality pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64
preadv preadv2 prlimit64 process_madvise process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev
pwritev2 quotactl quotactl_fd read readahead readlink readlinkat readv reboot recvfrom recvmmsg recvmsg remap_file_pages
removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_mempolicy
set_mempolicy_home_node set_robust_list set_thread_area set_tid_address setdomainname setfsgid setfsuid setgid setgroups
sethostname setitimer setns setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt settimeofday
setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice stat statfs
statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo syslog tee tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask umount2
uname unlink unlinkat unshare utime utimensat utimes vfork vhangup vmsplice wait4 waitid write writev
""".split()

# Those of them that say ENOSYS here, and why.
NONE_ANYWHERE = "no Linux kernel of this age has it on amd64"
NO_MODULES = "the kernel is one image without modules (base.config)"
NO_NODES = "one memory node (memory.config); Docker's profile refuses it without CAP_SYS_NICE, so programs cope"
MISSING = {
    "epoll_ctl_old": NONE_ANYWHERE, "epoll_wait_old": NONE_ANYWHERE, "get_thread_area": NONE_ANYWHERE,
    "set_thread_area": NONE_ANYWHERE, "lookup_dcookie": NONE_ANYWHERE,
    "init_module": NO_MODULES, "finit_module": NO_MODULES, "delete_module": NO_MODULES,
    "get_mempolicy": NO_NODES, "mbind": NO_NODES, "set_mempolicy": NO_NODES, "set_mempolicy_home_node": NO_NODES,
    "quotactl": "disk quotas: the writable layer is one sandbox's", "quotactl_fd": "disk quotas, see quotactl",
    "acct": "process accounting to a file, which nothing reads; Docker's profile refuses it without CAP_SYS_PACCT",
    "map_shadow_stack": "shadow stacks of users need CET, which KVM has for guests only lately; who uses them asks CPUID first",
    "iopl": "a machine without ports worth it (syscalls.config)", "ioperm": "a machine without ports worth it (syscalls.config)",
}

# Younger than the headers that the test may find: include/uapi/asm-generic/unistd.h.
YOUNG = {"set_mempolicy_home_node": 450, "cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453, "futex_wake": 454,
         "futex_wait": 455, "futex_requeue": 456, "statmount": 457, "listmount": 458, "lsm_get_self_attr": 459,
         "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462}


@pytest.fixture
def numbers():
    header = subprocess.run(["cc", "-E", "-dM", "-include", "asm/unistd_64.h", "-x", "c", "/dev/null"], capture_output=True,
                            check=True, text=True).stdout
    return YOUNG | {name: int(number) for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", header, re.MULTILINE)}


def test_no_system_call_that_containers_may_make_is_missing_without_a_reason(tmp_path, numbers):
    program = tmp_path / "syscall_probe"
    subprocess.run(["musl-gcc", "-std=gnu11", "-O2", "-static", "-o", program, REPOSITORY / "tests/syscall_probe.c"],
                   check=True, timeout=TIMEOUT)
    image = write_image(tmp_path / "layout", [RawTar().file("syscall_probe", program.read_bytes(), mode=0o755)])
    names = {numbers[name]: name for name in ALLOWED}
    result = Vmm(tmp_path / "home").run("/syscall_probe", *map(str, sorted(names)), image=image)
    assert (result.returncode, result.stderr) == (0, b"")
    *missing, end = result.stdout.decode().split()
    assert end == "end"
    assert {names[int(number)] for number in missing} == set(MISSING)
