// SPDX-License-Identifier: Apache-2.0
//! Owners, extended attributes, modes and times, in the order that keeps them: a change of owner clears set-id
//! bits and capabilities, and every other change touches the times.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Privileges;
use crate::tar_stream::Member;

/// What is set when everything below a directory is done.
#[derive(Debug, Clone)]
pub(super) struct DirectoryAttributes {
    /// Device and inode of the directory meant.
    pub(super) identity: (u64, u64),
    pub(super) mode: u32,
    pub(super) mtime: Option<(i64, u32)>,
}

/// Owner and group; `None` leaves what is there.
pub(super) type Owner = (Option<Uid>, Option<Gid>);

/// Owner and group of a member as the kernel takes them: -2 is 4294967294, and -1 changes nothing.
pub(super) fn owner(member: &Member) -> Result<Owner, String> {
    let id = |raw: i64| match u32::try_from(raw).or_else(|_| i32::try_from(raw).map(i32::cast_unsigned)) {
        Ok(u32::MAX) => Ok(None),
        Ok(id) => Ok(Some(id)),
        Err(_) => Err(format!("its owner {}:{} is impossible", member.uid, member.gid)),
    };
    Ok((id(member.uid)?.map(Uid::from_raw), id(member.gid)?.map(Gid::from_raw)))
}

/// Sets owner and attributes of `name` in `parent`, never of what a link points at.
pub(super) fn set_owner_and_xattrs(
    parent: BorrowedFd<'_>,
    name: &[u8],
    member: &Member,
    owner: Owner,
    privileges: Privileges,
) -> rustix::io::Result<()> {
    set_owner(parent, name, owner, privileges)?;
    set_xattrs(parent, name, member, privileges)
}

/// Sets the owner alone. Set-id bits and capabilities of a file are gone afterwards.
pub(super) fn set_owner(
    parent: BorrowedFd<'_>,
    name: &[u8],
    (uid, gid): Owner,
    privileges: Privileges,
) -> rustix::io::Result<()> {
    match rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::PERM | Errno::INVAL) if privileges == Privileges::Unprivileged => Ok(()),
        done => done,
    }
}

/// Sets the extended attributes of a member; others stay.
pub(super) fn set_xattrs(
    parent: BorrowedFd<'_>,
    name: &[u8],
    member: &Member,
    privileges: Privileges,
) -> rustix::io::Result<()> {
    for (key, value) in &member.xattrs {
        set_xattr(parent, name, key, value, privileges)?;
    }
    Ok(())
}

fn set_xattr(
    parent: BorrowedFd<'_>,
    name: &[u8],
    key: &[u8],
    value: &[u8],
    privileges: Privileges,
) -> rustix::io::Result<()> {
    if is_kept_out(key) {
        return Ok(());
    }
    // There is no lsetxattrat before 6.13; the magic link leads to the directory that is already open.
    let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
    match rustix::fs::lsetxattr(path, key, value, XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => {
            let key = String::from_utf8_lossy(key);
            tracing::warn!(attribute = %key, "the file system cannot keep an extended attribute of a layer");
            Ok(())
        }
        // The kernel allows user.* on files and directories alone.
        Err(Errno::PERM) if privileges == Privileges::Unprivileged || key.starts_with(b"user.") => Ok(()),
        done => done,
    }
}

/// Attributes that mean something to this machine, not to the image.
fn is_kept_out(key: &[u8]) -> bool {
    key == b"security.selinux" || key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

/// Marks a directory as hiding what lies below it in lower layers.
pub(super) fn set_opaque(dir: BorrowedFd<'_>, privileges: Privileges) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(dir, opaque_name(privileges), b"y", XattrFlags::empty())
}

/// The attribute of an opaque directory.
pub(super) fn opaque_name(privileges: Privileges) -> &'static str {
    match privileges {
        Privileges::Root => "trusted.overlay.opaque",
        Privileges::Unprivileged => "user.overlay.opaque",
    }
}

/// Sets access and modification time of `name` in `parent`, of a link itself.
pub(super) fn set_times(parent: BorrowedFd<'_>, name: &[u8], mtime: (i64, u32)) -> rustix::io::Result<()> {
    rustix::fs::utimensat(parent, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// As [`set_times`] for an open file.
pub(super) fn set_fd_times(fd: BorrowedFd<'_>, mtime: (i64, u32)) -> rustix::io::Result<()> {
    rustix::fs::futimens(fd, &timestamps(mtime))
}

fn timestamps(mtime: (i64, u32)) -> Timestamps {
    // The kernel clamps to what the file system can keep.
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Permission, set-id and sticky bits.
pub(super) fn mode_of(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o7777)
}
