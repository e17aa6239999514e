// SPDX-License-Identifier: Apache-2.0
//! Network attachments of an earlier daemon, and what the network holds besides.

use std::sync::Arc;

use hull_pod_network::Attachment;

use super::{Part, aside};
use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::ledger::{self, Owed};
use crate::model::{AttachmentRecord, ContainerPhase};
use crate::sandbox::release;

/// Begins to give back what no pod has.
pub(super) fn take_up(ctx: &Context, attachments: Vec<AttachmentRecord>) {
    let known: Vec<Attachment> = attachments.iter().map(|record| record.attachment.clone()).collect();
    for record in attachments {
        let id = record.attachment.sandbox_id.clone();
        if record.releasing {
            let error = Error::io("release", std::io::Error::other("an earlier daemon could not"));
            ledger::owe(ctx, Owed::Network(Arc::new(record)), &error);
        } else if ctx.store.sandbox_exact(&id).is_some() {
            // Its pod has it.
        } else if ctx.store.containers_of(&id).iter().any(|c| c.status().phase != ContainerPhase::Exited) {
            // The pod's record is in quarantine, its processes live: they keep their address.
            tracing::error!(
                sandbox = id,
                "containers run in a pod without a record: remove them, then start again"
            );
        } else {
            let parts = (ctx.recovery.objects.begin(), ctx.recovery.former.begin());
            let key = format!("network {id}");
            aside(ctx, parts, &key, "the network to release what no pod has", release(ctx.clone(), id));
        }
    }
    ctx.tasks.spawn(collect_garbage(ctx.clone(), known, ctx.recovery.garbage.begin()));
}

async fn release(ctx: Context, id: String) {
    if let Err(error) = release::detach(&ctx, &id).await {
        tracing::warn!(sandbox = id, error = %chain(&error), "network of a pod without a record not released");
    }
}

/// What the network holds for pods that no record knows any more.
async fn collect_garbage(ctx: Context, known: Vec<Attachment>, _part: Part) {
    let deadline = ctx.config.timeouts.network;
    let collect = async {
        let records = ctx.records.clone();
        if crate::records::blocking(move || records.has_lost_attachments()).await? {
            // The pod of a record that cannot be read may live, and needs its addresses.
            tracing::warn!(
                "attachments are in quarantine: what the network holds for pods that are gone is kept until they are removed there"
            );
            return Ok(());
        }
        ctx.network.gc(&known).await?;
        Ok::<_, Error>(())
    };
    let stage = "collect the network's garbage";
    let result: Result<()> = tokio::select! {
        () = ctx.shutdown.cancelled() => return,
        result = tokio::time::timeout(deadline, collect) => result.unwrap_or_else(|_| {
            Err(Error::DeadlineExceeded { operation: "recovery", id: "network".to_owned(), stage, after: deadline })
        }),
    };
    if let Err(error) = result {
        tracing::warn!(error = %chain(&error), "the network's garbage is not all collected; the next start tries again");
    }
}
