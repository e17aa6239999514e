// SPDX-License-Identifier: Apache-2.0
//! Containers of an earlier daemon.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use hull_oci_runtime::{Exit, ExitSource, RuntimeStatus};
use tokio::task::JoinSet;

use super::Part;
use crate::claim;
use crate::container::{make, start, watch};
use crate::context::{Context, Handler};
use crate::error::{Error, chain};
use crate::model::ContainerPhase;
use crate::operation::{Admission, OpKind, Operation};
use crate::store::Container;

/// Those of a former boot have ended, whatever has their process ids now: recorded before anybody can ask.
pub(super) async fn end_of_boot(ctx: &Context, containers: &[(Arc<Container>, bool)]) {
    let mut ends = JoinSet::new();
    for (container, rebooted) in containers {
        let lived = matches!(container.status().phase, ContainerPhase::Created | ContainerPhase::Running);
        if *rebooted && lived {
            let (ctx, container) = (ctx.clone(), container.clone());
            ends.spawn(async move {
                if container.status().unstartable.is_some() {
                    return start::never_started(&ctx, &container).await;
                }
                let exit = Exit { code: 255, at: SystemTime::now(), oom: false, source: ExitSource::Unknown };
                ctx.observe_container(&container, |status| status.exited(exit)).await;
            });
        }
    }
    while ends.join_next().await.is_some() {}
}

/// Begins what is to be done with each.
pub(super) fn take_up(ctx: &Context, containers: Vec<(Arc<Container>, bool)>) {
    for (container, _) in containers {
        let part = ctx.recovery.objects.begin();
        match container.status().phase {
            ContainerPhase::Creating => {
                undo(ctx, container, part);
                continue;
            }
            ContainerPhase::Created | ContainerPhase::Running => adopt(ctx, &container, part),
            ContainerPhase::Exited => {}
        }
        if !container.status().claimed {
            claim::expire(ctx, &container);
        }
    }
}

/// As if its create had been cancelled: who asks for the same waits and gets a new one.
fn undo(ctx: &Context, container: Arc<Container>, part: Part) {
    let Admission::Run(operation) = container.slot.admit(OpKind::CreateContainer, container.id(), "") else {
        return;
    };
    operation.cancel();
    let (ctx_, container_, operation_) = (ctx.clone(), container.clone(), operation.clone());
    let body = async move {
        make::undo_or_owe(&ctx_, &container_, &operation_).await;
        Ok(())
    };
    spawn(ctx, container, operation, body, part);
}

fn adopt(ctx: &Context, container: &Arc<Container>, part: Part) {
    let status = container.status();
    if status.unstartable.is_some() {
        // There never was a process to find.
        return;
    }
    let (Some(monitored), Ok((_, handler))) =
        (status.monitored.clone(), ctx.handler("recovery", &container.meta.handler))
    else {
        tracing::error!(
            container = container.id(),
            handler = container.meta.handler,
            "no such runtime handler any more: cannot tell what it does"
        );
        return;
    };
    if handler.monitor.is_alive(&monitored) {
        watch::spawn(ctx, container);
        if status.phase == ContainerPhase::Created {
            find_start(ctx, container, handler.clone(), part);
        }
        return;
    }
    // Its monitor may still write down how it ended, as it may while a daemon watches: until then it is told as before.
    let (ctx_, container, monitor) = (ctx.clone(), container.clone(), handler.monitor.clone());
    ctx.tasks.spawn(async move {
        let _part = part;
        let exit = monitor.wait(&monitored).await;
        ctx_.observe_container(&container, |status| status.exited(exit)).await;
    });
}

/// The daemon may have died between the runtime's start and its record.
fn find_start(ctx: &Context, container: &Arc<Container>, handler: Handler, part: Part) {
    let Admission::Run(operation) = container.slot.admit(OpKind::RecoverContainer, container.id(), "") else {
        return;
    };
    let (ctx_, container_, operation_) = (ctx.clone(), container.clone(), operation.clone());
    let body = async move {
        let deadline = ctx_.config.timeouts.runtime;
        let asked = handler.runtime.state(container_.id());
        let state = operation_.stage("container.recover.state", deadline, asked).await;
        match state.map(|state| state.status) {
            Ok(RuntimeStatus::Running | RuntimeStatus::Paused) => started(&ctx_, &container_).await,
            Ok(_) => {}
            // Another operation ends it.
            Err(Error::Cancelled { .. }) => {}
            Err(error) => {
                tracing::warn!(container = container_.id(), error = %chain(&error), "cannot tell whether it was started");
            }
        }
        Ok(())
    };
    spawn(ctx, container.clone(), operation, body, part);
}

async fn started(ctx: &Context, container: &Container) {
    container.start_untold.store(true, Ordering::SeqCst);
    let at = SystemTime::now();
    let started = ctx.observe_container(container, |status| {
        status.claimed = true;
        status.started(at);
    });
    started.await;
}

fn spawn(
    ctx: &Context,
    container: Arc<Container>,
    operation: Arc<Operation>,
    body: impl Future<Output = crate::error::Result<()>> + Send + 'static,
    part: Part,
) {
    let ended = operation.clone();
    ctx.spawn_operation(operation, body, move |outcome| {
        container.slot.finish(&ended, outcome);
        drop(part);
    });
}
