// SPDX-License-Identifier: Apache-2.0
//! RemovePodSandbox: stop it without grace, remove its containers, take everything away.
//!
//! Idempotent, also for an unknown id, as the CRI demands of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::container;
use crate::context::{Context, Failures};
use crate::error::{Error, Result};
use crate::operation::{Admission, OpKind, Operation};
use crate::sandbox::{stop, teardown};
use crate::store::Sandbox;

/// Removes a pod sandbox with its containers.
pub(crate) async fn remove(ctx: &Context, id: &str) -> Result<()> {
    let Some(sandbox) = ctx.store.sandbox(id)? else { return Ok(()) };
    loop {
        match sandbox.slot.admit(OpKind::RemoveSandbox, sandbox.id(), "") {
            Admission::Run(operation) => {
                let waiter = operation.waiter();
                spawn(ctx, sandbox.clone(), operation);
                return waiter.outcome().await.map_err(Error::Shared);
            }
            Admission::Join(operation) => {
                operation.ended().await.map_err(Error::Shared)?;
                if operation.kind == OpKind::RemoveSandbox {
                    return Ok(());
                }
            }
            Admission::Cancel(operation) => {
                operation.cancel();
                let _ = operation.ended().await;
                if ctx.store.sandbox_exact(sandbox.id()).is_none() {
                    return Ok(());
                }
            }
            Admission::Shorten(operation) => {
                hurry_containers(ctx, sandbox.id());
                let _ = operation.ended().await;
            }
            Admission::Wait(operation) | Admission::Refuse(operation) => {
                let _ = operation.ended().await;
            }
        }
    }
}

/// A removal does not wait for the grace of the stop that runs.
fn hurry_containers(ctx: &Context, sandbox_id: &str) {
    for container in ctx.store.containers_of(sandbox_id) {
        if let Some(operation) = container.slot.current().filter(|op| op.kind == OpKind::StopContainer) {
            operation.shorten(Instant::now());
        }
    }
}

fn spawn(ctx: &Context, sandbox: Arc<Sandbox>, operation: Arc<Operation>) {
    let (ctx_, sandbox_, operation_) = (ctx.clone(), sandbox.clone(), operation.clone());
    let body = async move { run(&ctx_, &sandbox_, &operation_).await };
    let ended = operation.clone();
    ctx.spawn_operation(operation, body, move |outcome| sandbox.slot.finish(&ended, outcome));
}

async fn run(ctx: &Context, sandbox: &Arc<Sandbox>, operation: &Operation) -> Result<()> {
    stop::run(ctx, sandbox, operation, Duration::ZERO).await?;
    operation.finally("sandbox.remove.containers", remove_containers(ctx, sandbox.id())).await?;
    operation.finally("sandbox.remove.everything", teardown::everything(ctx, sandbox)).await?;
    ctx.events.sandbox_deleted(ctx, sandbox);
    Ok(())
}

async fn remove_containers(ctx: &Context, sandbox_id: &str) -> Result<()> {
    let mut removals = tokio::task::JoinSet::new();
    for container in ctx.store.containers_of(sandbox_id) {
        let ctx = ctx.clone();
        removals.spawn(async move { container::remove::remove_object(&ctx, &container).await });
    }
    let mut failures = Failures::default();
    while let Some(removed) = removals.join_next().await {
        failures.note(removed.unwrap_or_else(|_| {
            Err(Error::Lost { operation: "RemoveContainer", id: sandbox_id.to_owned() })
        }));
    }
    // Nobody sees them, but a process of theirs may sleep in the pod's cgroup, on a dead volume.
    for owed in ctx.ledger.containers_of(sandbox_id) {
        failures.note(container::teardown::by_meta(ctx, &owed).await);
    }
    failures.into_result("RemovePodSandbox", sandbox_id)
}
