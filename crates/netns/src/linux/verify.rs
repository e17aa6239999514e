// SPDX-License-Identifier: Apache-2.0
//! Whether a path is a namespace of the wanted kind.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::statfs::{NSFS_MAGIC, fstatfs, statfs};

use super::{LinuxConfig, io_error};
use crate::request::Kind;
use crate::{Error, NetNsPath, PodNamespaces, Result};

/// What lies at the place of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A file (or link, or folder) that is no namespace.
    Leftover,
    /// A namespace of the wanted kind.
    Namespace,
}

/// Everything that is pinned for an id.
pub(super) fn open_all(layout: &LinuxConfig, id: &str) -> Result<PodNamespaces> {
    let found = |kind| -> Result<Option<_>> {
        let path = layout.pinned(kind, id);
        match is_namespace(&path, kind) {
            Ok(()) => Ok(Some(path)),
            Err(Error::NotFound { .. }) if is_dangling(&path) => {
                Err(Error::NotANamespace { path, kind: kind.name() })
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let namespaces = PodNamespaces {
        user: found(Kind::User)?,
        network: found(Kind::Net)?.map(NetNsPath::unverified),
        ipc: found(Kind::Ipc)?,
        uts: found(Kind::Uts)?,
    };
    if namespaces == PodNamespaces::default() {
        return Err(Error::NotFound { path: layout.path(Kind::Net, id) });
    }
    Ok(namespaces)
}

/// [`Error::NotFound`] or [`Error::NotANamespace`] if it is not.
pub(super) fn is_namespace(path: &Path, kind: Kind) -> Result<()> {
    let not_one = || Error::NotANamespace { path: path.to_owned(), kind: kind.name() };
    let not_found = || Error::NotFound { path: path.to_owned() };
    // Looked at by path first: opening a fifo or a device that lies there could block or do something.
    match statfs(path) {
        Ok(fs) if fs.filesystem_type() == NSFS_MAGIC => {}
        Ok(_) => return Err(not_one()),
        Err(nix::Error::ENOENT | nix::Error::ESRCH | nix::Error::ENOTDIR) => return Err(not_found()),
        Err(errno) => return Err(io_error("look at", path)(errno)),
    }
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_found()),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    // Again on the open file, which nobody can exchange.
    let same = fstatfs(&file).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC);
    if same && nstype::of(&file).map_err(io_error("ask for the kind of", path))? == kind.clone_flag() {
        Ok(())
    } else {
        Err(not_one())
    }
}

/// What lies at the place of a pin; a namespace of another kind is an error.
pub(super) fn find(path: &Path, kind: Kind) -> Result<Found> {
    match is_namespace(path, kind) {
        Ok(()) => Ok(Found::Namespace),
        Err(Error::NotFound { .. }) if is_dangling(path) => Ok(Found::Leftover),
        Err(Error::NotFound { .. }) => Ok(Found::Nothing),
        Err(Error::NotANamespace { .. }) if !on_nsfs(path) => Ok(Found::Leftover),
        Err(error) => Err(error),
    }
}

fn on_nsfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

/// Whether a missing path is a symbolic link that leads nowhere. (So is `/proc/PID/ns/net` of a zombie;
/// that one counts as missing, so only the places of pins are asked.)
fn is_dangling(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[expect(unsafe_code, reason = "the ioctl has no safe wrapper")]
mod nstype {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    /// `_IO(0xb7, 0x3)` of linux/nsfs.h.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

    /// The `CLONE_NEW*` constant of a namespace file.
    pub(super) fn of(file: &File) -> io::Result<libc::c_int> {
        // SAFETY: the descriptor is open for the whole call, and this request takes no argument.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
    }
}
