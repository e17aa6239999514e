// SPDX-License-Identifier: Apache-2.0
//! Whose things are no orphans: what the store has, operations in flight included, and what the ledger owes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::records::blocking;

use super::look::{self, Kind, Thing};

/// What is known at one moment.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Pods and containers.
    pub(super) ids: BTreeSet<String>,
    /// Pods whose network was not given back yet.
    pub(super) owed: BTreeSet<String>,
    /// Pods with an attachment record.
    pub(super) attachments: BTreeSet<String>,
    /// Containers that are known, but their pod is not, with the pod.
    pub(super) without_pod: BTreeMap<String, String>,
    /// Ids of records that could not be read.
    pub(super) quarantined: BTreeSet<String>,
    /// Pods and containers that this daemon has made, whatever became of them.
    pub(super) proved: BTreeSet<String>,
    pub(super) root: PathBuf,
    pub(super) run_root: PathBuf,
}

// === impl Known ===

impl Known {
    /// `seen` is what a look has just found.
    pub(super) async fn now(ctx: &Context, seen: &[Thing]) -> Result<Self> {
        let quarantined = seen.iter().filter(|it| it.kind == Kind::Quarantine);
        let (attachments, ctx_) = (ctx.records.clone(), ctx.clone());
        let mut known = Self {
            attachments: blocking(move || attachments.attachment_ids()).await?.into_iter().collect(),
            proved: blocking(move || look::proved(&ctx_)).await?,
            run_root: ctx.layout.run_root.clone(),
            quarantined: quarantined.map(|it| it.id.clone()).collect(),
            root: ctx.layout.root.clone(),
            ..Self::default()
        };
        for entry in ctx.ledger.entries() {
            match entry.owed.kind() {
                "network" => known.owed.insert(entry.owed.id().to_owned()),
                _ => known.ids.insert(entry.owed.id().to_owned()),
            };
        }
        for sandbox in ctx.store.sandboxes() {
            known.ids.insert(sandbox.id().to_owned());
        }
        let containers = ctx.store.containers();
        for container in &containers {
            known.ids.insert(container.id().to_owned());
        }
        for container in containers {
            if !known.ids.contains(&container.meta.sandbox_id) {
                known.without_pod.insert(container.id().to_owned(), container.meta.sandbox_id.clone());
            }
        }
        let own = seen.iter().filter(|it| it.is_in_own_place(&known.run_root));
        known.proved.extend(own.map(|it| it.id.clone()));
        known.proved.extend(known.ids.iter().cloned());
        known.proved.remove("");
        Ok(known)
    }

    /// Whether something is this daemon's, orphan or not.
    pub(super) fn is_ours(&self, thing: &Thing) -> bool {
        thing.is_in_own_place(&self.run_root) || self.proved.contains(&thing.id)
    }

    /// Whether nothing is known of an id.
    pub(super) fn is_unknown(&self, id: &str) -> bool {
        !self.ids.contains(id) && !self.owed.contains(id) && !self.attachments.contains(id)
    }

    /// Whether something is as it should be.
    pub(super) fn explains(&self, thing: &Thing) -> bool {
        match thing.kind {
            Kind::Quarantine | Kind::Layer => false,
            // Kept until its network is given back.
            Kind::Network | Kind::Record if self.owed.contains(&thing.id) => true,
            Kind::Network => self.ids.contains(&thing.id) || self.attachments.contains(&thing.id),
            Kind::Record => self.ids.contains(&thing.id) && !self.without_pod.contains_key(&thing.id),
            _ => self.ids.contains(&thing.id),
        }
    }

    pub(super) fn reason(&self, thing: &Thing) -> String {
        let id = &thing.id;
        if let Some(pod) = self.without_pod.get(id).filter(|_| thing.kind == Kind::Record) {
            return format!("its pod sandbox {pod} has no record");
        }
        match thing.kind {
            Kind::Quarantine => reason_of(&thing.path),
            Kind::Layer => "no image and no container needs it".to_owned(),
            Kind::Record if thing.path.starts_with(self.root.join("records/attachments")) => {
                "the pod that it attaches is not known".to_owned()
            }
            Kind::Record => "the daemon does not know it".to_owned(),
            _ if id.is_empty() => "an earlier daemon left it".to_owned(),
            _ if self.quarantined.contains(id) => {
                format!("the record of {id} cannot be read: it is in quarantine")
            }
            _ => format!("no pod or container {id} is known"),
        }
    }
}

/// Why a record is in quarantine.
fn reason_of(path: &Path) -> String {
    let reason = std::fs::read_to_string(path.with_extension("reason")).unwrap_or_default();
    match reason.trim() {
        "" => "it could not be read".to_owned(),
        reason => format!("it could not be read: {reason}"),
    }
}

/// What is in quarantine: the id, the file, why. Blocks.
pub(crate) fn quarantined(root: &Path) -> Result<Vec<(String, PathBuf, String)>> {
    let mut found = Vec::new();
    for path in look::entries(&root.join("quarantine"))? {
        if path.extension().is_none_or(|it| it != "json") {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let id = stem.split_once('-').map_or("", |(_, id)| id).to_owned();
        let reason = reason_of(&path);
        found.push((id, path, reason));
    }
    found.sort();
    Ok::<_, Error>(found)
}
