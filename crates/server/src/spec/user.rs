// SPDX-License-Identifier: Apache-2.0
//! Who the process is: uid, gid and groups, looked up in the container's own `/etc/passwd` and
//! `/etc/group`.
//!
//! ```text
//! run_as_user          uid; gid from its passwd line, else 0
//! run_as_username      user[:group], names or numbers
//! neither              the image's USER, in the same form; empty is root
//! run_as_group         replaces the gid; an error without one of the first two
//! ```
//!
//! The files belong to the image, so they are hostile: they are opened with the root as the end of the
//! world (`RESOLVE_IN_ROOT`), must be regular files, and only their first part is read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use hull_image_store::ImageConfig;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{SpecError, security_context};

/// Larger files are refused. Directories of a whole company fit.
const LARGEST: u64 = 16 << 20;

/// The largest id: `u32::MAX` means "no id" to the kernel.
const LARGEST_ID: i64 = u32::MAX as i64 - 1;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserRequest {
    /// `run_as_user`; wins over the name.
    pub uid: Option<i64>,
    /// `run_as_username`: `user[:group]`; empty: the image's.
    pub name: String,
    /// `run_as_group`.
    pub gid: Option<i64>,
    /// `supplemental_groups`.
    pub groups: Vec<i64>,
    /// Whether the groups of `/etc/group` count too.
    pub policy: GroupsPolicy,
    /// The image's USER: `user[:group]`; empty: root.
    pub image_user: String,
}

/// Which supplemental groups a process gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupsPolicy {
    /// Those asked for and those in the image's `/etc/group`.
    #[default]
    Merge,
    /// Those asked for.
    Strict,
}

/// Who the process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups, the primary one among them; sorted, without doubles.
    pub groups: Vec<u32>,
}

impl UserRequest {
    /// What a container and its image ask for.
    pub fn new(container: &v1::ContainerConfig, image: &ImageConfig) -> Result<Self, SpecError> {
        let mut request = Self { image_user: image.user.clone(), ..Self::default() };
        let Some(security) = security_context(container) else { return Ok(request) };
        request.uid = security.run_as_user.as_ref().map(|it| it.value);
        request.name = security.run_as_username.clone();
        request.gid = security.run_as_group.as_ref().map(|it| it.value);
        request.groups = security.supplemental_groups.clone();
        request.policy = match v1::SupplementalGroupsPolicy::try_from(security.supplemental_groups_policy) {
            Ok(v1::SupplementalGroupsPolicy::Merge) => GroupsPolicy::Merge,
            Ok(v1::SupplementalGroupsPolicy::Strict) => GroupsPolicy::Strict,
            Err(_) => {
                let problem = format!("unknown value {}", security.supplemental_groups_policy);
                return Err(SpecError::invalid(FIELD_POLICY, problem));
            }
        };
        Ok(request)
    }
}

const FIELD_POLICY: &str = "linux.security_context.supplemental_groups_policy";
const FIELD_USER: &str = "linux.security_context.run_as_user";
const FIELD_NAME: &str = "linux.security_context.run_as_username";
const FIELD_GROUP: &str = "linux.security_context.run_as_group";
const FIELD_GROUPS: &str = "linux.security_context.supplemental_groups";

/// Looks the user up below `rootfs`, which must be the container's mounted root. Blocks on files.
pub fn resolve_user(rootfs: &Path, want: UserRequest) -> Result<ResolvedUser, SpecError> {
    if want.gid.is_some() && want.uid.is_none() && want.name.is_empty() {
        let problem = "needs run_as_user or run_as_username beside it";
        return Err(SpecError::invalid(FIELD_GROUP, problem));
    }
    // Bad numbers first: a request that cannot work should not depend on what the image holds.
    let gid = want.gid.map(|gid| id(FIELD_GROUP, gid)).transpose()?;
    let groups = want.groups.iter().map(|gid| id(FIELD_GROUPS, *gid)).collect::<Result<Vec<_>, _>>()?;

    let passwd = read_in_root(rootfs, "etc/passwd")?;
    let group_file = read_in_root(rootfs, "etc/group")?;
    let spec = if want.name.is_empty() { want.image_user.as_str() } else { want.name.as_str() };
    let (user, named_group) = match want.uid {
        Some(uid) => (Who::Uid(id(FIELD_USER, uid)?), None),
        None => split(spec),
    };
    let asked_by = if want.name.is_empty() { "the image's User" } else { FIELD_NAME };
    let account = find_user(&passwd, &user, asked_by)?;
    let primary = match (gid, named_group) {
        (Some(gid), _) => gid,
        (None, Some(group)) => find_group(&group_file, group, asked_by)?,
        (None, None) => account.gid,
    };
    let mut all = groups;
    if want.policy == GroupsPolicy::Merge
        && let Some(name) = &account.name
    {
        all.extend(memberships(&group_file, name));
    }
    all.push(primary);
    all.sort_unstable();
    all.dedup();
    Ok(ResolvedUser { uid: account.uid, gid: primary, groups: all })
}

