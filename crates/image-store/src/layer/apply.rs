// SPDX-License-Identifier: Apache-2.0
//! One entry after the other. See [`super`] for the rules.

mod parents;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use hull_failpoint::failpoint;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use tar::EntryType;

use super::attributes::{self, DirectoryAttributes, Owner};
use super::name::{self, Meaning};
use super::{ApplyOptions, Privileges};
use crate::tar_stream::{Member, TarStream};
use crate::{Error, Result, tree};

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const LOOKUP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const READ_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Writes entries into one directory.
pub(crate) struct Applier<'a> {
    root: Rc<OwnedFd>,
    dir: PathBuf,
    origin: &'a str,
    options: ApplyOptions,
    entries: u64,
    bytes: u64,
    /// Directories of this layer by cleaned path.
    dirs: BTreeMap<Vec<u8>, DirectoryAttributes>,
    /// The directory of the last entry: the next one is mostly in the same.
    last_parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Whether files are kept aside for hard links.
    aside: bool,
    buffer: Vec<u8>,
}

/// What stood where an entry goes.
#[derive(Debug, PartialEq, Eq)]
enum Former {
    Nothing,
    Whiteout,
    Directory,
}

/// Why a step for one entry did not work.
enum Trouble {
    /// The entry is to blame.
    Entry(String),
    /// A system call failed.
    System(&'static str, Errno),
    /// Already told in full.
    Told(Error),
}

type Step<T> = std::result::Result<T, Trouble>;

// === impl Applier ===

impl<'a> Applier<'a> {
    /// `origin` names the layer in errors.
    pub(crate) fn open(dir: &Path, origin: &'a str, options: ApplyOptions) -> Result<Self> {
        let failed = |error: Errno| Error::Io { step: "open", path: dir.to_owned(), source: error.into() };
        let root = rustix::fs::openat(CWD, dir, READ_DIR, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&root).map_err(failed)?;
        let attributes =
            DirectoryAttributes { identity: (stat.st_dev, stat.st_ino), mode: 0o755, mtime: None };
        Ok(Self {
            root: Rc::new(root),
            dir: dir.to_owned(),
            origin,
            options,
            entries: 0,
            bytes: 0,
            dirs: BTreeMap::from([(Vec::new(), attributes)]),
            last_parent: None,
            aside: false,
            buffer: vec![0; 128 * 1024],
        })
    }

    /// Writes one entry, with its data from the stream.
    pub(crate) fn apply<R: Read>(&mut self, member: &Member, data: &mut TarStream<R>) -> Result<()> {
        self.step(member, data).map_err(|trouble| self.explain(&member.path, trouble))
    }

