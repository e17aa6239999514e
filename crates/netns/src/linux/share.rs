// SPDX-License-Identifier: Apache-2.0
//! The folder of network namespaces as a shared mount of its own.
//!
//! `ip netns add` does the same: what is pinned below must reach other mount namespaces (CNI
//! daemons in containers), and a removal must reach them too. The steps, the lock included, are
//! those of iproute2, so that whoever comes first makes the one mount and nobody stacks a second.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use hull_failpoint::failpoint;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};

use super::io_error;
use crate::Result;

/// How long the lock is waited for. Any local user may open and lock the folder, so it must not
/// keep pods from starting: after this time the mount is made without it.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Makes `dir` with this mode, and its parents, where missing. An existing one may be that of iproute2 and keeps its mode.
pub(super) fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    failpoint!("netns.create.dir").map_err(io_error("make directory", dir))?;
    hull_files::make_dir(dir, mode).map_err(io_error("make directory", dir))
}

/// Makes `dir`, or tightens it: for this process's user alone.
pub(super) fn make_private(dir: &Path) -> Result<()> {
    failpoint!("netns.create.dir").map_err(io_error("make directory", dir))?;
    hull_files::own_dir(dir, hull_files::PRIVATE_DIR).map_err(io_error("make directory", dir))
}

/// Makes `dir` a shared mount point, once.
pub(super) fn make_shared(dir: &Path) -> Result<()> {
    // The usual case: it is a mount point. Making a shared mount shared again changes nothing.
    match set_shared(dir, MsFlags::empty()) {
        Err(Errno::EINVAL) => {}
        result => return result.map_err(io_error("make shared mount", dir)),
    }
    let _lock = lock(dir);
    match set_shared(dir, MsFlags::empty()) {
        Err(Errno::EINVAL) => {}
        result => return result.map_err(io_error("make shared mount", dir)),
    }
    failpoint!("netns.create.share").map_err(io_error("make shared mount", dir))?;
    // Recursive: namespaces that were pinned below the plain folder stay visible.
    mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(io_error("make shared mount", dir))?;
    set_shared(dir, MsFlags::MS_REC).map_err(io_error("make shared mount", dir))
}

/// `EINVAL`: it is not a mount point.
fn set_shared(dir: &Path, extra: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | extra, None::<&str>)
}

fn lock(dir: &Path) -> Option<Flock<File>> {
    let until = Instant::now() + LOCK_PATIENCE;
    let mut file = File::open(dir).ok()?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < until => file = back,
            Err((_, errno)) => {
                let error = io::Error::from(errno);
                tracing::warn!(dir = %dir.display(), %error, "folder stays locked by another program; mounting it without the lock");
                return None;
            }
        }
        // flock has no event and no timeout of its own; the wait is bounded and happens once per boot.
        thread::sleep(Duration::from_millis(10));
    }
}
