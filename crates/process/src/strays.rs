// SPDX-License-Identifier: Apache-2.0
//! What a program left behind although it failed, and outside its process group: a `setsid` child, a daemon.
//!
//! A group kill does not find it, and its parent is gone. What remains is what it inherited: each program gets a variable
//! of its own into its environment, and whoever still has it in the one that it was started with is its offspring. (One
//! that starts its daemon with an emptied environment is not found; conmon's sweep works by the same means.)
//!
//! ```text
//! found by the mark -> held by pidfd -> still has the mark? -> SIGKILL    again, until nobody is found
//! ```

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Pidfd, ProcessId};

/// The variable.
const MARK: &str = "HULL_STARTED";
/// What forks faster than it is killed is given up after so many looks.
const LOOKS: u32 = 50;
/// Between two looks: what was killed needs a moment to be gone.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a caller waits for it; the looks go on in the background.
const PATIENCE: Duration = Duration::from_secs(2);

/// The offspring of one program.
#[derive(Debug, Clone)]
pub struct Strays {
    value: String,
}

impl Strays {
    /// Of the program that is about to be started with [`Strays::variable`].
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // This process: the number alone may be that of one which died before.
        static START: OnceLock<u64> = OnceLock::new();
        let pid = std::process::id();
        // Asked again next time where it cannot be read now (no descriptor is left).
        let read = || ProcessId::of(pid.cast_signed()).map(|it| *START.get_or_init(|| it.start_time));
        let start = START.get().copied().or_else(read).unwrap_or_default();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { value: format!("{pid}.{start}.{number}") }
    }

    /// What goes into its environment.
    pub(crate) fn variable(&self) -> (OsString, OsString) {
        (MARK.into(), self.value.clone().into())
    }

    /// Kills all of it; answers when it is gone, or after two seconds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn end(&self) {
        let entry = self.entry();
        let ended = tokio::task::spawn_blocking(move || end(&entry));
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            tracing::warn!("what a failed program left behind is not gone yet");
        }
    }

    /// As [`Strays::end`], in the background and also without a runtime.
    pub(crate) fn end_in_background(&self) {
        let entry = self.entry();
        let thread = std::thread::Builder::new().name("strays".to_owned()).stack_size(128 << 10);
        if let Err(error) = thread.spawn(move || end(&entry)) {
            tracing::warn!(%error, "no thread to end what a cancelled program left behind");
        }
    }

    fn entry(&self) -> Vec<u8> {
        let (mut key, value) = self.variable();
        key.push("=");
        key.push(value);
        key.into_vec()
    }
}

fn end(entry: &[u8]) {
    for _ in 0..LOOKS {
        let found = find(entry);
        if found.is_empty() {
            return;
        }
        for process in found {
            kill(process, entry);
        }
        std::thread::sleep(PAUSE);
    }
    tracing::warn!("a failed program goes on starting others");
}

fn find(entry: &[u8]) -> Vec<ProcessId> {
    let own = std::process::id().cast_signed();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    // A zombie has no environment any more.
    pids.filter(|pid| *pid != own && started_with(*pid, entry)).filter_map(ProcessId::of).collect()
}

fn kill(process: ProcessId, entry: &[u8]) {
    let sent = match Pidfd::open(process) {
        // Looked at again while it is held: the number may have been given to somebody else.
        Ok(Some(pidfd)) if started_with(process.pid, entry) => pidfd.send_signal(libc::SIGKILL).map(drop),
        Ok(_) => return,
        Err(error) => Err(error),
    };
    match sent {
        Ok(()) => tracing::warn!(pid = process.pid, "ended what a failed program left behind"),
        Err(error) => {
            tracing::warn!(pid = process.pid, %error, "cannot end what a failed program left behind")
        }
    }
}

/// Whether a process was started with this entry (`KEY=VALUE`) in its environment; also `false` where that cannot be read.
pub fn started_with(pid: i32, entry: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|one| one == entry)
}