    /// Sets what had to wait: modes and times of directories, from the deepest up.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.aside {
            let name = OsStr::from_bytes(name::PLINKS);
            tree::remove_at(self.root.as_fd(), name, &self.dir)?;
        }
        let dirs = std::mem::take(&mut self.dirs);
        for (path, attributes) in dirs.iter().rev() {
            self.finish_directory(path, attributes).map_err(|trouble| self.explain(path, trouble))?;
        }
        Ok(())
    }

    fn explain(&self, path: &[u8], trouble: Trouble) -> Error {
        let shown = String::from_utf8_lossy(path);
        let shown: String = shown.chars().take(300).collect();
        let invalid = |problem| Error::Invalid { origin: self.origin.to_owned(), problem };
        match trouble {
            Trouble::Told(error) => error,
            Trouble::Entry(problem) => invalid(format!("entry {shown:?}: {problem}")),
            Trouble::System(_, Errno::NAMETOOLONG) => {
                invalid(format!("entry {shown:?}: its name is too long"))
            }
            Trouble::System(_, Errno::LOOP) => {
                invalid(format!("entry {shown:?}: the links on its path run in a circle"))
            }
            Trouble::System(step, error) => {
                let path = self.dir.join(shown.trim_start_matches('/'));
                Error::Io { step, path, source: error.into() }
            }
        }
    }

    fn step<R: Read>(&mut self, member: &Member, data: &mut TarStream<R>) -> Step<()> {
        self.entries += 1;
        if self.entries > self.options.limits.layer_entries {
            let limit = self.options.limits.layer_entries;
            return Err(Trouble::Entry(format!("the layer has more than the limit of {limit} entries")));
        }
        let components = name::clean(&member.path).map_err(Trouble::Entry)?;
        let owner = attributes::owner(member).map_err(Trouble::Entry)?;
        match name::meaning(&components).map_err(Trouble::Entry)? {
            Meaning::Aside if member.kind.is_file() => self.aside = true,
            Meaning::Aside | Meaning::Skip => return Ok(()),
            Meaning::Opaque => return self.opaque(&components),
            Meaning::Whiteout(name) => return self.whiteout(&components, name, owner),
            Meaning::Plain => {}
        }
        failpoint!("image-store.layer.entry").map_err(|source| {
            Trouble::Told(Error::Io { step: "write layer entry", path: self.dir.clone(), source })
        })?;
        let path = components.join(&b'/');
        let Some((name, parents)) = components.split_last() else {
            return self.root_entry(member, owner);
        };
        let parent = self.parent(parents)?;
        match member.kind {
            EntryType::Directory => return self.directory(parent.as_fd(), name, path, member, owner),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.file(parent.as_fd(), name, &path, member, data, owner);
            }
            EntryType::Link => return self.hard_link(parent.as_fd(), name, &path, member, owner),
            EntryType::Symlink => {
                if member.link.is_empty() || member.link.contains(&0) {
                    return Err(Trouble::Entry("its link target is empty or has a NUL byte".to_owned()));
                }
                self.clear(parent.as_fd(), name, &path)?;
                rustix::fs::symlinkat(member.link.as_slice(), &parent, *name).map_err(system("make link"))?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                if !self.special(parent.as_fd(), name, &path, member)? {
                    return Ok(());
                }
            }
            kind => {
                return Err(Trouble::Entry(format!(
                    "its type {:?} is not known",
                    char::from(kind.as_byte())
                )));
            }
        }
        self.set_owner(parent.as_fd(), name, member, owner)?;
        if member.kind != EntryType::Symlink {
            // Made a moment ago, in a directory that nobody else reaches: it is no link.
            rustix::fs::chmodat(&parent, *name, attributes::mode_of(member.mode), AtFlags::empty())
                .map_err(system("set mode of"))?;
        }
        attributes::set_times(parent.as_fd(), name, member.mtime).map_err(system("set times of"))
    }

    fn set_owner(&self, parent: BorrowedFd<'_>, name: &[u8], member: &Member, owner: Owner) -> Step<()> {
        attributes::set_owner_and_xattrs(parent, name, member, owner, self.options.privileges)
            .map_err(system("set owner and attributes of"))
    }

    // --- entries ---

    fn root_entry(&mut self, member: &Member, owner: Owner) -> Step<()> {
        if member.kind != EntryType::Directory {
            return Err(Trouble::Entry("the image's root is not a directory".to_owned()));
        }
        let root = self.root.clone();
        self.set_owner(root.as_fd(), b".", member, owner)?;
        self.remember(root.as_fd(), Vec::new(), member.mode, Some(member.mtime))
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
        member: &Member,
        owner: Owner,
    ) -> Step<()> {
        let former = match stat(parent, name)? {
            Some(stat) if is_dir(&stat) => Former::Directory,
            _ => self.clear(parent, name, &path)?,
        };
        if former != Former::Directory {
            rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(system("make directory"))?;
        }
        let dir = open_dir(parent, name)?;
        if former == Former::Whiteout {
            self.set_opaque(dir.as_fd())?;
        }
        self.set_owner(parent, name, member, owner)?;
        self.remember(dir.as_fd(), path, member.mode, Some(member.mtime))
    }

    fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        member: &Member,
        data: &mut TarStream<R>,
        owner: Owner,
    ) -> Step<()> {
        self.bytes = self.bytes.saturating_add(member.size);
        if self.bytes > self.options.limits.layer_bytes {
            let limit = self.options.limits.layer_bytes;
            return Err(Trouble::Entry(format!(
                "the layer's files are larger than the limit of {limit} bytes"
            )));
        }
        self.clear(parent, name, path)?;
        let file =
            rustix::fs::openat(parent, name, CREATE, Mode::RUSR | Mode::WUSR).map_err(system("make file"))?;
        let file = std::fs::File::from(file);
        self.copy(member, data, &file)?;
        self.set_owner(parent, name, member, owner)?;
        rustix::fs::fchmod(&file, attributes::mode_of(member.mode)).map_err(system("set mode of"))?;
        attributes::set_fd_times(file.as_fd(), member.mtime).map_err(system("set times of"))
    }

    fn copy<R: Read>(
        &mut self,
        member: &Member,
        data: &mut TarStream<R>,
        mut file: &std::fs::File,
    ) -> Step<()> {
        let Some(segments) = &member.sparse else {
            return self.copy_bytes(member.size, data, file);
        };
        for (offset, length) in segments {
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(*offset)).map_err(written)?;
            self.copy_bytes(*length, data, file)?;
        }
        file.set_len(member.size).map_err(written)
    }

    fn copy_bytes<R: Read>(
        &mut self,
        mut count: u64,
        data: &mut TarStream<R>,
        mut file: &std::fs::File,
    ) -> Step<()> {
        while count > 0 {
            let most = usize::try_from(count).map_or(self.buffer.len(), |c| c.min(self.buffer.len()));
            let read = match data.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(Trouble::Entry("its data ends too early".to_owned())),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Trouble::Entry(format!("cannot read its data: {error}"))),
            };
            file.write_all(&self.buffer[..read]).map_err(written)?;
            count -= read as u64;
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        member: &Member,
        owner: Owner,
    ) -> Step<()> {
        let missing = || {
            let target = String::from_utf8_lossy(&member.link);
            Trouble::Entry(format!("hard link to {target:?}, which this layer does not have before it"))
        };
        let components = name::clean(&member.link).map_err(Trouble::Entry)?;
        let (target, parents) = components.split_last().ok_or_else(missing)?;
        let target_parent = match self.lookup(&parents.join(&b'/')) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing()),
            Err(error) => return Err(Trouble::System("open parent of link target of", error)),
        };
        let target_stat = stat(target_parent.as_fd(), target)?.ok_or_else(missing)?;
        if is_whiteout(&target_stat) {
            return Err(missing());
        }
        if is_dir(&target_stat) {
            return Err(Trouble::Entry("hard link to a directory".to_owned()));
        }
        let here = stat(parent, name)?;
        if here.is_none_or(|here| (here.st_dev, here.st_ino) != (target_stat.st_dev, target_stat.st_ino)) {
            self.clear(parent, name, path)?;
            match rustix::fs::linkat(&target_parent, *target, parent, name, AtFlags::empty()) {
                // What stood here may have been a directory with the target in it.
                Err(Errno::NOENT) => return Err(missing()),
                done => done.map_err(system("make hard link"))?,
            }
        }
        self.update_linked(parent, name, member, owner, &target_stat)
    }

    /// Of the headers of one file the last counts, as in containerd and containers-storage. Most links say the same as
    /// their file, and nothing is touched: a change of the owner would take capabilities away.
    fn update_linked(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        member: &Member,
        owner: Owner,
        is: &Stat,
    ) -> Step<()> {
        let privileges = self.options.privileges;
        let (uid, gid) = owner;
        let moves = uid.is_some_and(|uid| uid.as_raw() != is.st_uid)
            || gid.is_some_and(|gid| gid.as_raw() != is.st_gid);
        if moves {
            attributes::set_owner(parent, name, owner, privileges).map_err(system("set owner of"))?;
        }
        attributes::set_xattrs(parent, name, member, privileges).map_err(system("set attributes of"))?;
        let is_link = FileType::from_raw_mode(is.st_mode) == FileType::Symlink;
        if !is_link && (moves || is.st_mode & 0o7777 != member.mode) {
            rustix::fs::chmodat(parent, name, attributes::mode_of(member.mode), AtFlags::empty())
                .map_err(system("set mode of"))?;
        }
        if (is.st_mtime, u32::try_from(is.st_mtime_nsec).ok()) == (member.mtime.0, Some(member.mtime.1)) {
            return Ok(());
        }
        attributes::set_times(parent, name, member.mtime).map_err(system("set times of"))
    }

    /// Whether it was made.
    fn special(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8], member: &Member) -> Step<bool> {
        let kind = match member.kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let (major, minor) = member.device;
        // Twelve and twenty bits: the kernel would take the rest for something else.
        if major > 0xfff || minor > 0xf_ffff {
            return Err(Trouble::Entry(format!("its device number {major}:{minor} is impossible")));
        }
        self.clear(parent, name, path)?;
        let device = rustix::fs::makedev(major, minor);
        match rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) if self.options.privileges == Privileges::Unprivileged => Ok(false),
            Err(error) => Err(Trouble::System("make device", error)),
        }
    }

    // --- whiteouts ---

    fn opaque(&mut self, components: &[&[u8]]) -> Step<()> {
        let parents = &components[..components.len() - 1];
        let parent = self.parent(parents)?;
        // The descriptor of a lookup (O_PATH) takes no attributes.
        let dir = rustix::fs::openat(&parent, ".", READ_DIR, Mode::empty()).map_err(system("open"))?;
        self.set_opaque(dir.as_fd())
    }

    fn set_opaque(&self, dir: BorrowedFd<'_>) -> Step<()> {
        attributes::set_opaque(dir, self.options.privileges).map_err(system("make opaque"))
    }

    fn whiteout(&mut self, components: &[&[u8]], name: &[u8], owner: Owner) -> Step<()> {
        let parents = &components[..components.len() - 1];
        if self.is_below_whiteout(parents)? {
            return Ok(());
        }
        let parent = self.parent(parents)?;
        match stat(parent.as_fd(), name)? {
            None => {}
            // Of this layer, and the marker speaks of lower ones: what it meant is that nothing shines through.
            Some(stat) if is_dir(&stat) => {
                let dir = open_dir(parent.as_fd(), name)?;
                return self.set_opaque(dir.as_fd());
            }
            Some(_) => return Ok(()),
        }
        let device = rustix::fs::makedev(0, 0);
        rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), device)
            .map_err(system("make whiteout"))?;
        attributes::set_owner(parent.as_fd(), name, owner, self.options.privileges)
            .map_err(system("set owner of whiteout"))
    }

    /// Whether a directory on the way was itself whited out: then nothing in it needs to be.
    fn is_below_whiteout(&self, parents: &[&[u8]]) -> Step<bool> {
        for end in 1..=parents.len() {
            let dir = match self.lookup(&parents[..end - 1].join(&b'/')) {
                Ok(dir) => dir,
                Err(_) => return Ok(false),
            };
            if stat(dir.as_fd(), parents[end - 1])?.is_some_and(|stat| is_whiteout(&stat)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn system(step: &'static str) -> impl FnOnce(Errno) -> Trouble {
    move |error| Trouble::System(step, error)
}

fn written(error: std::io::Error) -> Trouble {
    Trouble::System("write", Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Step<OwnedFd> {
    rustix::fs::openat(parent, name, READ_DIR, Mode::empty()).map_err(system("open"))
}

fn stat(parent: BorrowedFd<'_>, name: &[u8]) -> Step<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Trouble::System("read", error)),
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
