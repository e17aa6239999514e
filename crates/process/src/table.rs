// SPDX-License-Identifier: Apache-2.0
//! Who has been started and not yet reaped, and which ends nobody has asked for yet.
//!
//! ```text
//!            posix_spawn            owner or reaper: waitid            owner
//! (nothing) ------------> unreaped ---------------------------> slot ---------> told
//!            orphaned to us             reaper: waitid              adopted()
//! (foreign) ------------------------------------------> ended ----------------> told
//!                                                         | the oldest beyond ENDED_MAX
//!                                                         v
//!                                                      forgotten
//! ```
//!
//! Invariants, all under one mutex that is never held across a wait:
//! - a pid is in `unreaped` exactly from its registration until it is reaped, so a recycled number
//!   cannot meet the entry of its predecessor; who is reaped lives on in its [`Slot`] alone;
//! - every reaping happens under the mutex, so a pid found unreaped under it is still that process.
//!
//! The mutex is not held while a program starts: an exec from a hung volume must not stop the others.
//! The reaper may therefore reap a child before its owner registers it; the end then lies in `ended`
//! with a sequence number above the one that the owner noted before the start.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitOptions};
use tokio::sync::Notify;

use crate::{ExitStatus, pidfd, sys};

/// How many ends are kept for which nobody has asked.
const ENDED_MAX: usize = 4096;

/// After this time an unmatched end is not believed to be that of a pid read from a pid file just now:
/// where pids wrap at 32768 a busy node gets round in minutes.
const ENDED_TRUSTED: Duration = Duration::from_secs(60);

/// Woken each time that `ended` grew.
pub(crate) static ENDED_GREW: Notify = Notify::const_new();

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// Where the end of one child is put by whoever reaps it.
#[derive(Debug, Default)]
pub(crate) struct Slot(OnceLock<ExitStatus>);

#[derive(Debug, Default)]
struct Table {
    unreaped: HashMap<i32, Arc<Slot>>,
    ended: VecDeque<Ended>,
    sequence: u64,
}

#[derive(Debug)]
struct Ended {
    pid: i32,
    status: ExitStatus,
    sequence: u64,
    at: Instant,
}

/// Noted before a start, handed to [`register`] after it.
pub(crate) fn sequence() -> u64 {
    lock().sequence
}

/// Registers a child that was started after `since`; `setup` runs while its pid is sure to be its own.
///
/// The pidfd is `None` where the child had ended and been reaped already, and an error where it could
/// not be opened (`EMFILE`, ...): the child is registered all the same and must be got rid of.
pub(crate) fn register(
    pid: i32,
    since: u64,
    setup: impl FnOnce(Pid),
) -> (Arc<Slot>, io::Result<Option<OwnedFd>>) {
    let slot = Arc::new(Slot::default());
    let mut table = lock();
    if let Some(status) = table.take_ended(pid, |ended| ended.sequence > since) {
        let _ = slot.0.set(status);
        return (slot, Ok(None));
    }
    table.unreaped.insert(pid, slot.clone());
    let Some(raw) = pidfd::valid(pid) else {
        return (slot, Err(io::Error::from_raw_os_error(libc::ESRCH)));
    };
    setup(raw);
    let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty());
    (slot, pidfd.map(Some).map_err(Into::into))
}

/// The end of an own child, reaping it if that is due; `None` while it runs.
///
/// # Errors
/// `ECHILD` where other code reaped it and the kernel does not tell how it ended.
pub(crate) fn reap_owned(
    pid: i32,
    pidfd: Option<BorrowedFd<'_>>,
    slot: &Slot,
) -> io::Result<Option<ExitStatus>> {
    let mut table = lock();
    if let Some(status) = slot.get() {
        return Ok(Some(status));
    }
    let status = match (wait(id_of(pid, pidfd)?, WaitIdOptions::empty()), pidfd) {
        (Err(Errno::CHILD), Some(pidfd)) => sys::pidfd_exit_status(pidfd).ok_or(Errno::CHILD).map(Some),
        (other, _) => other,
    };
    // Gone in either case: the number may be used again.
    if !matches!(status, Ok(None)) {
        table.unreaped.remove(&pid);
    }
    let status = status?;
    if let Some(status) = status {
        let _ = slot.0.set(status);
    }
    Ok(status)
}

/// Blocks until a child has ended, without reaping it.
pub(crate) fn block_until_end(pid: i32, pidfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(id_of(pid, pidfd)?, options) {
            Err(Errno::INTR) => {}
            other => return other.map(|_| ()).map_err(Into::into),
        }
    }
}

