// SPDX-License-Identifier: Apache-2.0
//! Where the files of an image lie: in a directory, or in a tar by offset.
//!
//! An archive is read twice: once for the offsets of its members, then member by member, in whatever order
//! they are needed. No member is ever held in memory whole, except documents.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::{MAX_DOCUMENT, invalid};
use crate::layer::Decompressed;
use crate::retry::again;
use crate::tar_stream::TarStream;
use crate::{Error, Result};

/// Links from one member to another that are followed.
const MAX_LINKS: usize = 8;
/// Members of an archive.
const MAX_MEMBERS: usize = 100_000;

/// Files by name.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    files: Files,
    cancel: CancellationToken,
}

#[derive(Debug)]
enum Files {
    Directory(std::os::fd::OwnedFd),
    Archive { file: File, members: HashMap<String, Place> },
}

#[derive(Debug)]
enum Place {
    At { offset: u64, size: u64 },
    Link(String),
}

/// One file of a source.
#[derive(Debug)]
pub(crate) struct Blob<'a> {
    file: FileOf<'a>,
    position: u64,
    end: u64,
    cancel: &'a CancellationToken,
}

#[derive(Debug)]
enum FileOf<'a> {
    Own(File),
    Shared(&'a File),
}

// === impl Source ===

impl Source {
    /// Opens a directory or an archive. A compressed archive is first unpacked into `scratch`, an unlinked file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Invalid`].
    pub(crate) fn open(path: &Path, scratch: &Path, limit: u64, cancel: CancellationToken) -> Result<Self> {
        let failed =
            |step: &'static str| move |source: io::Error| Error::Io { step, path: path.to_owned(), source };
        // A fifo would block; nothing else cares about O_NONBLOCK.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed("open")(e.into()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| failed("read")(e.into()))?;
        let files = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Files::Directory(fd),
            FileType::RegularFile => {
                let file = plain_archive(File::from(fd), path, scratch, limit, &cancel)?;
                let members = members(&file, path, &cancel)?;
                Files::Archive { file, members }
            }
            _ => return Err(invalid(path.display().to_string(), "neither a directory nor a file")),
        };
        Ok(Self { path: path.to_owned(), files, cancel })
    }

    /// The path, for messages and names.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path as text.
    pub(crate) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// The path and one file in it as text.
    pub(crate) fn shown_file(&self, name: &str) -> String {
        let name: String = name.chars().take(200).collect();
        format!("{}: {name}", self.path.display())
    }

    /// Whether there is a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        matches!(self.open_file(name), Ok(Some(_)))
    }

    /// A file to read.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none.
    pub(crate) fn blob(&self, name: &str) -> Result<Blob<'_>> {
        self.open_file(name)?.ok_or_else(|| invalid(self.shown_file(name), "it is missing"))
    }

    /// A whole document.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none or it is larger than [`MAX_DOCUMENT`].
    pub(crate) fn document(&self, name: &str) -> Result<Vec<u8>> {
        let blob = self.blob(name)?;
        let size = blob.len();
        if size > MAX_DOCUMENT {
            let problem = format!("{size} bytes are too much for a document (the limit is {MAX_DOCUMENT})");
            return Err(invalid(self.shown_file(name), problem));
        }
        let mut bytes = Vec::new();
        BufReader::new(blob.take(MAX_DOCUMENT)).read_to_end(&mut bytes).map_err(|source| Error::Io {
            step: "read",
            path: self.path.join(name),
            source,
        })?;
        Ok(bytes)
    }

    fn open_file(&self, name: &str) -> Result<Option<Blob<'_>>> {
        match &self.files {
            Files::Directory(root) => self.open_in_directory(root, name),
            Files::Archive { file, members } => {
                let mut name = normal(name);
                for _ in 0..MAX_LINKS {
                    match name.as_deref().and_then(|name| members.get(name)) {
                        None => return Ok(None),
                        Some(Place::Link(target)) => name = Some(target.clone()),
                        Some(Place::At { offset, size }) => {
                            let end = offset.saturating_add(*size);
                            let file = FileOf::Shared(file);
                            return Ok(Some(Blob { file, position: *offset, end, cancel: &self.cancel }));
                        }
                    }
                }
                Ok(None)
            }
        }
    }

    fn open_in_directory(&self, root: &std::os::fd::OwnedFd, name: &str) -> Result<Option<Blob<'_>>> {
        let failed = |error: Errno| Error::Io {
            step: "open",
            path: self.path.join(name.trim_start_matches('/')),
            source: error.into(),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = match again(|| rustix::fs::openat2(root, name, flags, Mode::empty(), inside)) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let end = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Some(Blob { file: FileOf::Own(File::from(fd)), position: 0, end, cancel: &self.cancel }))
    }
}

