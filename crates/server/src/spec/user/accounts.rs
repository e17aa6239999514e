// SPDX-License-Identifier: Apache-2.0
//! User strings, and `/etc/passwd` and `/etc/group` of an image, with the rules of the Go package moby/sys/user that
//! the other runtimes share.
//!
//! ```text
//! string   a number with or without sign: an id, never a name; out of range: an error. Anything else: a name
//! line     name:password:uid:gid:...   or   name:password:gid:member,member
//!          trimmed; blank lines and, among groups, comments are skipped; missing and empty fields are 0
//! ```
//! Where that package takes text that is no number for 0, which is root, the line cannot be used: asked for by name it
//! is an error. A line without a uid names no user by number.

use crate::spec::SpecError;

/// The largest id that a user string may give: what runtimes take on every machine.
const LARGEST_NAMED: i64 = i32::MAX as i64;

/// A user or a group, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who<'a> {
    Id(u32),
    Name(&'a str),
}

/// A user, as found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) name: Option<String>,
}

/// Takes `user[:group]` apart. An empty user is root, an empty group none.
pub(super) fn split<'a>(
    spec: &'a str,
    asked_by: &'static str,
) -> Result<(Who<'a>, Option<Who<'a>>), SpecError> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    let who = |text: &'a str| who(text).map_err(|problem| SpecError::invalid(asked_by, problem));
    let user = if user.is_empty() { Who::Id(0) } else { who(user)? };
    let group = if group.is_empty() { None } else { Some(who(group)?) };
    Ok((user, group))
}

/// What a string means; the error says why it means nothing.
pub(super) fn who(text: &str) -> Result<Who<'_>, String> {
    match number(text) {
        None => Ok(Who::Name(text)),
        Some(id) => match u32::try_from(id) {
            Ok(id) if i64::from(id) <= LARGEST_NAMED => Ok(Who::Id(id)),
            _ => Err(format!("{text:?} is out of range: ids go from 0 to {LARGEST_NAMED}")),
        },
    }
}

/// A decimal number with or without sign, as near as its type comes; `None`: it is no number.
fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value = digits.parse().unwrap_or(i64::MAX);
    Some(if negative { -value } else { value })
}

/// An id in a file: 0 where the field is missing or empty, `None` where it is no id.
fn id(field: Option<&str>) -> Option<u32> {
    match field {
        None | Some("") => Some(0),
        Some(text) => u32::try_from(number(text)?).ok().filter(|id| *id != u32::MAX),
    }
}

/// Looks a user up. A uid without a line is fine, a name without one is not.
pub(super) fn find_user(passwd: &str, who: Who<'_>, asked_by: &'static str) -> Result<Account, SpecError> {
    for line in passwd.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default();
        let (uid, gid) = (fields.nth(1), fields.next());
        let account = |uid, gid| Account { uid, gid, name: Some(name.to_owned()) };
        match who {
            Who::Id(wanted) if uid.is_some_and(|uid| !uid.is_empty()) && id(uid) == Some(wanted) => {
                return Ok(account(wanted, id(gid).unwrap_or(0)));
            }
            Who::Name(wanted) if name == wanted => {
                let (Some(uid), Some(gid)) = (id(uid), id(gid)) else {
                    let problem =
                        format!("user {name:?} has no usable uid and gid in the image's /etc/passwd");
                    return Err(SpecError::invalid(asked_by, problem));
                };
                return Ok(account(uid, gid));
            }
            _ => {}
        }
    }
    match who {
        Who::Id(uid) => Ok(Account { uid, gid: 0, name: None }),
        Who::Name(name) => Err(SpecError::UnknownUser { asked_by, name: name.to_owned() }),
    }
}

/// The gid of a group.
pub(super) fn find_group(file: &str, wanted: Who<'_>, asked_by: &'static str) -> Result<u32, SpecError> {
    let name = match wanted {
        Who::Id(gid) => return Ok(gid),
        Who::Name(name) => name,
    };
    match groups(file).find(|(group, ..)| *group == name) {
        Some((_, Some(gid), _)) => Ok(gid),
        Some(_) => {
            let problem = format!("group {name:?} has no usable gid in the image's /etc/group");
            Err(SpecError::invalid(asked_by, problem))
        }
        None => Err(SpecError::UnknownGroup { asked_by, name: name.to_owned() }),
    }
}

/// The gids of the groups that list the user.
pub(super) fn memberships<'a>(file: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(file)
        .filter(move |(_, _, members)| members.split(',').any(|member| !member.is_empty() && member == user))
        .filter_map(|(_, gid, _)| gid)
}

/// Name, gid and members of each group.
fn groups(file: &str) -> impl Iterator<Item = (&str, Option<u32>, &str)> {
    let lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default();
        (name, id(fields.nth(1)), fields.next().unwrap_or_default())
    })
}