/// Reaps every child that has ended. Only the reaper may: it takes children that others own.
pub(crate) fn reap_all() {
    let mut grew = false;
    loop {
        // The mutex is taken anew for each, so that owners need not wait for a long queue.
        let mut table = lock();
        let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
            Err(Errno::INTR) => continue,
            Ok(None) | Err(_) => break,
        };
        let status = ExitStatus::from_wait_status(status.as_raw());
        match table.unreaped.remove(&pid) {
            Some(slot) => drop(slot.0.set(status)),
            None => {
                table.push_ended(pid, status);
                grew = true;
            }
        }
    }
    if grew {
        ENDED_GREW.notify_waiters();
    }
}

/// Takes the end of a process that we did not start, if the reaper has met it.
pub(crate) fn take_ended(pid: i32) -> Option<ExitStatus> {
    let mut table = lock();
    // A child of ours that has this number now got it after the one in the table had lost it.
    let lives = !table.unreaped.contains_key(&pid)
        && id_of(pid, None).is_ok_and(|id| wait(id, WaitIdOptions::NOWAIT).is_ok());
    if lives {
        table.ended.retain(|ended| ended.pid != pid);
        return None;
    }
    table.take_ended(pid, |ended| ended.at.elapsed() < ENDED_TRUSTED)
}

/// Takes the end of a process that we did not start and that has ended, reaping it if it is our child by now.
pub(crate) fn reap_adopted(pid: i32, pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    let mut table = lock();
    if table.unreaped.contains_key(&pid) {
        return None;
    }
    match wait(WaitId::PidFd(pidfd), WaitIdOptions::empty()) {
        Ok(Some(status)) => Some(status),
        _ => table.take_ended(pid, |ended| ended.at.elapsed() < ENDED_TRUSTED),
    }
}

/// Forgets the end of a process that nobody will ask for.
pub(crate) fn forget(pid: i32) {
    lock().ended.retain(|ended| ended.pid != pid);
}

fn lock() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id_of(pid: i32, pidfd: Option<BorrowedFd<'_>>) -> io::Result<WaitId<'_>> {
    match (pidfd, pidfd::valid(pid)) {
        (Some(pidfd), _) => Ok(WaitId::PidFd(pidfd)),
        (None, Some(pid)) => Ok(WaitId::Pid(pid)),
        (None, None) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// `waitid` without blocking; `None` while the process runs.
fn wait(id: WaitId<'_>, options: WaitIdOptions) -> Result<Option<ExitStatus>, Errno> {
    loop {
        let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(id.clone(), options) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(status) => {
                return Ok(status.and_then(|status| {
                    let exited = status.exit_status().map(ExitStatus::Exited);
                    exited.or_else(|| status.terminating_signal().map(ExitStatus::Signaled))
                }));
            }
        }
    }
}

// === impl Slot ===

impl Slot {
    /// How the child ended, once it has been reaped.
    pub(crate) fn get(&self) -> Option<ExitStatus> {
        self.0.get().copied()
    }
}

// === impl Table ===

impl Table {
    fn push_ended(&mut self, pid: i32, status: ExitStatus) {
        self.ended.retain(|ended| ended.pid != pid);
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.sequence += 1;
        self.ended.push_back(Ended { pid, status, sequence: self.sequence, at: Instant::now() });
    }

    fn take_ended(&mut self, pid: i32, trusted: impl Fn(&Ended) -> bool) -> Option<ExitStatus> {
        let index = self.ended.iter().position(|ended| ended.pid == pid)?;
        let ended = self.ended.remove(index)?;
        trusted(&ended).then_some(ended.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmatched_ends_are_bounded_and_the_oldest_goes() {
        let mut table = Table::default();
        for pid in 1..=5000 {
            table.push_ended(pid, ExitStatus::Exited(pid % 256));
        }
        assert_eq!(table.ended.len(), ENDED_MAX);
        assert_eq!(table.take_ended(904, |_| true), None);
        assert_eq!(table.take_ended(905, |_| true), Some(ExitStatus::Exited(905 % 256)));
        assert_eq!(table.take_ended(905, |_| true), None, "told once");
    }

    #[test]
    fn the_later_end_of_a_recycled_pid_replaces_the_earlier() {
        let mut table = Table::default();
        table.push_ended(7, ExitStatus::Exited(1));
        let since = table.sequence;
        assert_eq!(table.take_ended(7, |ended| ended.sequence > since), None, "ended before the start");
        table.push_ended(7, ExitStatus::Exited(1));
        table.push_ended(7, ExitStatus::Exited(2));
        assert_eq!(table.take_ended(7, |ended| ended.sequence > since), Some(ExitStatus::Exited(2)));
        assert!(table.ended.is_empty());
    }
}
