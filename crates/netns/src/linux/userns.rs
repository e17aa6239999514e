// SPDX-License-Identifier: Apache-2.0
//! A user namespace and what belongs to it, made by the helper; see [`crate::helper`] for what is said.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_failpoint::failpoint;
use hull_process::{Child, Command, Stdio};
use nix::sched::{CloneFlags, setns};

use super::{Helper, io_error};
use crate::helper::{ALL_MADE, FAILED, MAPPED, USER_MADE};
use crate::request::Kind;
use crate::{IdMapping, Result, UserMappings, mapping};

/// How long the helper may take for one step; a node under load has it slow, never this slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most of its words that are kept.
const MOST_WORDS: u64 = 4096;

/// Namespaces that live as long as these files are open, or until they are pinned.
#[derive(Debug)]
pub(super) struct Made {
    files: Vec<(Kind, File)>,
}

/// Has a user namespace made with these ids, and in it the other kinds. Blocks.
pub(super) fn make(helper: &Helper, mappings: &UserMappings, kinds: &[Kind]) -> Result<Made> {
    let failed = || io_error("have a user namespace made by", &helper.program);
    let (mut own, theirs) = UnixStream::pair().map_err(failed())?;
    own.set_read_timeout(Some(PATIENCE)).map_err(failed())?;
    own.set_write_timeout(Some(PATIENCE)).map_err(failed())?;
    failpoint!("netns.user.spawn").map_err(failed())?;
    let others: Vec<&str> = kinds.iter().filter(|kind| **kind != Kind::User).map(|it| it.name()).collect();
    // Dropped at the end, which kills what has not ended by itself.
    let child = Command::new(&helper.program)
        .args(&helper.args)
        .arg(others.join(","))
        .env_clear()
        .stdin(Stdio::Fd(theirs.into()))
        .spawn()
        .map_err(|error| failed()(io::Error::other(error)))?;
    expect(&mut own, USER_MADE).map_err(failed())?;
    write_map(child.pid(), "uid_map", &mappings.uids)?;
    write_map(child.pid(), "gid_map", &mappings.gids)?;
    own.write_all(&[MAPPED]).map_err(failed())?;
    expect(&mut own, ALL_MADE).map_err(failed())?;
    open(&child, kinds)
}

/// Waits for one byte of the helper's.
fn expect(helper: &mut UnixStream, wanted: u8) -> io::Result<()> {
    let mut byte = [0];
    let said = match helper.read_exact(&mut byte) {
        Ok(()) => byte[0],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(io::Error::new(error.kind(), "the helper ended before it was done"));
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            let text = format!("the helper did not answer within {} s", PATIENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Err(error) => return Err(error),
    };
    if said == wanted {
        return Ok(());
    }
    if said != FAILED {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the helper says what is not understood"));
    }
    let mut words = Vec::new();
    helper.take(MOST_WORDS).read_to_end(&mut words)?;
    Err(io::Error::other(String::from_utf8_lossy(&words).into_owned()))
}

fn write_map(pid: i32, name: &str, mappings: &[IdMapping]) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    let written = || -> io::Result<()> {
        failpoint!("netns.user.map")?;
        let text = mapping::text(mappings);
        // The kernel takes one write as the whole map.
        let length = OpenOptions::new().write(true).open(&path)?.write(text.as_bytes())?;
        if length == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    };
    written().map_err(|error| {
        let error = match error.raw_os_error() {
            Some(libc::EPERM) => io::Error::new(
                error.kind(),
                format!("{error}: the daemon itself does not have all of these ids of the host"),
            ),
            _ => error,
        };
        io_error("write", &path)(error)
    })
}

/// Opens the namespaces of the helper, and makes sure that it was the helper that they were opened of.
fn open(child: &Child, kinds: &[Kind]) -> Result<Made> {
    let mut files = Vec::new();
    for kind in kinds {
        let path = PathBuf::from(format!("/proc/{}/ns/{}", child.pid(), kind.name()));
        failpoint!("netns.user.open").map_err(io_error("open", &path))?;
        files.push((*kind, File::open(&path).map_err(io_error("open", &path))?));
    }
    // Its number cannot have been given to another while it is not reaped.
    if child.id().is_none() {
        let gone = io::Error::new(io::ErrorKind::NotFound, "the helper has ended meanwhile");
        return Err(io_error("open namespaces of", Path::new("/proc"))(gone));
    }
    Ok(Made { files })
}

// === impl Made ===

impl Made {
    /// Takes this thread, which is to end afterwards, into all but the user namespace: a program with threads
    /// has one of those. What it then does inside it does as the root of the host.
    pub(super) fn enter(&self) -> nix::Result<()> {
        for (kind, file) in self.files.iter().filter(|(kind, _)| *kind != Kind::User) {
            let flag = CloneFlags::from_bits_truncate(kind.clone_flag());
            #[expect(clippy::disallowed_methods, reason = "this thread ends after the work")]
            setns(file.as_fd(), flag)?;
        }
        Ok(())
    }

    /// The user namespace alone.
    pub(super) fn into_user(self) -> Option<File> {
        self.files.into_iter().find(|(kind, _)| *kind == Kind::User).map(|(_, file)| file)
    }

    /// What to bind-mount of a kind.
    pub(super) fn path(&self, wanted: Kind) -> Option<PathBuf> {
        let (_, file) = self.files.iter().find(|(kind, _)| *kind == wanted)?;
        Some(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
    }
}