/// The archive without its compression.
fn plain_archive(
    file: File,
    path: &Path,
    scratch: &Path,
    limit: u64,
    cancel: &CancellationToken,
) -> Result<File> {
    let io_error = |step, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { step, path, source }
    };
    let size = file.metadata().map_err(io_error("read", path))?.len();
    let blob = Blob { file: FileOf::Shared(&file), position: 0, end: size, cancel };
    let mut stream = match Decompressed::new(crate::layer::buffered(blob)) {
        Ok(Decompressed::Plain(_)) => return Ok(file),
        Ok(stream) => stream.take(limit.saturating_add(1)),
        Err(problem) => return Err(invalid(path.display().to_string(), problem)),
    };
    failpoint!("image-store.import.scratch").map_err(io_error("make", scratch))?;
    let mut plain = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(hull_files::PRIVATE_FILE)
        .open(scratch)
        .map_err(io_error("make", scratch))?;
    std::fs::remove_file(scratch).map_err(io_error("unlink", scratch))?;
    let mut buffer = vec![0; 128 * 1024];
    let mut written = 0_u64;
    loop {
        let read = stream.read(&mut buffer).map_err(|e| {
            invalid(path.display().to_string(), format!("cannot read the compressed archive: {e}"))
        })?;
        if read == 0 {
            return Ok(plain);
        }
        written += read as u64;
        if written > limit {
            let problem = format!("uncompressed it is larger than the limit of {limit} bytes");
            return Err(invalid(path.display().to_string(), problem));
        }
        io::Write::write_all(&mut plain, &buffer[..read]).map_err(io_error("write", scratch))?;
    }
}

fn members(file: &File, path: &Path, cancel: &CancellationToken) -> Result<HashMap<String, Place>> {
    let bad = |problem: String| invalid(path.display().to_string(), problem);
    let size =
        file.metadata().map_err(|source| Error::Io { step: "read", path: path.to_owned(), source })?.len();
    let blob = Blob { file: FileOf::Shared(file), position: 0, end: size, cancel };
    let mut tar = TarStream::new(blob);
    let mut members = HashMap::new();
    while let Some(member) = tar.next_member().map_err(bad)? {
        // Names that no manifest can say are of no use.
        let Some(name) = String::from_utf8(member.path).ok().and_then(|name| normal(&name)) else {
            continue;
        };
        let link = String::from_utf8(member.link).unwrap_or_default();
        let place = match member.kind {
            tar::EntryType::Link => normal(&link).map(Place::Link),
            tar::EntryType::Symlink => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                let target = if link.starts_with('/') { link } else { format!("{parent}/{link}") };
                normal(&target).map(Place::Link)
            }
            tar::EntryType::Regular | tar::EntryType::Continuous if member.sparse.is_none() => {
                Some(Place::At { offset: member.offset, size: member.size })
            }
            _ => None,
        };
        if let Some(place) = place {
            members.insert(name, place);
        }
        if members.len() > MAX_MEMBERS {
            return Err(bad(format!("more than {MAX_MEMBERS} files in an archive of images")));
        }
        // The first pass does not read the data.
        let (position, remaining) = tar.skip_data();
        if position.checked_add(remaining).is_none_or(|end| end > size) {
            return Err(bad("the archive ends within a file: it is truncated".to_owned()));
        }
        tar.inner_mut().position = position + remaining;
    }
    Ok(members)
}

/// A name without `.`, `..`, double and leading slashes; `None` if it leaves the root.
fn normal(name: &str) -> Option<String> {
    let mut components: Vec<&str> = Vec::new();
    for component in name.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()?),
            component => components.push(component),
        }
    }
    Some(components.join("/"))
}

// === impl Blob ===

impl Blob<'_> {
    /// Bytes that are left.
    pub(crate) fn len(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("the import was cancelled"));
        }
        let left = self.len();
        let most = usize::try_from(left).map_or(buf.len(), |left| buf.len().min(left));
        let file = match &self.file {
            FileOf::Own(file) => file,
            FileOf::Shared(file) => *file,
        };
        let read = file.read_at(&mut buf[..most], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
