// SPDX-License-Identifier: Apache-2.0
//! Killing everything in a cgroup.
//!
//! ```text
//!   round: cgroup.kill (version 2) -> SIGKILL by pidfd to all that is listed -> thaw (version 1)
//!     |         populated, before the deadline: wait for cgroup.events, or on version 1 a growing pause
//!     +<----------------------------------+
//!     | empty                             | deadline
//!     v                                   v
//!    Ok                            Error::Populated
//! ```
//!
//! `cgroup.kill` (Linux 5.14) also catches what is being forked. Version 1 has nothing like it: what forks
//! faster than it is killed is frozen first from the third round on.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, timeout};

use crate::file::{self, io_error};
use crate::layout::Layout;
use crate::watch::Watch;
use crate::{Error, Result, path, walk};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The round from which on a version 1 cgroup is frozen while it is killed.
const FREEZE_FROM: u32 = 3;

/// How many processes are held at once: each takes a descriptor.
const HELD_AT_ONCE: usize = 256;

pub(crate) async fn kill(layout: &Layout, path: &Path, deadline: Duration) -> Result<()> {
    let below = path::below_root(path)?;
    let until = Instant::now() + deadline.min(Duration::from_secs(24 * 3600));
    // Without doubt about the daemon itself before anything is signalled.
    refuse_self(path, &walk::processes(layout, path)?)?;
    let v2 = layout.v2.as_deref().map(|root| root.join(&below));
    let watch = match &v2 {
        Some(dir) => Watch::new(dir).map_err(|source| io_error("cannot watch", dir, source))?,
        None => None,
    };
    let mut pause = FIRST_PAUSE;
    for round in 1u32.. {
        if !walk::is_populated(layout, path)? {
            return Ok(());
        }
        let by_kernel = v2.as_deref().is_some_and(kill_by_kernel);
        kill_by_pid(layout, path, &below, round >= FREEZE_FROM)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match &watch {
            // The kernel kills all of it, and tells when that is done. In hybrid mode what lives in
            // version 1 alone is met again in the next round.
            Some(watch) if by_kernel && will_tell(v2.as_deref()) => {
                let emptied = timeout(left, watch.emptied()).await;
                let dir = v2.as_deref().unwrap_or(path);
                emptied.unwrap_or(Ok(())).map_err(|source| io_error("cannot watch", dir, source))?;
            }
            // An older kernel: what forked meanwhile needs another round, the end needs none.
            Some(watch) if will_tell(v2.as_deref()) => {
                let _ = timeout(pause.min(left), watch.emptied()).await;
            }
            _ => tokio::time::sleep(pause.min(left)).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let pids: Vec<_> = walk::processes(layout, path)?.into_iter().collect();
    if pids.is_empty() && !walk::is_populated(layout, path)? {
        return Ok(());
    }
    Err(Error::Populated { path: path.to_owned(), after: deadline, pids })
}

/// Whether something lives in the version 2 tree, so that its event will come.
fn will_tell(dir: Option<&Path>) -> bool {
    dir.is_some_and(|dir| matches!(walk::events(dir), Ok(Some(true))))
}

fn refuse_self(path: &Path, pids: &BTreeSet<i32>) -> Result<()> {
    if pids.contains(&std::process::id().cast_signed()) {
        return Err(Error::InvalidPath { path: path.to_owned(), problem: "it holds the calling process" });
    }
    Ok(())
}

/// Has the kernel kill the tree; `false` where it does not know how, or there is no tree.
fn kill_by_kernel(dir: &Path) -> bool {
    match file::write(&dir.join("cgroup.kill"), "1") {
        Ok(()) => true,
        Err(error) => {
            if !file::is_gone(&error) {
                tracing::debug!(cgroup = %dir.display(), %error, "cgroup.kill is refused; killing one by one");
            }
            false
        }
    }
}

fn kill_by_pid(layout: &Layout, path: &Path, below: &Path, freeze: bool) -> Result<()> {
    let pids: Vec<_> = walk::processes(layout, path)?.into_iter().collect();
    let freezers = match layout.v1_root("freezer").map(|root| root.join(below)) {
        Some(dir) if dir.is_dir() => walk::tree(&dir)?,
        _ => Vec::new(),
    };
    if freeze && let Some(top) = freezers.first() {
        set_freezer(top, "FROZEN");
    }
    let mut result = Ok(());
    for pids in pids.chunks(HELD_AT_ONCE) {
        let killed = kill_held(layout, path, pids);
        result = result.and(killed);
    }
    // In any case: on version 1 a frozen process does not even take SIGKILL.
    for dir in freezers.iter().filter(|dir| !is_thawed(dir)) {
        set_freezer(dir, "THAWED");
    }
    result
}

/// Signals those that are in the cgroup still after they have been opened: these are no recycled pids.
fn kill_held(layout: &Layout, path: &Path, pids: &[i32]) -> Result<()> {
    let held: Vec<(i32, OwnedFd)> =
        pids.iter().filter_map(|pid| open(*pid).transpose()).collect::<Result<_>>()?;
    let still = walk::processes(layout, path)?;
    refuse_self(path, &still)?;
    let mut result = Ok(());
    for (pid, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
        let killed = hull_failpoint::failpoint!("cgroups.kill.signal")
            .and_then(|()| pidfd_send_signal(pidfd, Signal::KILL).map_err(io::Error::from));
        match killed {
            Err(source) if source.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
                result = result.and(Err(process_error("cannot kill", *pid, source)));
            }
            _ => {}
        }
    }
    result
}

fn open(pid: i32) -> Result<Option<(i32, OwnedFd)>> {
    let Some(raw) = (if pid > 0 { Pid::from_raw(pid) } else { None }) else { return Ok(None) };
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some((pid, pidfd))),
        // Gone, or the number has become that of a thread.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(process_error("cannot open the process", pid, error.into())),
    }
}

