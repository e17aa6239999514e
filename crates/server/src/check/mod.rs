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
//! An orphan is this daemon's: it lies where only this daemon puts things, or its id stands in the [journal](crate::ids), in
//! a record, or in the name of a directory that is this daemon's. What another Hull made is not reported.
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
use crate::records::blocking;

pub(crate) use known::quarantined;
pub(crate) use look::is_cgroup_name;
pub use offline::{Offline, Report};

use known::Known;
use look::Thing;

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
    let journal = ctx.records.clone();
    let live = blocking(move || journal.ids().live()).await?;
    let first = look::all(ctx).await?;
    let known = Known::now(ctx, &first).await?;
    let second = look::all(ctx).await?;
    let is_there = |id: &String| first.iter().chain(&second).any(|thing| thing.id == *id);
    let ended: Vec<String> = live.into_iter().filter(|id| known.is_unknown(id) && !is_there(id)).collect();
    forget(ctx, ended).await?;
    let things: Vec<Thing> = first.into_iter().filter(|thing| second.contains(thing)).collect();
    Ok(judge(things, &known))
}

/// Takes note in the journal that nothing of these ids is left: their records were lost, and they were repaired since.
async fn forget(ctx: &Context, ended: Vec<String>) -> Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    let journal = ctx.records.clone();
    blocking(move || {
        ended.iter().for_each(|id| journal.ids().end(id));
        Ok::<_, Error>(())
    })
    .await
}

/// Which of the things are orphans, and why. Pure. What nothing proves to be this daemon's is none, whatever its name.
fn judge(things: Vec<Thing>, known: &Known) -> Vec<Finding> {
    let orphans = things.into_iter().filter(|thing| known.is_ours(thing) && !known.explains(thing));
    let finding = |thing: Thing| {
        let reason = known.reason(&thing);
        Finding { thing, reason, outcome: Outcome::Found }
    };
    orphans.map(finding).collect()
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
