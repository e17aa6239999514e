// SPDX-License-Identifier: Apache-2.0
//! Looks for what no record knows: mounts, namespaces, cgroups, monitors, addresses, layers, directories, records. And,
//! if asked to, takes it away.
//!
//! ```text
//! look -> which ids are known? -> look again: there both times, and known to nobody -> findings
//!                                                                                        |
//!              look again: what is gone was repaired <- take away, id by id <- populated? keep
//! ```
//! Names derive from ids, ids are never used twice, a thing is made after its id is known and is gone before its id is
//! forgotten. So what is there before and after the known ids were read, and is none of them, is an orphan, whatever
//! else the daemon does meanwhile; an operation in flight never is.
//!
//! The last word before anything is deleted is the kernel's: what has processes in it is kept.

mod known;
mod look;
mod offline;
mod processes;
mod repair;
#[cfg(test)]
mod tests;
mod wipe;

use crate::context::Context;
use crate::error::{Error, Result};

pub(crate) use known::quarantined;
pub(crate) use look::is_cgroup_name;
pub use offline::{Offline, Report};

use known::Known;
use look::{Kind, Thing};

/// Something that should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    thing: Thing,
    pub(crate) reason: String,
    pub(crate) outcome: Outcome,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was asked to be done.
    Found,
    /// It is gone.
    Repaired,
    /// It stays, for this reason.
    Kept(String),
}

/// Whether what is populated may be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Populated {
    Keep,
    /// For a wipe that was told so.
    Kill,
}

/// Looks, and repairs if asked to. One at a time.
///
/// # Errors
/// [`Error::FailedPrecondition`] while another check runs; what cannot be looked at.
pub(crate) async fn check(ctx: &Context, repair: bool) -> Result<Vec<Finding>> {
    let Ok(_alone) = ctx.checks.try_acquire() else {
        return Err(Error::FailedPrecondition {
            operation: "Check",
            id: String::new(),
            problem: "another check runs".to_owned(),
        });
    };
    check_alone(ctx, repair.then_some(Populated::Keep)).await
}

async fn check_alone(ctx: &Context, repair: Option<Populated>) -> Result<Vec<Finding>> {
    let mut findings = find(ctx).await?;
    if let Some(populated) = repair
        && !findings.is_empty()
    {
        repair::repair(ctx, &mut findings, populated).await?;
    }
    Ok(findings)
}

async fn find(ctx: &Context) -> Result<Vec<Finding>> {
    let first = look::all(ctx).await?;
    let known = Known::now(ctx, &first).await?;
    let second = look::all(ctx).await?;
    let things: Vec<Thing> = first.into_iter().filter(|thing| second.contains(thing)).collect();
    Ok(judge(things, &known))
}

/// Which of the things are orphans, and why. Pure.
fn judge(things: Vec<Thing>, known: &Known) -> Vec<Finding> {
    let unknown: Vec<Thing> = things.into_iter().filter(|thing| !known.explains(thing)).collect();
    // A cgroup tells nothing of whose it is but its name: another Hull on this machine makes the same.
    let ours: Vec<String> = unknown
        .iter()
        .filter(|it| it.kind != Kind::Cgroup && !it.id.is_empty())
        .map(|it| it.id.clone())
        .collect();
    let is_ours = |thing: &Thing| {
        thing.kind != Kind::Cgroup
            || ours.contains(&thing.id)
            || thing.path.parent().is_some_and(|parent| known.parents.contains(parent))
            || thing.path.ancestors().any(|above| {
                above
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| ours.iter().any(|id| id == name))
            })
    };
    let finding = |thing: Thing| {
        let reason = known.reason(&thing);
        Finding { thing, reason, outcome: Outcome::Found }
    };
    unknown.into_iter().filter(is_ours).map(finding).collect()
}

// === impl Finding ===

impl Finding {
    /// One word or two: `mount`, `cgroup`.
    pub(crate) fn kind(&self) -> &'static str {
        self.thing.kind.word()
    }

    /// Where or what it is.
    pub(crate) fn what(&self) -> &str {
        &self.thing.what
    }

    /// The pod or container that it belonged to; empty where that cannot be told.
    pub(crate) fn id(&self) -> &str {
        &self.thing.id
    }

    /// What a repair does about it.
    pub(crate) fn repair(&self) -> &'static str {
        self.thing.kind.repair()
    }

    /// Why it was kept.
    pub(crate) fn kept(&self) -> &str {
        match &self.outcome {
            Outcome::Kept(why) => why,
            Outcome::Found | Outcome::Repaired => "",
        }
    }
}
