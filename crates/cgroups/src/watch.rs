// SPDX-License-Identifier: Apache-2.0
//! Waiting until a cgroup of version 2 is empty.
//!
//! `cgroup.events` wakes its pollers with `POLLPRI` when a word in it changes (cgroup-v2, "[Un]populated
//! Notification"). It speaks for the cgroup and all below it. Version 1 has no such event.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::file;
use crate::walk::populated;

/// Tells when a cgroup of version 2 and those below it are empty.
#[derive(Debug)]
pub(crate) struct Watch(AsyncFd<File>);

impl Watch {
    /// Begins to watch; `None` where the cgroup is gone, or is none of version 2.
    pub(crate) fn new(dir: &Path) -> io::Result<Option<Self>> {
        let events = match File::open(dir.join("cgroup.events")) {
            Ok(events) => events,
            Err(error) if file::is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: a `File` stays the same open descriptor until it is dropped, and it is handed over.
        let watched = unsafe { AsyncFd::register_with_interest(events, Interest::PRIORITY) };
        match watched {
            Ok(fd) => Ok(Some(Self(fd))),
            // A plain file cannot be polled: no cgroup, but a tree made for a test.
            Err(error) => {
                let error = io::Error::from(error);
                if error.kind() == io::ErrorKind::PermissionDenied { Ok(None) } else { Err(error) }
            }
        }
    }

    /// Waits until it is empty or removed. Cancel-safe.
    pub(crate) async fn emptied(&self) -> io::Result<()> {
        loop {
            if self.is_empty()? {
                return Ok(());
            }
            // A change after the read above wakes this, since the kernel counts changes per open file.
            let mut ready = self.0.ready(Interest::PRIORITY).await?;
            ready.clear_ready();
        }
    }

    fn is_empty(&self) -> io::Result<bool> {
        let mut text = [0; 256];
        match self.0.get_ref().read_at(&mut text, 0) {
            Ok(count) => {
                let text = String::from_utf8_lossy(text.get(..count).unwrap_or_default());
                Ok(populated(&text) != Some(true))
            }
            Err(error) if file::is_gone(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
