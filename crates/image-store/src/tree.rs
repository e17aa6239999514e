// SPDX-License-Identifier: Apache-2.0
//! Walking and deleting directories that a container or an image filled.
//!
//! Nothing here follows a symbolic link or crosses into another file system, and no path is ever joined to
//! a name that was read from disk: every step is one name relative to an open directory. Depth is hostile
//! too: what lies deeper than [`MAX_DEPTH`] is first moved up, so that descriptors stay few.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::{Error, Result, Usage};

/// Directories open at the same time while deleting.
const MAX_DEPTH: usize = 64;
/// Directories open at the same time while counting. What lies deeper is not counted.
const MAX_COUNTED_DEPTH: usize = 512;
/// Passes over one directory in which something must become less.
const MAX_PASSES: usize = 1000;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const STAY: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_XDEV).union(ResolveFlags::NO_SYMLINKS);

/// Opens a directory inside another; neither a link nor another file system's root.
fn open_child(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    crate::retry::again(|| rustix::fs::openat2(parent, name, DIRECTORY, Mode::empty(), STAY))
}

/// Deletes a file, a link or a whole directory at an absolute path. A missing one is a success.
///
/// # Errors
/// [`Error::Io`] with the first thing that could not be deleted; the rest is deleted all the same.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed("delete", path, io::Error::other("it has no parent directory")));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Ok(fd) => remove_at(fd.as_fd(), name, parent),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed("open", parent, error.into())),
    }
}

/// As [`remove`], relative to an open directory. `shown` is its path, for messages alone.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> Result<()> {
    let path = shown.join(name);
    let c_name = std::ffi::CString::new(name.as_bytes())
        .map_err(|_| failed("delete", &path, io::Error::from(io::ErrorKind::InvalidInput)))?;
    match rustix::fs::unlinkat(parent, &*c_name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        // Some file systems say EPERM for a directory.
        Err(error) => {
            let is_dir = rustix::fs::statat(parent, &*c_name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if !is_dir {
                return Err(failed("delete", &path, error.into()));
            }
        }
    }
    let mut removal = Removal { failures: 0, first: None, hoisted: 0, path };
    match removal.open(parent, &c_name) {
        Ok(top) => removal.empty(top.as_fd(), top.as_fd(), 0),
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => removal.fail(error),
    }
    match rustix::fs::unlinkat(parent, &*c_name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => removal.fail(error),
    }
    removal.into_result()
}

struct Removal {
    failures: u64,
    first: Option<(PathBuf, Errno)>,
    hoisted: u64,
    /// Where the walk is.
    path: PathBuf,
}

// === impl Removal ===

impl Removal {
    fn fail(&mut self, error: Errno) {
        self.failures += 1;
        self.first.get_or_insert_with(|| (self.path.clone(), error));
    }

    fn into_result(self) -> Result<()> {
        let Some((path, error)) = self.first else {
            return Ok(());
        };
        let error = io::Error::from(error);
        let hint = match error.raw_os_error() {
            Some(libc::EPERM) => " (is it immutable? see lsattr)",
            Some(libc::EXDEV | libc::EBUSY) => " (a file system is still mounted there)",
            _ => "",
        };
        let more =
            if self.failures > 1 { format!("; {} more failures", self.failures - 1) } else { String::new() };
        Err(failed("delete", &path, io::Error::new(error.kind(), format!("{error}{hint}{more}"))))
    }

    /// Opens a directory; without privileges its owner first has to give itself permission.
    fn open(&self, parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
        match open_child(parent, name) {
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                open_child(parent, name)
            }
            opened => opened,
        }
    }

    fn empty(&mut self, dir: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize) {
        for _ in 0..MAX_PASSES {
            let before = self.failures;
            match self.pass(dir, top, depth) {
                Ok(0) => return,
                Ok(_) if self.failures > before => return,
                Ok(_) => {}
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Goes once over the directory and returns how many entries it saw.
    fn pass(&mut self, dir: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<u64> {
        let mut seen = 0;
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            seen += 1;
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            if let Err(error) = self.remove_entry(dir, top, name, depth) {
                self.fail(error);
            }
            self.path.pop();
        }
        Ok(seen)
    }

    fn remove_entry(
        &mut self,
        dir: BorrowedFd<'_>,
        top: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> rustix::io::Result<()> {
        let unlinked = match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ACCESS) => {
                rustix::fs::fchmod(dir, Mode::RWXU)?;
                rustix::fs::unlinkat(dir, name, AtFlags::empty())
            }
            unlinked => unlinked,
        };
        match unlinked {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Errno::PERM);
        }
        if depth >= MAX_DEPTH {
            self.hoisted += 1;
            return rustix::fs::renameat(dir, name, top, format!(".hull-deep-{}", self.hoisted));
        }
        let child = self.open(dir, name)?;
        let before = self.failures;
        self.empty(child.as_fd(), top, depth + 1);
        drop(child);
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            // The reason was reported at what is still in it.
            Err(Errno::NOTEMPTY) if self.failures > before => Ok(()),
            removed => removed,
        }
    }
}

/// Space and inodes of a directory and all below it; hard links count once.
///
/// # Errors
/// [`Error::Io`] when the directory itself cannot be read. What vanishes or cannot be read below it is not counted.
pub(crate) fn disk_usage(path: &Path) -> Result<Usage> {
    let opened = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty());
    let dir = opened.map_err(|error| failed("open", path, error.into()))?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| failed("read", path, error.into()))?;
    let mut count = Count { usage: Usage::default(), linked: HashSet::new() };
    count.add(&stat);
    count.walk(dir.as_fd(), 0).map_err(|error| failed("list", path, error.into()))?;
    Ok(count.usage)
}

struct Count {
    usage: Usage,
    linked: HashSet<(u64, u64)>,
}

// === impl Count ===

impl Count {
    fn add(&mut self, stat: &rustix::fs::Stat) {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.usage.inodes += 1;
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    }

    fn walk(&mut self, dir: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            self.add(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && depth < MAX_COUNTED_DEPTH {
                // It may be gone or replaced by now: the container lives.
                if let Ok(child) = open_child(dir, name) {
                    let _ = self.walk(child.as_fd(), depth + 1);
                }
            }
        }
        Ok(())
    }
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_goes_and_what_its_links_point_at_stays() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), b"x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), b"x").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink(&outside, dir.path().join("toplink")).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o0)).unwrap();

        remove(&tree).unwrap();
        remove(&tree).unwrap();
        remove(&dir.path().join("toplink")).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("keep").exists());
    }

    #[test]
    fn depth_beyond_any_path_length_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut fd = rustix::fs::openat(CWD, &tree, DIRECTORY, Mode::empty()).unwrap();
        let name = "n".repeat(200);
        for _ in 0..300 {
            rustix::fs::mkdirat(&fd, &name, Mode::RWXU).unwrap();
            fd = rustix::fs::openat(&fd, &name, DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(disk_usage(&tree).unwrap().inodes, 301);
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn hard_links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 64 * 1024]).unwrap();
        let one = disk_usage(dir.path()).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(disk_usage(dir.path()).unwrap(), one);
        assert!(one.bytes >= 64 * 1024 && one.inodes == 2, "{one:?}");
    }
}
