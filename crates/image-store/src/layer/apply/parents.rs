// SPDX-License-Identifier: Apache-2.0
//! Directories on the way to an entry, and what stands in its place.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::{
    Applier, Former, INSIDE, LOOKUP, READ_DIR, Step, Trouble, is_dir, is_whiteout, open_dir, stat, system,
};
use crate::layer::Privileges;
use crate::layer::attributes::{self, DirectoryAttributes};
use crate::retry::again;
use crate::tree;

// === impl Applier ===

impl Applier<'_> {
    pub(super) fn lookup(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        again(|| rustix::fs::openat2(&self.root, path, LOOKUP, Mode::empty(), INSIDE))
    }

    /// The directory with these components, made if it is missing.
    pub(super) fn parent(&mut self, components: &[&[u8]]) -> Step<Rc<OwnedFd>> {
        if components.is_empty() {
            return Ok(self.root.clone());
        }
        let path = components.join(&b'/');
        if let Some((last, fd)) = &self.last_parent
            && *last == path
        {
            return Ok(fd.clone());
        }
        let found = match self.lookup(&path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(components)?,
            Err(error) => return Err(Trouble::System("open parent of", error)),
        };
        let found = Rc::new(found);
        self.last_parent = Some((path, found.clone()));
        Ok(found)
    }

    fn make_parents(&mut self, components: &[&[u8]]) -> Step<OwnedFd> {
        let mut dir = self.lookup(b"").map_err(system("open"))?;
        for end in 1..=components.len() {
            let path = components[..end].join(&b'/');
            dir = match self.lookup(&path) {
                Ok(found) => found,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    self.make_parent(dir.as_fd(), components[end - 1], &path)?;
                    self.lookup(&path).map_err(system("open parent of"))?
                }
                Err(error) => return Err(Trouble::System("open parent of", error)),
            };
        }
        Ok(dir)
    }

    /// A directory that no entry describes (yet): root's, 0755.
    fn make_parent(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Step<()> {
        let former = match stat(dir, name)? {
            None => Former::Nothing,
            Some(stat) if is_whiteout(&stat) => self.clear(dir, name, path)?,
            Some(stat) => {
                let shown = String::from_utf8_lossy(path);
                let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
                let what = if is_link { "a link to no directory of this layer" } else { "not a directory" };
                return Err(Trouble::Entry(format!("its parent {shown:?} is {what}")));
            }
        };
        rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(system("make directory"))?;
        let made = open_dir(dir, name)?;
        if former == Former::Whiteout {
            self.set_opaque(made.as_fd())?;
        }
        self.remember(made.as_fd(), path.to_vec(), 0o755, None)
    }

    pub(super) fn remember(
        &mut self,
        dir: BorrowedFd<'_>,
        path: Vec<u8>,
        mode: u32,
        mtime: Option<(i64, u32)>,
    ) -> Step<()> {
        let stat = rustix::fs::fstat(dir).map_err(system("read"))?;
        let identity = (stat.st_dev, stat.st_ino);
        self.dirs.insert(path, DirectoryAttributes { identity, mode, mtime });
        Ok(())
    }

    pub(super) fn finish_directory(&self, path: &[u8], attributes: &DirectoryAttributes) -> Step<()> {
        let shown: &[u8] = if path.is_empty() { b"." } else { path };
        let opened = again(|| rustix::fs::openat2(&self.root, shown, READ_DIR, Mode::empty(), INSIDE));
        let dir = match opened {
            Ok(dir) => dir,
            // Replaced by a later entry.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(Trouble::System("open", error)),
        };
        let stat = rustix::fs::fstat(&dir).map_err(system("read"))?;
        if (stat.st_dev, stat.st_ino) != attributes.identity {
            return Ok(());
        }
        // Without privileges, a directory that locks its owner out could be neither moved nor deleted.
        let floor = if self.options.privileges == Privileges::Unprivileged { 0o700 } else { 0 };
        rustix::fs::fchmod(&dir, attributes::mode_of(attributes.mode | floor))
            .map_err(system("set mode of"))?;
        match attributes.mtime {
            Some(mtime) => attributes::set_fd_times(dir.as_fd(), mtime).map_err(system("set times of")),
            None => Ok(()),
        }
    }

    /// Deletes what stands at `name`; a whole directory too.
    pub(super) fn clear(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Step<Former> {
        let Some(stat) = stat(parent, name)? else {
            return Ok(Former::Nothing);
        };
        self.last_parent = None;
        if is_dir(&stat) {
            tree::remove_at(parent, OsStr::from_bytes(name), &self.dir).map_err(Trouble::Told)?;
            self.forget(path);
            return Ok(Former::Nothing);
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(system("replace"))?;
        Ok(if is_whiteout(&stat) { Former::Whiteout } else { Former::Nothing })
    }

    /// Drops the attributes of a directory that is gone, and of all below it.
    fn forget(&mut self, path: &[u8]) {
        let gone: Vec<Vec<u8>> = self
            .dirs
            .range(path.to_vec()..)
            .take_while(|(key, _)| key.starts_with(path))
            .filter(|(key, _)| key.len() == path.len() || key[path.len()] == b'/')
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.dirs.remove(&key);
        }
    }
}
