// SPDX-License-Identifier: Apache-2.0
//! The pause: first process of a PID namespace that the containers of a pod share.
//!
//! It does two things: it reaps the processes that lose their parent, and it ends when it is told to.
//! Compiled by the build script into a static program of its own, without a standard library, because
//! one copy of it runs per pod and anything more would be paid for a hundred times on a node.
//!
//! ```text
//! start -> not dumpable -> block TERM, INT, CHLD -> wait for one of them --+
//!                                                    ^  CHLD: reap all     |
//!                                                    +---------------------+
//!                                                       TERM, INT: exit 0
//! ```
//! The signals are blocked, not handled: the first process of a namespace ignores what it has no handler
//! for, but a blocked signal stays pending and is taken by the wait.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]

use core::arch::asm;

#[cfg(target_arch = "x86_64")]
mod nr {
    pub const RT_SIGPROCMASK: usize = 14;
    pub const EXIT_GROUP: usize = 231;
    pub const WAIT4: usize = 61;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
}

/// The generic table, which newer processors share.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
mod nr {
    pub const RT_SIGPROCMASK: usize = 135;
    pub const EXIT_GROUP: usize = 94;
    pub const WAIT4: usize = 260;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const PRCTL: usize = 167;
}

const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const PR_SET_DUMPABLE: usize = 4;
const WNOHANG: usize = 1;
/// Any child, as an argument of wait4: -1.
const ANY_CHILD: usize = usize::MAX;
/// Bytes of the kernel's signal set.
const SIGSET_BYTES: usize = 8;

const WAITED_FOR: u64 = bit(SIGINT) | bit(SIGTERM) | bit(SIGCHLD);

const fn bit(signal: usize) -> u64 {
    1 << (signal - 1)
}

/// Where the kernel enters. There is no caller, no argument is read and nothing is returned to.
#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    let set: u64 = WAITED_FOR;
    let set_at = &raw const set as usize;
    // Nobody who shares the namespace may look into this process by /proc/1.
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::PRCTL, [PR_SET_DUMPABLE, 0, 0, 0]) };
    // SAFETY: `set` lives to the end, is as long as is said and is only read; the old set is not asked for.
    unsafe { syscall(nr::RT_SIGPROCMASK, [SIG_BLOCK, set_at, 0, SIGSET_BYTES]) };
    loop {
        // SAFETY: as above; neither details (0) nor a timeout (0) are passed.
        let signal = unsafe { syscall(nr::RT_SIGTIMEDWAIT, [set_at, 0, 0, SIGSET_BYTES]) };
        match usize::try_from(signal) {
            Ok(SIGINT | SIGTERM) => exit(),
            Ok(_) => reap(),
            // EINTR: a stop and a continue go through the wait. Nothing else can be, and going on is
            // better than ending, which would end the whole pod.
            Err(_) => {}
        }
    }
}

/// Several children may have ended for one signal.
fn reap() {
    loop {
        // SAFETY: no pointer is passed: neither status nor usage is asked for.
        let pid = unsafe { syscall(nr::WAIT4, [ANY_CHILD, 0, WNOHANG, 0]) };
        if pid <= 0 {
            return;
        }
    }
}

fn exit() -> ! {
    loop {
        // SAFETY: no pointer is passed. It does not return; the loop is for the type.
        unsafe { syscall(nr::EXIT_GROUP, [0, 0, 0, 0]) };
    }
}

/// Makes a system call.
///
/// # Safety
/// Arguments that the call takes for pointers must be valid for what it does with them.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, args: [usize; 4]) -> isize {
    let result;
    // SAFETY: the kernel's convention: number in rax, arguments in rdi, rsi, rdx, r10; rcx and r11 are
    // overwritten, the stack is not touched. The arguments are the caller's business.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Makes a system call.
///
/// # Safety
/// Arguments that the call takes for pointers must be valid for what it does with them.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, args: [usize; 4]) -> isize {
    let result;
    // SAFETY: the kernel's convention: number in x8, arguments in x0 to x3, result in x0; nothing else is
    // overwritten, the stack is not touched. The arguments are the caller's business.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3],
            options(nostack),
        );
    }
    result
}

/// Makes a system call.
///
/// # Safety
/// Arguments that the call takes for pointers must be valid for what it does with them.
#[cfg(target_arch = "riscv64")]
unsafe fn syscall(number: usize, args: [usize; 4]) -> isize {
    let result;
    // SAFETY: the kernel's convention: number in a7, arguments in a0 to a3, result in a0; nothing else is
    // overwritten, the stack is not touched. The arguments are the caller's business.
    unsafe {
        asm!(
            "ecall",
            in("a7") number,
            inlateout("a0") args[0] => result,
            in("a1") args[1], in("a2") args[2], in("a3") args[3],
            options(nostack),
        );
    }
    result
}

/// Demanded by the language. Nothing above can panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit()
}
