// SPDX-License-Identifier: Apache-2.0
//! The fifos of conmon, and the two things it can be told through them.
//!
//! ```text
//! ctl      "1 <rows> <columns>\n"    set the terminal's size: conmon writes the next line to its own winsz
//! ctl      "2 0 0\n"                 open a new log
//! winsz    "<rows> <columns>\n"      set the terminal's size, at once
//! ```
//! conmon 2.1.6 reads up to 200 bytes and, when these hold two lines, does the first one twice and the
//! second one never. So a line is written only when the fifo is empty: conmon has then taken the line
//! before it and will read this one by itself. That does not help a size on its second hop, where conmon does
//! not look; so sizes go straight to `winsz`, and through `ctl` only where a conmon has no `winsz`.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hull_failpoint::failpoint_async;
use rustix::fs::{FileType, Mode, OFlags};
use tokio::time::Instant;

use super::version::Version;
use super::{ConmonMonitor, files};
use crate::{Error, Monitored, Result, TerminalSize};

/// The largest size that conmon 2.2 accepts.
const LARGEST_SIZE: u16 = 1000;

/// Between two looks at a fifo that is not empty: its becoming empty is no event. conmon reads within
/// microseconds, so this happens only to lines sent in quick succession.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// One turn at a time for each container's fifo. Nothing but sending lines ever waits for a turn, and
/// each holder is bounded by the configured deadline.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    pub(super) async fn take(&self, id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(id.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    pub(super) fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl ConmonMonitor {
    pub(super) async fn send_size(&self, container: &Monitored, size: TerminalSize) -> Result<()> {
        let mut size = size;
        let is_large = size.rows > LARGEST_SIZE || size.columns > LARGEST_SIZE;
        if is_large && self.version().await.is_ok_and(|version| version >= Version::BOUNDS_SIZES) {
            size =
                TerminalSize { rows: size.rows.min(LARGEST_SIZE), columns: size.columns.min(LARGEST_SIZE) };
        }
        let _turn = self.ctl.take(&container.id).await;
        let files = files(container);
        let line = format!("{} {}\n", size.rows, size.columns);
        if files.winsz().exists() {
            self.write(container, &files.winsz(), &line).await
        } else {
            self.write(container, &files.ctl(), &format!("1 {line}")).await
        }
    }

    /// Asks for a new log. The caller has the container's turn.
    pub(super) async fn send_reopen(&self, container: &Monitored) -> Result<()> {
        self.write(container, &files(container).ctl(), "2 0 0\n").await
    }

    /// Writes one line. The caller has the container's turn.
    async fn write(&self, container: &Monitored, path: &Path, line: &str) -> Result<()> {
        let context = || format!("write to {}", path.display());
        let fifo = open(path).map_err(|error| {
            match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                // Nobody reads it, or it was removed.
                Some(rustix::io::Errno::NXIO | rustix::io::Errno::NOENT) => {
                    Error::NoMonitor { id: container.id.clone() }
                }
                _ => Error::io(format!("open {}", path.display()))(error),
            }
        })?;
        let deadline = Instant::now() + self.config.ctl_deadline;
        while unread(&fifo).map_err(Error::io(context()))? > 0 {
            if Instant::now() >= deadline {
                return Err(Error::Monitor {
                    id: container.id.clone(),
                    detail: format!(
                        "it has not read from {} for {:?}",
                        path.display(),
                        self.config.ctl_deadline
                    ),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        failpoint_async!("monitor.ctl.write").map_err(Error::io(context()))?;
        // Short lines go into a fifo whole or not at all.
        rustix::io::write(&fifo, line.as_bytes()).map_err(|error| Error::io(context())(error.into()))?;
        Ok(())
    }
}

/// Opens the write end without waiting: of a dead conmon's fifo that would take for ever.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fifo = rustix::fs::open(path, flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fifo)?.st_mode);
    (kind == FileType::Fifo).then_some(fifo).ok_or_else(|| io::Error::other("it is not a fifo"))
}

fn unread(fifo: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(fifo)?)
}
