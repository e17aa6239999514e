// SPDX-License-Identifier: Apache-2.0
//! StartContainer: created -> running.
//!
//! A runtime that fails to start the process leaves the container exited with code 128 and reason
//! `StartError`, so that the kubelet sees why. So does a container whose program the runtime could not run when it was
//! created: its creation is a success, its start is not, as it is where one call does both.

use std::sync::Arc;
use std::time::SystemTime;

use hull_oci_runtime::{KillRequest, KillTarget};

use crate::claim;
use crate::context::{Context, Handler};
use crate::error::{Error, Result, chain, for_client};
use crate::exhausted;
use crate::model::ContainerPhase;
use crate::operation::{Admission, OpKind, Operation};
use crate::store::Container;

const RPC: &str = "StartContainer";

/// Starts a created container.
pub(crate) async fn start(ctx: &Context, id: &str) -> Result<()> {
    let container =
        ctx.store.container(id)?.ok_or_else(|| Error::NotFound { kind: "container", id: id.to_owned() })?;
    if !container.status().claimed {
        // Who knows the id has it from us.
        claim::claim(ctx, &container).await?;
    }
    loop {
        match container.slot.admit(OpKind::StartContainer, container.id(), "") {
            Admission::Run(operation) => {
                if let Err(error) = precondition(ctx, &container) {
                    // Who has joined meanwhile is told the same.
                    let told = error.map_or(Ok(()), |error| Err(Arc::new(error)));
                    container.slot.finish(&operation, told.clone());
                    return told.map_err(Error::Shared);
                }
                let waiter = operation.waiter();
                spawn(ctx, container.clone(), operation);
                return waiter.outcome().await.map_err(Error::Shared);
            }
            Admission::Join(operation) => return operation.ended().await.map_err(Error::Shared),
            Admission::Refuse(operation) => {
                return Err(refused(container.id(), &format!("{} is in progress", operation.kind.rpc())));
            }
            Admission::Wait(operation) | Admission::Cancel(operation) | Admission::Shorten(operation) => {
                let _ = operation.ended().await;
            }
        }
    }
}

/// `Err(None)`: nothing to do, and that is a success.
fn precondition(ctx: &Context, container: &Container) -> std::result::Result<(), Option<Error>> {
    let pod_is_ready =
        ctx.store.sandbox_exact(&container.meta.sandbox_id).is_some_and(|sandbox| sandbox.is_ready());
    match container.status().phase {
        ContainerPhase::Created if pod_is_ready => Ok(()),
        ContainerPhase::Created => Err(Some(refused(container.id(), "its pod sandbox is not ready"))),
        // The start succeeded, but the daemon died before it could say so.
        ContainerPhase::Running | ContainerPhase::Exited if container.take_start_untold() => Err(None),
        ContainerPhase::Running => Err(Some(refused(container.id(), "it is already running"))),
        ContainerPhase::Exited => Err(Some(refused(container.id(), "it has exited"))),
        ContainerPhase::Creating => Err(Some(refused(container.id(), "it is still being created"))),
    }
}

fn refused(id: &str, problem: &str) -> Error {
    Error::FailedPrecondition { operation: RPC, id: id.to_owned(), problem: problem.to_owned() }
}

fn spawn(ctx: &Context, container: Arc<Container>, operation: Arc<Operation>) {
    let (ctx_, container_, operation_) = (ctx.clone(), container.clone(), operation.clone());
    let body = async move { run(&ctx_, &container_, &operation_).await };
    let ended = operation.clone();
    ctx.spawn_operation(operation, body, move |outcome| container.slot.finish(&ended, outcome));
}

async fn run(ctx: &Context, container: &Arc<Container>, operation: &Operation) -> Result<()> {
    if let Some(unstartable) = container.status().unstartable.clone() {
        operation.mark("container.start.failed", never_started(ctx, container)).await;
        return Err(Error::StartFailed { id: container.id().to_owned(), message: unstartable.message });
    }
    let (_, handler) = ctx.handler(RPC, &container.meta.handler)?;
    let deadline = ctx.config.timeouts.start;
    // Before the runtime is asked: a process may end before its start has been told.
    let at = SystemTime::now();
    let started =
        operation.stage("container.start.runtime", deadline, handler.runtime.start(container.id())).await;
    match started {
        Ok(()) => {
            // It runs, whether that can be written down or not.
            let running = ctx.observe_container(container, |status| status.started(at));
            operation.mark("container.start.running", running).await;
            Ok(())
        }
        // Another operation ends it; what it became is for that one to say.
        Err(error @ Error::Cancelled { .. }) => Err(error),
        Err(error) => {
            let error = exhausted::explain(ctx, error);
            operation.mark("container.start.failed", fail(ctx, container, handler, at, &error)).await;
            Err(error)
        }
    }
}

/// Records that a container without a process has not started: its program cannot be run, or it is stopped before. There
/// is nothing to end.
pub(crate) async fn never_started(ctx: &Context, container: &Container) {
    let Some(unstartable) = container.status().unstartable.clone() else { return };
    let failed = ctx.observe_container(container, |status| {
        status.failed_to_start(unstartable.message, container.meta.created_at);
    });
    failed.await;
}

/// Ends what may have come alive, and records why. What lives on in spite of that is told as running.
async fn fail(ctx: &Context, container: &Arc<Container>, handler: &Handler, at: SystemTime, error: &Error) {
    let message = for_client(&chain(error));
    let patience = ctx.config.timeouts.stop_extra;
    let kill =
        KillRequest { id: container.id().to_owned(), signal: 9, target: KillTarget::All, process: None };
    // "Already gone" is what we want; a runtime that hangs is what the cgroup is for.
    let _ = handler.runtime.kill(&kill).await;
    let _ = ctx.node.kill_cgroup(&container.meta.cgroup, patience).await;
    let _ = tokio::time::timeout(patience, container.exited()).await;
    let lives =
        container.status().monitored.as_ref().is_some_and(|monitored| handler.monitor.is_alive(monitored));
    ctx.observe_container(container, |status| {
        if lives {
            status.started(at);
            return;
        }
        status.failed_to_start(message, container.meta.created_at);
    })
    .await;
}
