// SPDX-License-Identifier: Apache-2.0
//! StopPodSandbox: close admission for containers, stop those that there are side by side, release what the pod held.
//! Execs and forwarded ports are served as long as a container may answer.
//!
//! Idempotent, also for an unknown id, as the CRI demands of it.

use std::sync::Arc;
use std::time::Duration;

use crate::container;
use crate::context::{Context, Failures};
use crate::error::{Error, Result};
use crate::model::SandboxPhase;
use crate::operation::{Admission, OpKind, Operation};
use crate::sandbox::teardown;
use crate::store::Sandbox;
use crate::streaming;

/// How long containers get to stop by themselves when their pod is stopped.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Stops a pod sandbox.
pub(crate) async fn stop(ctx: &Context, id: &str) -> Result<()> {
    let Some(sandbox) = ctx.store.sandbox(id)? else { return Ok(()) };
    loop {
        match sandbox.slot.admit(OpKind::StopSandbox, sandbox.id(), "") {
            Admission::Run(operation) => {
                let waiter = operation.waiter();
                spawn(ctx, sandbox.clone(), operation);
                return waiter.outcome().await.map_err(Error::Shared);
            }
            Admission::Join(operation) => return operation.ended().await.map_err(Error::Shared),
            Admission::Cancel(operation) => {
                operation.cancel();
                let _ = operation.ended().await;
                if ctx.store.sandbox_exact(sandbox.id()).is_none() {
                    return Ok(());
                }
            }
            Admission::Shorten(operation) | Admission::Wait(operation) | Admission::Refuse(operation) => {
                let _ = operation.ended().await;
            }
        }
    }
}

fn spawn(ctx: &Context, sandbox: Arc<Sandbox>, operation: Arc<Operation>) {
    let (ctx_, sandbox_, operation_) = (ctx.clone(), sandbox.clone(), operation.clone());
    let body = async move { run(&ctx_, &sandbox_, &operation_, GRACE).await };
    let ended = operation.clone();
    ctx.spawn_operation(operation, body, move |outcome| sandbox.slot.finish(&ended, outcome));
}

/// The body; remove calls it too, with no grace.
pub(crate) async fn run(
    ctx: &Context,
    sandbox: &Arc<Sandbox>,
    operation: &Operation,
    grace: Duration,
) -> Result<()> {
    if sandbox.status().phase == SandboxPhase::NotReady {
        return Ok(());
    }
    // A full disk does not keep a pod from stopping; a daemon that dies now finds it ready and is asked again.
    let stopping = ctx.observe_sandbox(sandbox, |status| status.phase = SandboxPhase::Stopping);
    operation.mark("sandbox.stop.record", stopping).await;
    operation.finally("sandbox.stop.containers", stop_containers(ctx, sandbox.id(), grace)).await?;
    // With its network namespace go the connections into it; whoever holds their other ends is told.
    sandbox.forwards.cancel();
    streaming::end_sessions(ctx, sandbox.id());
    operation.finally("sandbox.stop.resources", teardown::resources(ctx, &sandbox.meta)).await?;
    let stopped = ctx.observe_sandbox(sandbox, |status| {
        status.phase = SandboxPhase::NotReady;
        status.pause = None;
        status.namespaces = hull_netns::PodNamespaces::default();
    });
    operation.mark("sandbox.stop.done", stopped).await;
    Ok(())
}

/// All of them side by side; creations are cancelled and undone, every failure is reported.
async fn stop_containers(ctx: &Context, sandbox_id: &str, grace: Duration) -> Result<()> {
    let mut stops = tokio::task::JoinSet::new();
    for container in ctx.store.containers_of(sandbox_id) {
        let ctx = ctx.clone();
        stops.spawn(async move { container::stop::stop_object(&ctx, &container, grace).await });
    }
    let mut failures = Failures::default();
    while let Some(stopped) = stops.join_next().await {
        failures.note(
            stopped.unwrap_or_else(|_| {
                Err(Error::Lost { operation: "StopContainer", id: sandbox_id.to_owned() })
            }),
        );
    }
    failures.into_result("StopPodSandbox", sandbox_id)
}
