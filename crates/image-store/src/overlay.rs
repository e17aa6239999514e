// SPDX-License-Identifier: Apache-2.0
//! Container roots: an overlay mount of the image's layers with a writable directory on top.
//!
//! ```text
//! <container dir>/upper    what the container wrote
//! <container dir>/work     overlay's own
//! <container dir>/merged   the mount: the container's root
//! <container dir>/lowers   layers with mapped ids, for a moment and on older kernels ([`idmap`])
//! ```
//! Layers are given one by one (`lowerdir+`, Linux 6.8); before that in one string, which is a page long: when
//! their paths do not fit, descriptors in `/proc/self/fd` stand for them. `index=off` so that an upper directory
//! may be copied or restored. Propagation is left as the parent's: the runtime makes its own. `volatile`, because
//! otherwise each unmount waits until the whole file system below is written back: what a container writes into its root
//! survives the daemon, not a power cut, after which nobody mounts that root again (ADR 0010).

mod idmap;
pub(crate) mod mount;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use hull_files::{PRIVATE_DIR, SHARED_PARENT};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use self::idmap::Mapped;
use crate::layer::Privileges;
use crate::{Error, Result, tree};

/// The writable directory.
pub const UPPER: &str = "upper";
/// Overlay's own directory.
pub const WORK: &str = "work";
/// The mount point.
pub const MERGED: &str = "merged";

/// Where layers with mapped ids are attached, on kernels that want that.
const LOWERS: &str = "lowers";

/// Mounts on top of each other that are taken away; more are not ours.
const MAX_STACKED: usize = 64;

/// A root to make.
#[derive(Debug)]
pub(crate) struct Mount<'a> {
    /// The container's directory.
    pub(crate) dir: &'a Path,
    /// Layers, the topmost first; the same one may come twice.
    pub(crate) lowers: &'a [PathBuf],
    /// An empty directory: the one layer of an image that has none.
    pub(crate) empty: &'a Path,
    /// Which attribute marks opaque directories.
    pub(crate) privileges: Privileges,
    /// The user namespace, by path, that the root is for: its ids own what is seen and what is written.
    pub(crate) userns: Option<&'a Path>,
}

/// Makes and mounts a root; one that is already mounted is left as it is.
pub(crate) fn prepare(mount: &Mount<'_>) -> Result<PathBuf> {
    let merged = mount.dir.join(MERGED);
    if is_mount_point(&merged)? {
        return Ok(merged);
    }
    let mut lowers = effective(mount)?;
    if lowers.is_empty() {
        lowers.push(mount.empty.to_owned());
    }
    failpoint!("image-store.root.mkdir").map_err(io_error("make directory", mount.dir))?;
    // The caller has made it with the mode that fits its users. In a user namespace the runtime has to come through.
    let mode = if mount.userns.is_some() { SHARED_PARENT } else { PRIVATE_DIR };
    hull_files::make_dir(mount.dir, mode).map_err(io_error("make directory", mount.dir))?;
    for (name, mode) in [(UPPER, 0o755), (WORK, PRIVATE_DIR), (MERGED, 0o755)] {
        own_dir(&mount.dir.join(name), mode)?;
    }
    let mapped = mount.userns.map(|userns| Mapped::new(&lowers, userns)).transpose()?;
    let top = mapped.as_ref().map_or_else(|| lowers[0].clone(), |mapped| mapped.path(&lowers[0]));
    copy_root_attributes(&top, &mount.dir.join(UPPER))?;
    forget_volatile(&mount.dir.join(WORK))?;
    failpoint!("image-store.root.mount").map_err(io_error("mount", &merged))?;
    match &mapped {
        Some(mapped) => mapped.overlay(&lowers, mount.dir)?,
        None => mount::overlay(&lowers, mount.dir)?,
    }
    Ok(merged)
}

/// The layers that matter. A layer twice in one image would be refused by the kernel; the upper of the two
/// covers all that the lower one could show. What lies below a layer whose root is opaque is hidden.
fn effective(mount: &Mount<'_>) -> Result<Vec<PathBuf>> {
    let mut lowers: Vec<PathBuf> = Vec::new();
    for lower in mount.lowers {
        if lowers.contains(lower) {
            continue;
        }
        lowers.push(lower.clone());
        if crate::layer::is_opaque(lower, mount.privileges).map_err(io_error("read", lower))? {
            break;
        }
    }
    Ok(lowers)
}

/// The mark of an earlier volatile mount, with which the kernel refuses another: a power cut may have torn what was written.
/// Here nothing was: a root that is prepared again is one whose making was interrupted, before its container ran.
fn forget_volatile(work: &Path) -> Result<()> {
    let mark = work.join("work/incompat");
    tree::remove(&mark)
}

/// Makes a directory, or takes over what an earlier try left.
fn own_dir(path: &Path, mode: u32) -> Result<()> {
    hull_files::own_dir(path, mode).map_err(io_error("make directory", path))
}

/// The root directory that a container sees is `upper` itself: it must look like the image's.
fn copy_root_attributes(lower: &Path, upper: &Path) -> Result<()> {
    failpoint!("image-store.root.attributes").map_err(io_error("set owner of", upper))?;
    let metadata = fs::symlink_metadata(lower).map_err(io_error("read", lower))?;
    std::os::unix::fs::lchown(upper, Some(metadata.uid()), Some(metadata.gid()))
        .map_err(io_error("set owner of", upper))?;
    let mode = fs::Permissions::from_mode(metadata.mode() & 0o7777);
    fs::set_permissions(upper, mode).map_err(io_error("set mode of", upper))
}

/// Whether something is mounted exactly there.
fn is_mount_point(path: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(statx) => Ok(statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(io_error("read", path)(error.into())),
    }
}

/// Takes every mount off a root, at once for whoever looks; files still open keep it alive in the kernel.
pub(crate) fn unmount(dir: &Path) -> Result<()> {
    unmount_all(&dir.join(MERGED)).and(unmount_all(&dir.join(LOWERS)))
}

fn unmount_all(path: &Path) -> Result<()> {
    for _ in 0..MAX_STACKED {
        if !is_mount_point(path)? {
            return Ok(());
        }
        failpoint!("image-store.root.unmount").map_err(io_error("unmount", path))?;
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(io_error("unmount", path)(error.into())),
        }
    }
    let source = std::io::Error::other(format!("still mounted after {MAX_STACKED} times"));
    Err(io_error("unmount", path)(source))
}

/// Deletes what a root was made of; the container's directory itself too unless something else is in it. Goes on
/// after a failure and returns the first.
pub(crate) fn delete(dir: &Path) -> Result<()> {
    let mut first = Ok(());
    for name in [MERGED, LOWERS, WORK, UPPER] {
        let path = dir.join(name);
        let deleted = failpoint!("image-store.root.delete").map_err(io_error("delete", &path));
        let deleted = deleted.and_then(|()| tree::remove(&path));
        if first.is_ok() {
            first = deleted;
        }
    }
    if first.is_ok() {
        match fs::remove_dir(dir) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
                ) => {}
            Err(error) => return Err(io_error("delete", dir)(error)),
        }
    }
    first
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { step, path, source }
}
