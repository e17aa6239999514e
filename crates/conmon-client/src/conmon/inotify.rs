// SPDX-License-Identifier: Apache-2.0
//! Waits for changes of a directory's entries.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A watched directory.
#[derive(Debug)]
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Watches for entries that are made, or renamed into the directory. Must be called inside a tokio
    /// runtime.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        hull_failpoint::failpoint!("monitor.reopen.watch")?;
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        add_watch(&inotify, dir, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        Ok(Self(crate::watch::watch(inotify, Interest::READABLE)?))
    }

    /// Waits until something changed since the last call. Which entry it was is not told: the caller
    /// looks at what it waits for anyway.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|inotify| Ok(rustix::io::read(inotify, &mut events)?)) {
                Ok(read) => return read.map(|_| ()),
                Err(_not_ready) => {}
            }
        }
    }
}
