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
use accounts::Who;

mod accounts;

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

/// The user of an image's `user[:group]` as ImageStatus shows it: its uid or its name, one of them. A number that
/// cannot be an id is shown as a name: [`resolve_user`] refuses it, and nobody who must not be root may take it for a uid.
pub fn image_user(spec: &str) -> (Option<u32>, String) {
    let user = spec.split(':').next().unwrap_or_default();
    match accounts::who(user) {
        Ok(Who::Id(uid)) => (Some(uid), String::new()),
        Ok(Who::Name(_)) | Err(_) => (None, user.to_owned()),
    }
}

/// Looks the user up below `rootfs`, which must be the container's mounted root. Blocks on files.
pub fn resolve_user(rootfs: &Path, want: UserRequest) -> Result<ResolvedUser, SpecError> {
    if want.gid.is_some() && want.uid.is_none() && want.name.is_empty() {
        let problem = "needs run_as_user or run_as_username beside it";
        return Err(SpecError::invalid(FIELD_GROUP, problem));
    }
    // Bad numbers first: a request that cannot work should not depend on what the image holds.
    let gid = want.gid.map(|gid| id(FIELD_GROUP, gid)).transpose()?;
    let groups = want.groups.iter().map(|gid| id(FIELD_GROUPS, *gid)).collect::<Result<Vec<_>, _>>()?;

    let (spec, asked_by) =
        if want.name.is_empty() { (&want.image_user, "the image's User") } else { (&want.name, FIELD_NAME) };
    let (user, named_group) = match want.uid {
        Some(uid) => (Who::Id(id(FIELD_USER, uid)?), None),
        None => accounts::split(spec, asked_by)?,
    };

    let passwd = read_in_root(rootfs, "etc/passwd")?;
    let group_file = read_in_root(rootfs, "etc/group")?;
    let account = accounts::find_user(&passwd, user, asked_by)?;
    let primary = match (gid, named_group) {
        (Some(gid), _) => gid,
        (None, Some(group)) => accounts::find_group(&group_file, group, asked_by)?,
        (None, None) => account.gid,
    };
    let mut all = groups;
    if want.policy == GroupsPolicy::Merge
        && let Some(name) = &account.name
    {
        all.extend(accounts::memberships(&group_file, name));
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
