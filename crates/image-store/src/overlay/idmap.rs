// SPDX-License-Identifier: Apache-2.0
//! Layers as a user namespace sees them, without changing their owners on disk (ADR 0017).
//!
//! ```text
//! <store>/layers            clone of the mount, detached, its ids mapped, read-only
//!   └ 1f0c.. (root's)   ->    └ 1f0c.. (100000's)   ->  lower layer of the overlay
//! ```
//! The overlay makes mounts of its own of what it is given, so that the clone is needed only while it is made. Linux 6.15
//! takes it detached, which nobody else ever sees; older ones want a mount that is attached, and get it at
//! `<container dir>/lowers` for that moment. (Linux 5.19 is the first to take layers with mapped ids at all.)

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::{LOWERS, io_error, mount, own_dir, tree, unmount_all};
use crate::{Error, Result};

/// The directory of layers, with mapped ids.
#[derive(Debug)]
pub(super) struct Mapped {
    parent: PathBuf,
    tree: OwnedFd,
}

// === impl Mapped ===

impl Mapped {
    /// Of the directory that all of these layers lie in, for a user namespace by path.
    pub(super) fn new(lowers: &[PathBuf], userns: &Path) -> Result<Self> {
        let parent = lowers.first().and_then(|lower| lower.parent()).unwrap_or(Path::new("/"));
        if lowers.iter().any(|lower| lower.parent() != Some(parent)) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "a layer lies elsewhere");
            return Err(io_error("map the ids of layers in", parent)(source));
        }
        let userns = File::open(userns).map_err(io_error("open user namespace", userns))?;
        failpoint!("image-store.root.idmap").map_err(io_error("map the ids of layers in", parent))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, parent, flags)
            .map_err(|errno| io_error("clone the mount of", parent)(errno.into()))?;
        setattr::map_ids(tree.as_fd(), userns.as_fd()).map_err(|error| {
            let error = match error.raw_os_error() {
                Some(libc::EINVAL | libc::EPERM | libc::ENOSYS) => {
                    io::Error::new(error.kind(), format!("{error}: the kernel or the file system cannot"))
                }
                _ => error,
            };
            io_error("map the ids of layers in", parent)(error)
        })?;
        Ok(Self { parent: parent.to_owned(), tree })
    }

    /// A layer in the clone. Good as long as `self` is.
    pub(super) fn path(&self, lower: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/self/fd/{}", self.tree.as_raw_fd()));
        lower.strip_prefix(&self.parent).map_or_else(|_| root.clone(), |name| root.join(name))
    }

    /// Mounts an overlay of these layers, topmost first, at `dir/merged`.
    pub(super) fn overlay(&self, lowers: &[PathBuf], dir: &Path) -> Result<()> {
        let detached: Vec<PathBuf> = lowers.iter().map(|lower| self.path(lower)).collect();
        let refused = |_| io_error("mount overlay at", dir)(io::Error::from_raw_os_error(libc::EINVAL));
        let tried = failpoint!("image-store.root.detached").map_err(refused);
        match tried.and_then(|()| mount::overlay(&detached, dir)) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
                self.overlay_attached(lowers, dir)
            }
            mounted => mounted,
        }
    }

    fn overlay_attached(&self, lowers: &[PathBuf], dir: &Path) -> Result<()> {
        let at = dir.join(LOWERS);
        own_dir(&at, hull_files::PRIVATE_DIR)?;
        failpoint!("image-store.root.attach").map_err(io_error("attach layers at", &at))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&self.tree, "", CWD, &at, flags)
            .map_err(|errno| io_error("attach layers at", &at)(errno.into()))?;
        let attached: Vec<PathBuf> = lowers
            .iter()
            .map(|lower| lower.strip_prefix(&self.parent).map_or_else(|_| at.clone(), |name| at.join(name)))
            .collect();
        let mounted = mount::overlay(&attached, dir);
        let taken_away = unmount_all(&at).and_then(|()| tree::remove(&at));
        mounted.and(taken_away)
    }
}

#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
mod setattr {
    use super::{BorrowedFd, CString, io};
    use std::os::fd::AsRawFd;

    /// Maps the ids of a detached mount, which becomes read-only as well: a layer is never written to.
    pub(super) fn map_ids(tree: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_RDONLY,
            attr_clr: 0,
            propagation: 0,
            userns_fd: u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?,
        };
        let empty = CString::default();
        // SAFETY: both descriptors are open for the whole call; the path is a string with a NUL at its end, and
        // the attributes are a structure of the size that is told, both alive until it returns.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                tree.as_raw_fd(),
                empty.as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
