// SPDX-License-Identifier: Apache-2.0
//! Directories and files with exact modes, whatever the umask (ADR 0027).
//!
//! ```text
//! root, root/containers, run_root ..    0711  root:root         shared parents: anybody may pass, nobody may list
//!  '- ID                                0700  root:root         the gate of one pod or container
//!                                       0710  root:100000       .. whose user namespace maps its root to 100000
//!      '- config.json, records, pids    0600
//! ```
//! The modes given to `mkdir` and `open` lose what the umask takes, and what exists already keeps the mode it has. Every
//! directory and file that the daemon makes for itself is made here, so that neither counts. All functions block.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The mode of a directory that is for this process's user alone.
pub const PRIVATE_DIR: u32 = 0o700;
/// The mode of a directory of which anybody may know the names in it, and nobody may list them.
pub const SHARED_PARENT: u32 = 0o711;
/// The mode of a file that is for this process's user alone.
pub const PRIVATE_FILE: u32 = 0o600;

/// The umask that a container runtime's children expect: that of a service of systemd and of other CRI servers.
const UMASK: u32 = 0o022;

/// The bits that a mode here is about.
const MODE_BITS: u32 = 0o7777;

/// Sets this process's umask to 0022, which containers, execs and plugins inherit. To be called before the process
/// has a second thread.
pub fn set_umask() {
    rustix::process::umask(Mode::from_raw_mode(UMASK));
}

/// Makes a directory with its parents. An existing one keeps its mode: it may be somebody else's.
///
/// Missing parents get the same mode with the right to pass added.
///
/// # Errors
/// Those of mkdir and chmod; one that exists already is no error.
pub fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    make_missing(dir, mode)
}

/// Makes a directory with its parents, or takes over an existing one: it then belongs to this process's user and has
/// exactly this mode.
///
/// # Errors
/// Those of mkdir, chown and chmod; `NotADirectory`.
pub fn own_dir(dir: &Path, mode: u32) -> io::Result<()> {
    give_dir(dir, None, mode)
}

/// Makes the directory of one pod or container, or tightens an existing one: nobody but this process's user passes it,
/// and the group of the pod's root where the pod has a user namespace. A `group` of 0 is the host's root's.
///
/// # Errors
/// As [`own_dir`].
pub fn gate(dir: &Path, group: u32) -> io::Result<()> {
    match group {
        0 => give_dir(dir, Some(0).filter(|_| rustix::process::geteuid().is_root()), PRIVATE_DIR),
        group => give_dir(dir, Some(group), 0o710),
    }
}

/// Makes a directory for others to use, as `mkdir -p` does: 0755 less the umask, and what the parent hands down (set-group-id)
/// stays. For paths that requests name: others may write the parents, so nothing there is changed afterwards.
///
/// # Errors
/// Those of mkdir.
pub fn make_foreign_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

/// Writes a file with exactly this mode, which also a former file by this name gets. Not atomic.
///
/// # Errors
/// Those of open, chmod and write.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    create(path, mode)?.write_all(bytes)
}

/// Opens an empty file for writing that has exactly this mode, also if there was one.
///
/// # Errors
/// Those of open and chmod.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(true).mode(mode).open(path)?;
    set_mode_of(&file, mode)?;
    Ok(file)
}

/// Sets the mode of an open file unless it has it: a read-only file system refuses even that.
///
/// # Errors
/// Those of stat and chmod.
pub fn set_mode_of(file: &File, mode: u32) -> io::Result<()> {
    match file.metadata()?.mode() & MODE_BITS == mode {
        true => Ok(()),
        false => file.set_permissions(Permissions::from_mode(mode)),
    }
}

/// Sets the mode of what is at a path unless it has it. The path must be below a directory of this process's user.
///
/// # Errors
/// Those of stat and chmod.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    match fs::metadata(path)?.mode() & MODE_BITS == mode {
        true => Ok(()),
        false => fs::set_permissions(path, Permissions::from_mode(mode)),
    }
}

fn give_dir(dir: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    // Until the group is set only the owner may pass.
    let at_first = if group.is_some() { PRIVATE_DIR } else { mode };
    make_missing(dir, at_first)?;
    let found = fs::metadata(dir)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let user = rustix::process::geteuid().as_raw();
    let owner = Some(user).filter(|user| *user != found.uid());
    let group = group.filter(|group| *group != found.gid());
    if owner.is_some() || group.is_some() {
        std::os::unix::fs::chown(dir, owner, group)?;
    }
    set_mode(dir, mode)
}

fn make_missing(dir: &Path, mode: u32) -> io::Result<()> {
    match make_one(dir, mode) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
                return Err(error);
            };
            make_missing(parent, mode | 0o111)?;
            make_one(dir, mode)
        }
        made => made,
    }
}

fn make_one(dir: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => {
            // Without following links: who may write the parent may have put one in the directory's place. What is open
            // by O_PATH needs no permission of its own, and is changed by its name below /proc.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = File::from(rustix::fs::open(dir, flags, Mode::empty())?);
            match made.metadata()?.mode() & MODE_BITS == mode {
                true => Ok(()),
                false => set_mode(Path::new(&format!("/proc/self/fd/{}", made.as_raw_fd())), mode),
            }
        }
        // A link to a directory is one.
        Err(_) if dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
