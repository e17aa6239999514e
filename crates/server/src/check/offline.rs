// SPDX-License-Identifier: Apache-2.0
//! The state of a daemon that does not run: opened under its locks, looked at, mended, taken away.
//!
//! Opening does what a start does before it recovers anything: records that cannot be read go into quarantine, the
//! image store clears its `tmp/`, the built-in bridge is there while this lasts. Nothing is adopted or undone.

use std::fs::File;
use std::sync::Arc;

use nix::fcntl::Flock;

use crate::backends::NetworkEnd;
use crate::config::Config;
use crate::context::Context;
use crate::daemon::{Opened, open};
use crate::error::Result;
use crate::ledger::Owed;
use crate::store::{Container, Sandbox};

use super::{Finding, Outcome, Populated, check_alone, wipe};

/// The state of a daemon that does not run.
#[derive(Debug)]
pub struct Offline {
    ctx: Context,
    network_end: NetworkEnd,
    _locks: Vec<Flock<File>>,
}

/// Something that should not be there, or that a wipe could not take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `mount`, `namespace`, `cgroup`, ...
    pub kind: String,
    /// Where or what it is.
    pub what: String,
    /// The pod or container that it belonged to; empty where that cannot be told.
    pub id: String,
    /// Why it should not be there.
    pub reason: String,
    /// What a repair does, or did.
    pub repair: String,
    /// It is gone.
    pub repaired: bool,
    /// Why it was not taken away; empty unless that was tried.
    pub kept: String,
}

// === impl Offline ===

impl Offline {
    /// Takes the locks and reads the records.
    ///
    /// # Errors
    /// When a daemon runs on these directories, or they cannot be read.
    pub async fn open(config: Config) -> Result<Self> {
        let Opened { ctx, network_end, locks, .. } = open(config).await?;
        let records = ctx.records.clone();
        let all = crate::records::blocking(move || records.load()).await?;
        for record in all.sandboxes {
            ctx.store.adopt_sandbox(Sandbox::recorded(record));
        }
        for record in all.containers {
            ctx.store.adopt_container(Container::recorded(record));
        }
        for record in all.attachments.into_iter().filter(|record| record.releasing) {
            ctx.ledger.remember(Owed::Network(Arc::new(record)));
        }
        Ok(Self { ctx, network_end, _locks: locks })
    }

    /// Looks for what no record knows, and takes it away if asked to.
    ///
    /// # Errors
    /// What cannot be looked at.
    pub async fn check(&self, repair: bool) -> Result<Vec<Report>> {
        let findings = check_alone(&self.ctx, repair.then_some(Populated::Keep)).await?;
        Ok(findings.into_iter().map(Report::from).collect())
    }

    /// Takes everything away: pods, images, records, directories. Returns what could not be.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] while pods run, unless `force`.
    pub async fn wipe(self, force: bool) -> Result<Vec<Report>> {
        let ctx = self.ctx.clone();
        let kept = wipe::pods(&ctx, force).await?;
        self.close().await;
        if kept.is_empty() {
            wipe::directories(&ctx.config).await?;
        }
        Ok(kept)
    }

    /// Ends the backends; the locks go with this.
    pub async fn close(self) {
        self.ctx.shutdown.cancel();
        self.ctx.tasks.close();
        self.ctx.tasks.wait().await;
        self.network_end.shutdown().await;
    }
}

// === impl Report ===

impl From<Finding> for Report {
    fn from(finding: Finding) -> Self {
        Self {
            kind: finding.kind().to_owned(),
            what: finding.what().to_owned(),
            id: finding.id().to_owned(),
            repair: finding.repair().to_owned(),
            repaired: finding.outcome == Outcome::Repaired,
            kept: finding.kept().to_owned(),
            reason: finding.reason,
        }
    }
}
