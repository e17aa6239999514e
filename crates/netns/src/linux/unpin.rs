// SPDX-License-Identifier: Apache-2.0
//! Unpinning, in whatever state things are, and listing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use hull_failpoint::failpoint;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::{LinuxConfig, io_error};
use crate::Result;
use crate::request::{Kind, validate_id};

/// More mounts than this on one file are not ours to untangle.
const MOST_MOUNTS: usize = 1000;

/// Removes everything of an id. Every step runs; the first failure is returned, further ones are logged.
pub(super) fn remove(layout: &LinuxConfig, id: &str) -> Result<()> {
    let mut result = Ok(());
    let mut note = |step: Result<()>| match (step, &result) {
        (Err(error), Ok(())) => result = Err(error),
        (Err(error), Err(_)) => {
            tracing::warn!(
                id,
                error = &error as &dyn std::error::Error,
                "removing namespaces failed further"
            );
        }
        (Ok(()), _) => {}
    };
    for kind in Kind::ALL {
        note(unpin(&layout.path(kind, id)));
        if let Some(former) = layout.former_path(kind, id) {
            note(unpin_former(&former));
        }
    }
    note(remove_folder(&layout.folder(id)));
    result
}

/// The ids that have a pin or the remains of one.
pub(super) fn list(layout: &LinuxConfig) -> Result<Vec<String>> {
    let mut ids = BTreeSet::new();
    let pinned = names(&layout.netns_dir)?;
    let id =
        |name: &String| layout.prefixes().find_map(|prefix| name.strip_prefix(prefix)).map(str::to_owned);
    ids.extend(pinned.iter().filter_map(id));
    ids.extend(names(&layout.ns_dir)?);
    ids.retain(|id| validate_id(id).is_ok());
    Ok(ids.into_iter().collect())
}

/// As [`unpin`], without a system call that changes anything where nothing is, as for every pod of this version.
fn unpin_former(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => unpin(path),
    }
}

/// Unmounts until no mount is left, then unlinks.
pub(super) fn unpin(path: &Path) -> Result<()> {
    for _ in 0..MOST_MOUNTS {
        failpoint!("netns.remove.umount").map_err(io_error("unmount", path))?;
        // Detached: it must succeed even while some program has the file open.
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => continue,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(io_error("unmount", path)(errno)),
        }
        failpoint!("netns.remove.unlink").map_err(io_error("unlink", path))?;
        match fs::remove_file(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Mounted on again between the two calls.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                return fs::remove_dir(path).map_err(io_error("remove directory", path));
            }
            Err(error) => return Err(io_error("unlink", path)(error)),
        }
    }
    Err(io_error("unmount", path)(io::Error::other("it is mounted on again and again")))
}

fn remove_folder(folder: &Path) -> Result<()> {
    failpoint!("netns.remove.rmdir").map_err(io_error("remove directory", folder))?;
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A file in place of the folder is a leftover as well.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => unpin(folder),
        result => result.map_err(io_error("remove directory", folder)),
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}
