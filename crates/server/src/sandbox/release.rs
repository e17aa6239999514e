// SPDX-License-Identifier: Apache-2.0
//! Giving a pod's network back, now or later.
//!
//! The attachment record is deleted only after a successful detach. A detach that fails or hangs
//! does not keep the pod from stopping: the record is marked and goes to the [ledger](crate::ledger).

use std::sync::Arc;

use hull_pod_network::PortMapping;

use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::ledger::{self, Owed};
use crate::model::AttachmentRecord;

/// Detaches a pod, or puts it into the ledger. Fails only when its record cannot be read.
pub(crate) async fn detach(ctx: &Context, sandbox_id: &str) -> Result<()> {
    let Some(record) = ctx.records.attachment(sandbox_id).await? else { return Ok(()) };
    if record.releasing && ctx.ledger.has("network", sandbox_id) {
        return Ok(());
    }
    let Err(error) = attempt(ctx, &record).await else { return Ok(()) };
    tracing::warn!(sandbox = sandbox_id, error = %chain(&error), "network not released; will be retried");
    later(ctx, record, &error).await;
    Ok(())
}

/// Puts an attachment into the ledger whose release just failed so. A mark that cannot be written is not missed: an
/// attachment is released at the removal of its pod again, and at a start when its pod is gone.
pub(crate) async fn later(ctx: &Context, record: AttachmentRecord, error: &Error) {
    let record = AttachmentRecord { releasing: true, ..record };
    if let Err(error) = ctx.records.put_attachment(record.clone()).await {
        tracing::warn!(sandbox = record.attachment.sandbox_id, error = %chain(&error), "release ledger not written");
    }
    ledger::owe(ctx, Owed::Network(Arc::new(record)), error);
}

/// Detaches once, within `timeouts.release`, and deletes the record.
pub(crate) async fn attempt(ctx: &Context, record: &AttachmentRecord) -> Result<()> {
    let deadline = ctx.config.timeouts.release;
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
    for record in ctx.ledger.networks() {
        for held in &record.attachment.port_mappings {
            if wanted.iter().any(|port| port.host_port == held.host_port && port.protocol == held.protocol) {
                return Err(Error::FailedPrecondition {
                    operation: "RunPodSandbox",
                    id: record.attachment.sandbox_id.clone(),
                    problem: format!(
                        "host port {}/{} is still held by this stopped pod, whose network could not be released yet: `hull status` tells why",
                        held.host_port, held.protocol
                    ),
                });
            }
        }
    }
    Ok(())
}
