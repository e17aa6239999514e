// SPDX-License-Identifier: Apache-2.0
//! Giving a pod's network back, now or later: the release ledger.
//!
//! The attachment record is deleted only after a successful detach. A detach that fails or hangs
//! does not keep the pod from stopping: the record is marked and tried again in the background, with
//! growing pauses, also by later daemons, until it succeeds.

use std::time::Duration;

use hull_pod_network::PortMapping;

use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::model::AttachmentRecord;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Detaches a pod, or puts it into the ledger. Fails only when the ledger cannot be written.
pub(crate) async fn detach(ctx: &Context, sandbox_id: &str) -> Result<()> {
    let Some(record) = ctx.records.attachment(sandbox_id).await? else { return Ok(()) };
    if record.releasing {
        let known =
            ctx.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains_key(sandbox_id);
        if !known {
            retry(ctx, record);
        }
        return Ok(());
    }
    match attempt(ctx, &record).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::warn!(sandbox = sandbox_id, error = %chain(&error), "network not released; will be retried");
            let record = AttachmentRecord { releasing: true, ..record };
            ctx.records.put_attachment(record.clone()).await?;
            retry(ctx, record);
            Ok(())
        }
    }
}

/// Puts an attachment into the ledger.
pub(crate) async fn later(ctx: &Context, record: AttachmentRecord) {
    let record = AttachmentRecord { releasing: true, ..record };
    if let Err(error) = ctx.records.put_attachment(record.clone()).await {
        tracing::warn!(sandbox = record.attachment.sandbox_id, error = %chain(&error), "release ledger not written");
    }
    retry(ctx, record);
}

/// Tries until it succeeds or the daemon ends.
pub(crate) fn retry(ctx: &Context, record: AttachmentRecord) {
    ctx.ledger
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .insert(record.attachment.sandbox_id.clone(), record.clone());
    let ctx_ = ctx.clone();
    ctx.tasks.spawn(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = ctx_.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match attempt(&ctx_, &record).await {
                Ok(()) => {
                    let id = &record.attachment.sandbox_id;
                    ctx_.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(id);
                    tracing::info!(sandbox = id, "network released");
                    return;
                }
                Err(error) => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tracing::warn!(sandbox = record.attachment.sandbox_id, error = %chain(&error), retry = ?pause, "network still not released");
                }
            }
        }
    });
}

async fn attempt(ctx: &Context, record: &AttachmentRecord) -> Result<()> {
    let deadline = ctx.config.timeouts.network;
    let id = &record.attachment.sandbox_id;
    match tokio::time::timeout(deadline, ctx.network.detach(&record.attachment)).await {
        Ok(result) => result?,
        Err(_) => {
            return Err(Error::DeadlineExceeded {
                operation: "detach",
                id: id.clone(),
                stage: "network",
                after: deadline,
            });
        }
    }
    ctx.records.delete_attachment(id).await
}

/// A host port that an entry of the ledger still holds cannot be given to another pod.
pub(crate) fn refuse_held_ports(ctx: &Context, wanted: &[PortMapping]) -> Result<()> {
    let ledger = ctx.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for record in ledger.values() {
        for held in &record.attachment.port_mappings {
            if wanted.iter().any(|port| port.host_port == held.host_port && port.protocol == held.protocol) {
                return Err(Error::FailedPrecondition {
                    operation: "RunPodSandbox",
                    id: record.attachment.sandbox_id.clone(),
                    problem: format!(
                        "host port {} is still held by this stopped pod, whose network could not be released yet",
                        held.host_port
                    ),
                });
            }
        }
    }
    Ok(())
}