fn id(field: &str, value: i64) -> Result<u32, SpecError> {
    if !(0..=LARGEST_ID).contains(&value) {
        return Err(SpecError::invalid(
            field,
            format!("{value} is not an id: they go from 0 to {LARGEST_ID}"),
        ));
    }
    u32::try_from(value).map_err(|_| SpecError::invalid(field, format!("{value} is not an id")))
}

/// A user, as asked for.
enum Who<'a> {
    Uid(u32),
    Name(&'a str),
}

/// A user, as found.
struct Account {
    uid: u32,
    gid: u32,
    name: Option<String>,
}

/// Takes `user[:group]` apart. An empty user is root.
fn split(spec: &str) -> (Who<'_>, Option<&str>) {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    match user {
        "" => (Who::Uid(0), group),
        _ => (number(user).map_or(Who::Name(user), Who::Uid), group),
    }
}

/// Digits alone, in range. `+1` parses as an integer but is a name.
fn number(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|it| i64::from(*it) <= LARGEST_ID)
}

/// `name:password:uid:gid:...`. A uid without a line is fine, a name without one is not.
fn find_user(passwd: &str, who: &Who<'_>, asked_by: &'static str) -> Result<Account, SpecError> {
    for line in passwd.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(_), Some(uid), Some(gid)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (Some(uid), Some(gid)) = (number(uid), number(gid)) else { continue };
        let found = match who {
            Who::Uid(wanted) => uid == *wanted,
            Who::Name(wanted) => name == *wanted,
        };
        if found {
            return Ok(Account { uid, gid, name: Some(name.to_owned()) });
        }
    }
    match who {
        Who::Uid(uid) => Ok(Account { uid: *uid, gid: 0, name: None }),
        Who::Name(name) => Err(SpecError::UnknownUser { asked_by, name: (*name).to_owned() }),
    }
}

/// The gid of a group: a number, or a name of `name:password:gid:members`.
fn find_group(file: &str, wanted: &str, asked_by: &'static str) -> Result<u32, SpecError> {
    if let Some(gid) = number(wanted) {
        return Ok(gid);
    }
    group_lines(file)
        .find(|(name, ..)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| SpecError::UnknownGroup { asked_by, name: wanted.to_owned() })
}

/// The gids of the groups that list the user.
fn memberships<'a>(file: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group_lines(file)
        .filter(move |(_, _, members)| members.split(',').any(|it| it.trim() == user))
        .map(|(_, gid, _)| gid)
}

fn group_lines(file: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, number(fields.next()?)?);
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// Reads a file of the container; a missing one is empty.
fn read_in_root(rootfs: &Path, path: &'static str) -> Result<String, SpecError> {
    let failed = |step, source: std::io::Error| SpecError::Io { step, path: rootfs.join(path), source };
    let root = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| SpecError::Io { step: "open", path: PathBuf::from(rootfs), source: errno.into() })?;
    // NONBLOCK: opening a fifo would wait for a writer that never comes.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        file => File::from(file.map_err(|errno| failed("open", errno.into()))?),
    };
    let invalid = |text: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, text);
    if !file.metadata().map_err(|source| failed("look at", source))?.is_file() {
        return Err(failed("read", invalid("the image has something there that is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|source| failed("read", source))?;
    if bytes.len() as u64 > LARGEST {
        return Err(failed("read", invalid("the image's file is larger than 16 MiB")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
