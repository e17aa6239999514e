// SPDX-License-Identifier: Apache-2.0
//! A program that was started.
//!
//! ```text
//!              wait: pidfd readable, status taken
//!  running ------------------------------------------> told    drop does nothing more
//!     | drop                       | detach
//!     v                            v
//!  SIGKILL to the group         left alone      both: reaped in the background
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::pidfd::{ProcessId, readable};
use crate::strays::Strays;
use crate::table::{self, Slot};
use crate::{Error, Result, reaper, sys};

/// A program that was started. Dropping it kills its process group and has it reaped in the background.
///
/// Once [`Child::wait`] has told its end, dropping kills nothing: what it left in its group lives on.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    /// `None` where it ended and was reaped before it could be opened: then the slot is filled.
    pidfd: Option<OwnedFd>,
    slot: Arc<Slot>,
    told: Option<ExitStatus>,
    kill_on_drop: bool,
    strays: Strays,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
}

/// How long to wait between looks at a process that a debugger keeps from its parent.
const TRACED_RETRY: Duration = Duration::from_millis(50);

impl Child {
    pub(crate) fn new(pid: i32, pidfd: Option<OwnedFd>, slot: Arc<Slot>, strays: Strays) -> Self {
        Self { pid, pidfd, slot, told: None, kill_on_drop: true, strays }
    }

    /// What it started and a group kill does not find: for who ends it because it failed.
    pub fn strays(&self) -> Strays {
        self.strays.clone()
    }

    /// The process's id; its process group has the same number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The process, named so that it can be recognised after a restart; `None` once it has been reaped.
    pub fn id(&self) -> Option<ProcessId> {
        // A recycled number cannot answer here: until it is reaped, the pid is its own.
        let id = ProcessId::of(self.pid);
        if self.slot.get().is_some() { None } else { id }
    }

    /// Waits for its end. Cancel-safe; after the first answer it answers the same again.
    ///
    /// # Errors
    /// [`Error::Io`] where the pidfd cannot be watched, or where other code of this process reaped
    /// the child and the kernel does not tell how it ended.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            match &self.pidfd {
                Some(pidfd) => readable(pidfd.as_fd()).await?,
                // Unreachable by construction; bounded all the same.
                None => return Err(wait_error(io::Error::from_raw_os_error(libc::ECHILD))),
            }
            if self.try_wait()?.is_none() {
                // A tracer is told of the end before the parent, and no event says when it lets go.
                tokio::time::sleep(TRACED_RETRY).await;
            }
        }
    }

    /// How it ended, if it has; does not wait.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.told.is_none() {
            self.told = table::reap_owned(self.pid, self.pidfd(), &self.slot).map_err(wait_error)?;
        }
        Ok(self.told)
    }

    /// Signals its process group; a group that is gone is a success.
    ///
    /// # Errors
    /// [`Error::Io`]: no such signal, or not permitted for any member (`EPERM`).
    pub fn kill_group(&self, signal: i32) -> Result<()> {
        match self.signal_group(signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.map_err(|source| Error::Io { step: "cannot signal a process group", source }),
        }
    }

    /// Lets it live on: dropping no longer kills. It is still reaped.
    pub fn detach(mut self) {
        self.kill_on_drop = false;
    }

    fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    fn signal_group(&self, signal: i32) -> io::Result<()> {
        if let Some(pidfd) = self.pidfd() {
            match sys::pidfd_send_signal(pidfd, signal, true) {
                // Before Linux 6.9 the flag is unknown.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                other => return other,
            }
        }
        // Once the leader is reaped its number may name a stranger. Members that remain keep the number
        // from being given out, so a living process of that number proves that they are all gone.
        if self.slot.get().is_some() && ProcessId::of(self.pid).is_some() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        sys::kill_group(self.pid, signal)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.told.is_some() {
            return;
        }
        if self.kill_on_drop
            && let Err(error) = self.kill_group(libc::SIGKILL)
        {
            tracing::warn!(pid = self.pid, %error, "a dropped program could not be killed");
        }
        // With a reaper the entry in the table is enough.
        if reaper::is_installed() || !matches!(self.try_wait(), Ok(None)) {
            return;
        }
        reap_in_background(self.pid, self.pidfd.take(), self.slot.clone());
    }
}

/// Reaps a child that nobody waits for: on a thread, because there may be no runtime, or one that is
/// shutting down. The thread ends with the child; only programs without a reaper get here.
fn reap_in_background(pid: i32, pidfd: Option<OwnedFd>, slot: Arc<Slot>) {
    let reap = move || {
        let pidfd = pidfd.as_ref().map(AsFd::as_fd);
        let ended = table::block_until_end(pid, pidfd);
        if let Err(error) = ended.and_then(|()| table::reap_owned(pid, pidfd, &slot)) {
            tracing::debug!(pid, %error, "a program was reaped by others");
        }
    };
    let thread = std::thread::Builder::new().name(format!("reap-{pid}")).stack_size(128 << 10);
    if let Err(error) = thread.spawn(reap) {
        tracing::warn!(pid, %error, "no thread to reap a program; it stays a zombie until this process ends");
    }
}

fn wait_error(source: io::Error) -> Error {
    Error::Io { step: "cannot wait for a program", source }
}

impl ExitStatus {
    /// From the status word of `wait(2)`.
    pub(crate) fn from_wait_status(word: i32) -> Self {
        match word & 0x7f {
            0 => Self::Exited((word >> 8) & 0xff),
            signal => Self::Signaled(signal),
        }
    }

    /// The code as a shell tells it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signaled(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_status_word() {
        for (word, status, code) in [
            (0x0000, ExitStatus::Exited(0), 0),
            (0x0700, ExitStatus::Exited(7), 7),
            (0xff00, ExitStatus::Exited(255), 255),
            (0x0009, ExitStatus::Signaled(9), 137),
            (0x008b, ExitStatus::Signaled(11), 139),
        ] {
            assert_eq!(ExitStatus::from_wait_status(word), status);
            assert_eq!(status.code(), code);
        }
        assert!(ExitStatus::Exited(0).success() && !ExitStatus::Signaled(9).success());
    }
}
