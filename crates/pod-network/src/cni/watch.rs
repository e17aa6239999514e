// SPDX-License-Identifier: Apache-2.0
//! Tells when folders change, by inotify. A folder that does not exist yet (or any more) is waited
//! for at its nearest existing parent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;

/// Every way in which the content of a folder changes, `chmod +x` included.
const CONTENT: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// The ways in which a folder appears in its parent.
const APPEARANCE: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// A watch on a set of folders.
#[derive(Debug)]
pub(super) struct Watch {
    fd: AsyncFd<Fd>,
    watched: BTreeSet<WatchDescriptor>,
}

#[derive(Debug)]
struct Fd(Inotify);

// === impl Watch ===

impl Watch {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Those of inotify_init(2), commonly `EMFILE`.
    pub(super) fn new() -> io::Result<Self> {
        failpoint!("cni.watch.init")?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let fd = register::readable(Fd(inotify))?;
        Ok(Self { fd, watched: BTreeSet::new() })
    }

    /// Watches these folders and no others. To be called again after every change, since a folder
    /// may have appeared or been replaced.
    ///
    /// # Errors
    /// Those of inotify_add_watch(2), commonly `ENOSPC` or `EACCES`.
    pub(super) fn aim(&mut self, dirs: &[PathBuf]) -> io::Result<()> {
        failpoint!("cni.watch.add")?;
        // A folder may appear between the look and the watch: looked again until nothing changes.
        let mut wanted = aims(dirs);
        loop {
            let mut watched = BTreeSet::new();
            for (path, flags) in &wanted {
                match self.inotify().add_watch(path, *flags | AddWatchFlags::IN_ONLYDIR) {
                    Ok(descriptor) => {
                        watched.insert(descriptor);
                    }
                    // It has just gone; the next look finds its parent.
                    Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                    Err(errno) => {
                        return Err(io::Error::new(
                            io::Error::from(errno).kind(),
                            format!("watch {}: {errno}", path.display()),
                        ));
                    }
                }
            }
            for old in self.watched.difference(&watched) {
                // Gone by itself if its folder is gone.
                let _ = self.inotify().rm_watch(*old);
            }
            self.watched = watched;
            let now = aims(dirs);
            if now == wanted {
                return Ok(());
            }
            wanted = now;
        }
    }

    /// Waits for a change and takes all that are there.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let any = self.drain()?;
            // Read empty; an event that came since has made the descriptor ready anew, which this does not undo.
            ready.clear_ready();
            if any {
                return Ok(());
            }
        }
    }

    /// Takes all that are there; whether there was any.
    pub(super) fn drain(&self) -> io::Result<bool> {
        let mut any = false;
        loop {
            match self.inotify().read_events() {
                Ok(events) => any |= !events.is_empty(),
                Err(Errno::EAGAIN) => return Ok(any),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn inotify(&self) -> &Inotify {
        &self.fd.get_ref().0
    }
}

// === impl Fd ===

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(unsafe_code, reason = "registering a descriptor that is not the standard library's is unsafe")]
mod register {
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use super::{Fd, io};

    pub(super) fn readable(fd: Fd) -> io::Result<AsyncFd<Fd>> {
        // SAFETY: the descriptor is owned by the value for as long as it lives and is always the same one.
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
    }
}

/// What to watch so that no change of these folders is missed.
fn aims(dirs: &[PathBuf]) -> BTreeMap<PathBuf, AddWatchFlags> {
    let mut aims = BTreeMap::new();
    for dir in dirs {
        let nearest = dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let flags = if nearest == dir { CONTENT } else { APPEARANCE };
        *aims.entry(nearest.to_owned()).or_insert(AddWatchFlags::empty()) |= flags;
    }
    aims
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    async fn is_told(watch: &mut Watch, dirs: &[PathBuf], change: impl FnOnce()) -> bool {
        watch.aim(dirs).unwrap();
        watch.drain().unwrap();
        change();
        let told = tokio::time::timeout(Duration::from_millis(500), watch.changed()).await.is_ok();
        watch.aim(dirs).unwrap();
        told
    }

    #[tokio::test]
    async fn changes_of_content_and_appearance_are_told() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/cni/net.d");
        let dirs = [dir.clone()];
        let mut watch = Watch::new().unwrap();
        for _ in 0..2 {
            assert!(is_told(&mut watch, &dirs, || fs::create_dir(root.path().join("etc")).unwrap()).await);
            assert!(is_told(&mut watch, &dirs, || fs::create_dir_all(&dir).unwrap()).await);
            let file = dir.join("a.conf");
            assert!(is_told(&mut watch, &dirs, || fs::write(&file, "x").unwrap()).await);
            assert!(is_told(&mut watch, &dirs, || fs::rename(&file, dir.join("b")).unwrap()).await);
            assert!(is_told(&mut watch, &dirs, || fs::remove_file(dir.join("b")).unwrap()).await);
            let gone = root.path().join("etc");
            assert!(is_told(&mut watch, &dirs, || fs::remove_dir_all(gone).unwrap()).await);
        }
    }

    #[tokio::test]
    async fn other_folders_are_not_told() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        fs::create_dir(&dir).unwrap();
        let mut watch = Watch::new().unwrap();
        watch.aim(&[root.path().join("a/b")]).unwrap();
        watch.aim(std::slice::from_ref(&dir)).unwrap();
        let other = root.path().join("c");
        assert!(!is_told(&mut watch, &[dir], || fs::write(other, "x").unwrap()).await);
    }
}
