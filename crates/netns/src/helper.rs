// SPDX-License-Identifier: Apache-2.0
//! The helper program: the one process that a user namespace can begin with.
//!
//! A program with threads cannot make a user namespace of its own, and only a process inside can make
//! namespaces that belong to it. So the daemon starts itself once more with [`ARGUMENT`]; both talk over
//! the socket that is the helper's stdin, a byte a step:
//!
//! ```text
//! daemon                               helper (one thread, no privilege outside of its namespace)
//!   start, kinds as argument ------->  unshare(user)
//!        <------------------- `u` ---
//!   write uid_map, gid_map
//!        --- `m` ------------------->  become root inside, unshare(net, ipc, uts)
//!        <------------------- `n` ---
//!   open /proc/PID/ns/*                wait
//!   close -------------------------->  end                      on failure: `!` and words, end
//! ```
//! The daemon's death closes the socket, and that ends the helper.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::request::Kind;

/// The program's first argument when it is the helper that is wanted.
pub const ARGUMENT: &str = "netns-helper";

/// The user namespace is there: its maps can be written.
pub(crate) const USER_MADE: u8 = b'u';
/// The maps are written.
pub(crate) const MAPPED: u8 = b'm';
/// The other namespaces are there.
pub(crate) const ALL_MADE: u8 = b'n';
/// It failed; words follow.
pub(crate) const FAILED: u8 = b'!';

/// Runs the helper if these, a program's arguments, ask for it. A program that is to serve as helper
/// (see [`LinuxConfig::helper`](crate::LinuxConfig)) calls this before it starts a thread, and ends with
/// what is returned.
pub fn run_if_asked(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    if args.next()? != ARGUMENT {
        return None;
    }
    let kinds = args.next().unwrap_or_default();
    Some(match run(&kinds.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn run(kinds: &str) -> io::Result<()> {
    let mut daemon = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    make(kinds, &mut daemon).inspect_err(|error| {
        // The daemon may be gone; then there is nobody to tell.
        let _ = write!(daemon, "{}{error}", char::from(FAILED));
    })
}

fn make(kinds: &str, daemon: &mut UnixStream) -> io::Result<()> {
    let flags = flags(kinds)?;
    step("make a user namespace", own_unshare(CloneFlags::CLONE_NEWUSER))?;
    daemon.write_all(&[USER_MADE])?;
    let mut byte = [0];
    daemon.read_exact(&mut byte)?;
    if byte != [MAPPED] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the daemon says what is not understood"));
    }
    // What it makes from now on belongs to the root of the namespace, not to an id that does not exist there.
    step("drop groups", setgroups(&[]))?;
    let (gid, uid) = (Gid::from_raw(0), Uid::from_raw(0));
    step("become group 0 of the namespace", setresgid(gid, gid, gid))?;
    step("become user 0 of the namespace", setresuid(uid, uid, uid))?;
    step("make the other namespaces", own_unshare(flags))?;
    daemon.write_all(&[ALL_MADE])?;
    // Its end is all that is waited for.
    daemon.read_exact(&mut byte).or_else(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(()),
        _ => Err(error),
    })
}

fn flags(kinds: &str) -> io::Result<CloneFlags> {
    let mut flags = 0;
    for name in kinds.split(',').filter(|name| !name.is_empty()) {
        let kind = Kind::ALL.into_iter().find(|kind| *kind != Kind::User && kind.name() == name);
        let kind = kind.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("unknown namespace {name:?}"))
        })?;
        flags |= kind.clone_flag();
    }
    Ok(CloneFlags::from_bits_truncate(flags))
}

#[expect(clippy::disallowed_methods, reason = "a process with one thread, made for nothing else")]
fn own_unshare(flags: CloneFlags) -> nix::Result<()> {
    unshare(flags)
}

fn step(what: &str, result: nix::Result<()>) -> io::Result<()> {
    result.map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("{what}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_arguments_are_not_for_the_helper() {
        for args in [&["hull"][..], &["hull", "serve"], &["hull", "serve", ARGUMENT], &[]] {
            assert!(run_if_asked(args.iter().map(OsString::from)).is_none(), "{args:?}");
        }
    }

    #[test]
    fn only_what_can_be_made_inside_is_taken() {
        assert_eq!(flags("").unwrap(), CloneFlags::empty());
        assert_eq!(flags("net,uts").unwrap(), CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS);
        for bad in ["user", "mnt", "net uts"] {
            assert!(flags(bad).unwrap_err().to_string().contains(bad), "{bad}");
        }
    }
}
