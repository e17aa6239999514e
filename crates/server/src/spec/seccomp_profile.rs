// SPDX-License-Identifier: Apache-2.0
//! The built-in seccomp profile: what RuntimeDefault means.
//!
//! An allow list; everything else fails with EPERM. Left out are calls that reach beyond the
//! container (clocks, modules, keyrings, mounts, namespaces), old calls with a history of holes
//! (io_uring, userfaultfd) and what no program needs. A capability that the container holds brings
//! back the calls that it is about. Names that a processor or a libseccomp does not know are skipped
//! by the runtimes.

use oci_spec::runtime::{Capability, LinuxSeccompOperator};

use super::Arch;

/// Allowed always.
#[rustfmt::skip]
pub(super) const ALLOWED: &[&str] = &[
    // Files and directories.
    "access", "chdir", "chmod", "chown", "chown32", "close", "close_range", "copy_file_range", "creat",
    "cachestat", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate",
    "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64",
    "fdatasync", "fgetxattr", "file_getattr", "file_setattr", "flistxattr", "flock", "fremovexattr",
    "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate",
    "ftruncate64", "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "getxattrat", "ioctl",
    "lchown", "lchown32", "lgetxattr", "link", "linkat", "listmount", "listxattr", "listxattrat",
    "llistxattr", "_llseek", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "mkdir", "mkdirat",
    "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2", "pipe", "pipe2",
    "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir",
    "sendfile", "sendfile64", "setxattr", "setxattrat", "splice", "stat", "stat64", "statfs", "statfs64",
    "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate",
    "truncate64", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes",
    "vmsplice", "write", "writev",
    // Asynchronous input and output, waiting, notification.
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark", "inotify_add_watch",
    "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents",
    "io_pgetevents", "io_pgetevents_time64", "ioprio_get", "ioprio_set", "io_setup", "io_submit",
    "_newselect", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select", "signalfd",
    "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64",
    // Memory.
    "brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock",
    "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall",
    "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease", "remap_file_pages",
    // Processes, threads and their attributes.
    "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
    "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "getcpu", "getegid",
    "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getpgid",
    "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresgid32", "getresuid", "getresuid32",
    "getrlimit", "get_robust_list", "getrusage", "getsid", "get_thread_area", "gettid", "getuid",
    "getuid32", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self",
    "pause", "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "restart_syscall", "rseq", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_get_priority_max", "sched_get_priority_min",
    "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity",
    "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "setfsgid",
    "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setpgid",
    "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32",
    "setreuid", "setreuid32", "setrlimit", "set_robust_list", "setsid", "set_thread_area",
    "set_tid_address", "setuid", "setuid32", "sigaltstack", "sysinfo", "tgkill", "times", "tkill",
    "ugetrlimit", "uname", "uretprobe", "vfork", "wait4", "waitid", "waitpid",
    // Signals.
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigprocmask", "sigreturn",
    // Time: reading it, and timers.
    "adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64",
    "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer",
    "gettimeofday", "nanosleep", "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun",
    "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64",
    // Sockets; `socket` and `socketpair` by their address family, `socketcall` by the handler's policy.
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv",
    "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto",
    "setsockopt", "shutdown",
    // System V and POSIX messages, semaphores and shared memory: the pod has its own.
    "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64",
    "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl",
    "semget", "semop", "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
    // The rest.
    "getrandom",
];

/// Allowed on one kind of processor.
pub(super) const BY_ARCH: &[(Arch, &[&str])] = &[
    (Arch::X86_64, &["modify_ldt"]),
    (
        Arch::Aarch64,
        &[
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "sync_file_range2",
            "breakpoint",
            "cacheflush",
            "set_tls",
        ],
    ),
    (Arch::Riscv64, &["riscv_flush_icache", "riscv_hwprobe"]),
];

/// Allowed when the container holds the capability.
pub(super) const BY_CAPABILITY: &[(Capability, &[&str])] = &[
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (
        Capability::SysAdmin,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "finit_module", "init_module"]),
    (Capability::SysPacct, &["acct"]),
    (
        Capability::SysPtrace,
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    (Capability::SysRawio, &["ioperm", "iopl"]),
    (Capability::SysTime, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::SysNice, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (Capability::Syslog, &["syslog"]),
    (Capability::Bpf, &["bpf"]),
    (Capability::Perfmon, &["perf_event_open"]),
];

/// Before this kernel a traced process could slip out of its filter (seccomp(2), "PTRACE"): since
/// then tracing of the container's own processes is harmless.
pub(super) const PTRACE_SAFE_SINCE: (u32, u32) = (4, 8);

/// Values of personality(2) that are harmless: `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the
/// question which one it is. Not among them: `ADDR_NO_RANDOMIZE` and what else weakens a process.
pub(super) const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The address families of sockets that a container may make: each entry is a range of its own.
///
/// Left out are `AF_ALG` (38), the kernel's cryptography, which no container needs and which has been a way to root
/// (CVE-2026-31431), and `AF_VSOCK` (40), the sockets of virtual machines, which network namespaces do not confine.
///
/// No range may be open at its upper end, and none may be written as "not this one": of several rules for a call one that fits
/// is enough, so "not 38" would allow 40; and the filter sees 64 bits of an argument of which the kernel takes 32, so
/// "above 40" would allow 38 with a bit set further up.
pub(super) const SOCKET_FAMILIES: [(LinuxSeccompOperator, u64); 7] = [
    (LinuxSeccompOperator::ScmpCmpLt, 38),
    // AF_NFC.
    (LinuxSeccompOperator::ScmpCmpEq, 39),
    // AF_KCM, AF_QIPCRTR, AF_SMC, AF_XDP, AF_MCTP: the last that Linux 6.18 has.
    (LinuxSeccompOperator::ScmpCmpEq, 41),
    (LinuxSeccompOperator::ScmpCmpEq, 42),
    (LinuxSeccompOperator::ScmpCmpEq, 43),
    (LinuxSeccompOperator::ScmpCmpEq, 44),
    (LinuxSeccompOperator::ScmpCmpEq, 45),
];

/// Every `CLONE_NEW...` flag that clone(2) takes: mount, cgroup, uts, ipc, user, pid, network.
pub(super) const CLONE_NEW: u64 = 0x7e02_0000;
