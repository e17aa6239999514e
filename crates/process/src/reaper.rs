// SPDX-License-Identifier: Apache-2.0
//! Makes this process the reaper of its orphaned descendants.
//!
//! Only programs call [`install`], never a library: from then on every child of the process is
//! reaped here, also children that other code started by other means.
//!
//! One task waits for SIGCHLD and reaps everything that has ended. The end of a program that was
//! started by [`crate::Command`] goes to its [`crate::Child`]; the end of a process that was re-parented
//! to us goes to a table of the last 4096, until [`adopted`] asks for it.

use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Error, ExitStatus, Result, pidfd, sys, table};

static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

#[derive(Debug)]
struct Reaper {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// How long after the end of a process that is not our child its re-parenting is awaited.
const REPARENT_GRACE: Duration = Duration::from_secs(5);

/// Becomes a child subreaper and starts reaping. Idempotent. Must be called inside a tokio runtime.
///
/// # Errors
/// [`Error::Io`] where the kernel refuses either.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub fn install() -> Result<()> {
    let mut reaper = lock();
    if reaper.as_ref().is_some_and(Reaper::runs) {
        return Ok(());
    }
    // Listening starts before the first look, so no end falls between the two.
    let mut signals = signal(SignalKind::child())
        .map_err(|source| Error::Io { step: "cannot listen for SIGCHLD", source })?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| Error::Io { step: "cannot become a child subreaper", source: error.into() })?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        loop {
            table::reap_all();
            tokio::select! {
                () = stopped.cancelled() => break,
                signal = signals.recv() => if signal.is_none() { break },
            }
        }
    });
    *reaper = Some(Reaper { task, stop });
    Ok(())
}

/// Whether [`install`] was called, and its task runs.
pub fn is_installed() -> bool {
    lock().as_ref().is_some_and(Reaper::runs)
}

/// Stops reaping and waits until the task has ended; orphans still come to this process.
pub async fn shutdown() {
    let reaper = lock().take();
    if let Some(reaper) = reaper {
        reaper.stop.cancel();
        let _ = reaper.task.await;
    }
}

/// Waits for the end of a process that was re-parented to us, given its pid as read from a pid file;
/// it may have ended and been reaped already: the reaper keeps the last unmatched ends in a bounded table.
/// `None` when it does not end within `timeout` (`None`: no limit) or nobody knows about it.
///
/// Ask within a minute of the end: an older one is taken for that of an earlier process with this pid.
/// Each end is told once. Cancel-safe: an end that was not told stays in the table.
pub async fn adopted(pid: i32, timeout: Option<Duration>) -> Option<ExitStatus> {
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, wait_adopted(pid)).await.ok().flatten(),
        None => wait_adopted(pid).await,
    }
}

/// Drops the end of a process re-parented to us for which nobody will ask.
pub fn forget(pid: i32) {
    table::forget(pid);
}

async fn wait_adopted(pid: i32) -> Option<ExitStatus> {
    if let Some(status) = table::take_ended(pid) {
        return Some(status);
    }
    let pidfd = match pidfd::open(pid) {
        Ok(Some(pidfd)) => pidfd,
        // Reaped between the two looks, or never there.
        Ok(None) => return table::take_ended(pid),
        Err(error) => {
            tracing::warn!(pid, %error, "the end of an adopted process cannot be awaited");
            return None;
        }
    };
    if let Err(error) = pidfd::readable(pidfd.as_fd()).await {
        tracing::warn!(pid, %error, "the end of an adopted process cannot be awaited");
        return None;
    }
    let mut grace = pin!(tokio::time::sleep(REPARENT_GRACE));
    loop {
        // Enabled before the look, so that an end that comes after it wakes us.
        let mut grew = pin!(table::ENDED_GREW.notified());
        grew.as_mut().enable();
        let status =
            table::reap_adopted(pid, pidfd.as_fd()).or_else(|| sys::pidfd_exit_status(pidfd.as_fd()));
        if status.is_some() {
            return status;
        }
        // Its own parent still lives and has not reaped it; it comes to us when that parent ends.
        tokio::select! {
            () = grew => {}
            () = &mut grace => return sys::pidfd_exit_status(pidfd.as_fd()),
        }
    }
}

fn lock() -> MutexGuard<'static, Option<Reaper>> {
    REAPER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reaper {
    fn runs(&self) -> bool {
        !self.task.is_finished()
    }
}