fn process_error(step: &'static str, pid: i32, source: io::Error) -> Error {
    Error::Io { step, path: PathBuf::from(format!("/proc/{pid}")), source }
}

fn is_thawed(dir: &Path) -> bool {
    !matches!(file::read(&dir.join("freezer.state")), Ok(Some(state)) if state.trim() != "THAWED")
}

fn set_freezer(dir: &Path, state: &str) {
    if let Err(error) = file::write(&dir.join("freezer.state"), state)
        && !file::is_gone(&error)
    {
        tracing::warn!(cgroup = %dir.display(), state, %error, "the freezer does not obey");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[tokio::test]
    async fn a_missing_or_empty_cgroup_is_killed_already() {
        for tree in [Tree::v1(), Tree::hybrid(), Tree::v2()] {
            tree.cgroups().kill(Path::new("/c"), Duration::ZERO).await.unwrap();
            tree.cgroups().create(Path::new("/c")).unwrap();
            tree.cgroups().kill(Path::new("/c"), Duration::ZERO).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_root_and_the_own_cgroup_are_never_killed() {
        let tree = Tree::v1();
        for path in ["/", "/.", "/a/..", "relative"] {
            let error = tree.cgroups().kill(Path::new(path), Duration::ZERO).await.unwrap_err();
            assert!(matches!(error, Error::InvalidPath { .. }), "{path}: {error}");
        }
        tree.put("pids/c/sub/cgroup.procs", &format!("{}\n", std::process::id()));
        let error = tree.cgroups().kill(Path::new("/c"), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("it holds the calling process"), "{error}");
    }

    #[tokio::test]
    async fn what_does_not_end_is_named_at_the_deadline_and_was_thawed() {
        let tree = Tree::v1();
        // The fake tree goes on listing what is gone: as a process would that sleeps on a hung volume.
        tree.put("pids/c/cgroup.procs", "2147483646\n");
        tree.put("freezer/c/x/freezer.state", "FROZEN\n");
        let error = tree.cgroups().kill(Path::new("/c"), Duration::from_millis(30)).await.unwrap_err();
        assert!(
            matches!(&error, Error::Populated { pids, after, .. }
                if *pids == [2147483646] && *after == Duration::from_millis(30)),
            "{error}"
        );
        assert_eq!(tree.get("freezer/c/x/freezer.state"), "THAWED\n");
    }
}
