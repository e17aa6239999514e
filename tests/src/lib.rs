// SPDX-License-Identifier: Apache-2.0
//! The harness of the suites in `tests/tests/`: they run the real binary `hull`, speak CRI to it as the
//! kubelet does, break what can break, and check that nothing is left.
//!
//! ```no_run
//! # async fn example() {
//! use hull_tests::{Pod, Setup};
//! let daemon = Setup::mock().start().await;
//! let cri = daemon.cri().await;
//! let pod = Pod::new(&daemon, "web");
//! let id = cri.run_pod(&pod.config, "").await.unwrap();
//! cri.remove_pod(&id).await.unwrap();
//! daemon.assert_nothing_left().await;
//! # }
//! ```
//!
//! Invariants: everything of one daemon lies in one private directory and, for the real parts, in one
//! private network namespace and below one cgroup, all of them named after it. When a [`Daemon`] is
//! dropped, what it and its pods still run is killed and what is still mounted is unmounted, so that one
//! failed test does not spoil the next. Helpers panic: that is how a test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by a panic and speaks through the terminal"
)]

pub mod bystander;
pub mod census;
pub mod cgroups;
pub mod chaos;
pub mod cni;
mod config;
mod cri;
mod daemon;
mod dice;
mod fuse;
mod hostnet;
pub mod images;
pub mod misbehave;
pub mod odd;
mod operator;
mod pods;
pub mod points;
mod programs;
pub mod raw;
mod reboot;
pub mod runtimes;
mod smallfs;
pub mod standins;
pub mod storm;
pub mod streams;

use std::io::Write;

pub use cri::Cri;
pub use daemon::{Daemon, Setup};
pub use dice::Dice;
pub use fuse::{Answers, FuseFs};
pub use hostnet::HostNet;
pub use operator::Said;
pub use pods::{Container, IMAGE, Pod};
#[cfg(target_arch = "x86_64")]
pub use programs::syscall_probe;
pub use programs::{program, tool};
pub use smallfs::{Lack, SmallFs};

/// Whether the suites that need root may run. They print why they do not.
///
/// # Panics
/// When they were asked for (`HULL_ROOT_TESTS=1`) and cannot: not root, or a program is missing.
pub fn root_tests_enabled() -> bool {
    if std::env::var("HULL_ROOT_TESTS").as_deref() != Ok("1") {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return false;
    }
    assert_eq!(uid(), 0, "HULL_ROOT_TESTS=1 needs root");
    for name in ["runc", "crun", "conmon", "ip", "unshare", "nsenter", "mount", "umount"] {
        tool(name);
    }
    cni::plugin_dir();
    true
}

/// The effective user id.
///
/// # Panics
/// Without /proc.
pub fn uid() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find(|line| line.starts_with("Uid:")).expect("a Uid line");
    line.split_whitespace().nth(2).and_then(|word| word.parse().ok()).expect("an effective uid")
}

/// Says that one check passed on a real runtime; `cargo xtask test` counts these lines.
///
/// Written past libtest's capture, which hides what passing tests print, as is [`say`]'s.
pub fn real_runtime_ok(handler: &str, name: &str) {
    say(&format!("real-runtime: {handler} ok {name}"));
}

/// Says what a reader of the results wants to know of a test that passed: a measurement, a table.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A number that no other call in any process of this machine gives: for names of links, cgroups, uids.
pub fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{:x}x{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks again until the answer is `Ok`; panics with the last `Err` after the deadline.
///
/// For what another process does in its own time and tells nobody: a process ending, an undo.
///
/// # Panics
/// After the deadline.
pub async fn eventually<T>(
    deadline: std::time::Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let end = tokio::time::Instant::now() + deadline;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(problem) if tokio::time::Instant::now() >= end => {
                panic!("{what}: not within {deadline:?}: {problem}")
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}
