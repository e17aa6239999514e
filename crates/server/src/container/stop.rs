// SPDX-License-Identifier: Apache-2.0
//! StopContainer: the stop signal, patience, SIGKILL.
//!
//! ```text
//! signal --(patience ends, or is shortened by a second stop)--> SIGKILL to all, again and again --> exited
//!   |__ execs are served ________________________________|__ they end, and new ones are refused
//! ```
//! Execs are served during the grace period, because readiness probes tell load balancers when to let go of a pod that
//! terminates, and people look into one with `kubectl exec`.
//!
//! Idempotent, also for an unknown id, as the CRI demands of it. Nothing waits behind a grace period:
//! status reads are snapshots, a shorter stop shortens the one that runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hull_oci_runtime::{Error as RuntimeError, Exit, ExitSource, KillRequest, KillTarget};
use tokio::time::Instant;

use crate::container::start;
use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::model::ContainerPhase;
use crate::operation::{Admission, OpKind, Operation};
use crate::store::Container;
use crate::streaming::sessions;

const RPC: &str = "StopContainer";
const SIGKILL: i32 = 9;
/// After so many SIGKILLs that the runtime says to have sent, the kernel is asked to end the cgroup.
const TRUSTED_KILLS: u32 = 2;
/// The first pause between two SIGKILLs; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The kubelet's largest grace periods are days; more than this is a mistake in units.
const LONGEST_PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Stops a container; `timeout` in seconds, negative as 0.
pub(crate) async fn stop(ctx: &Context, id: &str, timeout: i64) -> Result<()> {
    let Some(container) = ctx.store.container(id)? else { return Ok(()) };
    let patience = Duration::from_secs(u64::try_from(timeout).unwrap_or(0)).min(LONGEST_PATIENCE);
    stop_object(ctx, &container, patience).await
}

/// Stops a container that may also still be in creation.
pub(crate) async fn stop_object(ctx: &Context, container: &Arc<Container>, patience: Duration) -> Result<()> {
    let until = Instant::now() + patience;
    loop {
        match container.slot.admit(OpKind::StopContainer, container.id(), "") {
            Admission::Run(operation) => {
                if is_gone(ctx, container) {
                    container.slot.finish(&operation, Ok(()));
                    return Ok(());
                }
                operation.shorten(until);
                let waiter = operation.waiter();
                spawn(ctx, container.clone(), operation);
                return waiter.outcome().await.map_err(Error::Shared);
            }
            Admission::Join(operation) => {
                operation.shorten(until);
                return operation.ended().await.map_err(Error::Shared);
            }
            Admission::Cancel(operation) => {
                operation.cancel();
                let _ = operation.ended().await;
                if is_gone(ctx, container) {
                    return Ok(());
                }
            }
            Admission::Shorten(operation) | Admission::Wait(operation) | Admission::Refuse(operation) => {
                let _ = operation.ended().await;
            }
        }
    }
}

/// Its creation was undone, or it was removed: what is left is an object that nobody else knows.
pub(crate) fn is_gone(ctx: &Context, container: &Container) -> bool {
    ctx.store.container_exact(container.id()).is_none()
}

fn spawn(ctx: &Context, container: Arc<Container>, operation: Arc<Operation>) {
    let (ctx_, container_, operation_) = (ctx.clone(), container.clone(), operation.clone());
    let body = async move { run(&ctx_, &container_, &operation_).await };
    let ended = operation.clone();
    ctx.spawn_operation(operation, body, move |outcome| container.slot.finish(&ended, outcome));
}

/// The body; remove calls it too, with its patience at an end.
pub(crate) async fn run(ctx: &Context, container: &Arc<Container>, operation: &Operation) -> Result<()> {
    let ended = end(ctx, container, operation).await;
    // The execs have ended with the container; a client that does not read what they wrote holds nobody up.
    sessions::end_execs(ctx, container.id());
    ended
}

async fn end(ctx: &Context, container: &Arc<Container>, operation: &Operation) -> Result<()> {
    match container.status().phase {
        ContainerPhase::Exited => return leftovers(ctx, container, operation).await,
        ContainerPhase::Creating => return Ok(()),
        ContainerPhase::Created if container.status().unstartable.is_some() => {
            operation.mark("container.stop.unstartable", start::never_started(ctx, container)).await;
            return leftovers(ctx, container, operation).await;
        }
        // A process that has not been started handles no signal.
        ContainerPhase::Created => operation.shorten(Instant::now()),
        ContainerPhase::Running => {
            let signal = container.meta.stop_signal;
            let sent =
                operation.mark("container.stop.signal", send(ctx, container, signal, KillTarget::Init)).await;
            if let Err(error) = sent {
                tracing::warn!(container = container.id(), signal, error = %chain(&error), "stop signal not delivered");
                operation.shorten(Instant::now());
            }
        }
    }
    let gone = operation.mark("container.stop.grace", async {
        tokio::select! {
            biased;
            () = container.exited() => true,
            () = operation.patience_ended() => false,
        }
    });
    let gone = gone.await;
    // Whoever asks now comes too late; the execs that run end with the container.
    container.execs.cancel();
    if !gone {
        operation.finally("container.stop.kill", kill_until_gone(ctx, container, operation)).await?;
    }
    leftovers(ctx, container, operation).await
}

async fn kill_until_gone(ctx: &Context, container: &Arc<Container>, operation: &Operation) -> Result<()> {
    let limit = ctx.config.timeouts.stop_extra;
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut sent = 0;
    loop {
        let killed = send(ctx, container, SIGKILL, KillTarget::All).await;
        sent += 1;
        if let Err(error) = &killed {
            tracing::warn!(container = container.id(), error = %chain(error), "SIGKILL not delivered; killing its cgroup");
        }
        if killed.is_err() || sent > TRUSTED_KILLS {
            if let Err(error) = ctx.node.kill_cgroup(&container.meta.cgroup, pause).await {
                tracing::warn!(container = container.id(), error = %chain(&error), "its cgroup is not empty yet");
            } else if ctx.handler(RPC, &container.meta.handler).is_err() {
                // Its handler was configured away: nobody watches it, and its cgroup is empty.
                let exit = Exit { code: 255, at: SystemTime::now(), oom: false, source: ExitSource::Unknown };
                ctx.observe_container(container, |status| status.exited(exit)).await;
            }
        }
        // Again only because a process in uninterruptible sleep, or a frozen one, may have missed it.
        if tokio::time::timeout(pause, container.exited()).await.is_ok() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let (stage, _) = operation.progress();
            return Err(Error::DeadlineExceeded {
                operation: RPC,
                id: container.id().to_owned(),
                stage,
                after: limit,
            });
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// What outlived the first process: in a host pid namespace, or moved out of its session.
async fn leftovers(ctx: &Context, container: &Arc<Container>, operation: &Operation) -> Result<()> {
    if !ctx.node.is_populated(&container.meta.cgroup) {
        return Ok(());
    }
    let kill = ctx.node.kill_cgroup(&container.meta.cgroup, ctx.config.timeouts.stop_extra);
    operation.finally("container.stop.leftovers", kill).await
}

/// Sends a signal; "already gone" is a success.
async fn send(ctx: &Context, container: &Container, signal: i32, target: KillTarget) -> Result<()> {
    let (_, handler) = ctx.handler(RPC, &container.meta.handler)?;
    let process = container.status().monitored.as_ref().map(|monitored| monitored.process.into());
    let kill = KillRequest { id: container.id().to_owned(), signal, target, process };
    match handler.runtime.kill(&kill).await {
        Ok(()) | Err(RuntimeError::NotFound { .. } | RuntimeError::InvalidState { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
