// SPDX-License-Identifier: Apache-2.0
//! Changes of what is mounted, which every lost pin is: a pin is a mount, and can only go by an unmount or below another one.
//!
//! The kernel makes `/proc/self/mountinfo` readable with priority at each change in this mount namespace, also at one that
//! came from another by propagation. `inotify` tells nothing of an unmount as long as the file stays.

use std::fs::File;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

use super::io_error;
use crate::Result;

const MOUNTS: &str = "/proc/self/mountinfo";

/// Waits for changes of what is mounted.
#[derive(Debug, Default)]
pub(super) struct Mounts(OnceCell<AsyncFd<File>>);

// === impl Mounts ===

impl Mounts {
    /// Waits for the next change; the first call registers, and answers at once.
    pub(super) async fn changed(&self) -> Result<()> {
        let first = !self.0.initialized();
        let watched = self.0.get_or_try_init(|| async { register(File::open(MOUNTS)?) });
        let watched = watched.await.map_err(io_error("watch", Path::new(MOUNTS)))?;
        if first {
            return Ok(());
        }
        let mut ready =
            watched.ready(Interest::PRIORITY).await.map_err(io_error("watch", Path::new(MOUNTS)))?;
        ready.clear_ready();
        Ok(())
    }
}

#[expect(unsafe_code, reason = "registering a descriptor has no safe function")]
fn register(mounts: File) -> std::io::Result<AsyncFd<File>> {
    // SAFETY: a `File` stays the same open descriptor until it is dropped, and it is handed over.
    unsafe { AsyncFd::register_with_interest(mounts, Interest::PRIORITY) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn nothing_is_told_while_nothing_changes() {
        let mounts = Mounts::default();
        mounts.changed().await.unwrap();
        // Another test's mounts may come and go in this namespace: a few changes are no busy loop.
        let mut changes = 0;
        let quiet = async {
            loop {
                mounts.changed().await.unwrap();
                changes += 1;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), quiet).await;
        assert!(changes < 1000, "{changes} changes in 200 ms");
    }
}
