// SPDX-License-Identifier: Apache-2.0
//! Watching a container's end and its monitor's: one task per container, asleep on two pidfds.

use std::sync::Arc;
use std::time::SystemTime;

use hull_conmon_client::{Monitor, Monitored};

use crate::context::Context;
use crate::model::ContainerPhase;
use crate::store::Container;

/// Starts the watcher of a created container. It ends with the container or the daemon.
pub(crate) fn spawn(ctx: &Context, container: &Arc<Container>) {
    let Some(monitored) = container.status().monitored.clone() else { return };
    let Ok((_, handler)) = ctx.handler("watch", &container.meta.handler) else { return };
    let monitor = handler.monitor.clone();
    let (ctx_, container) = (ctx.clone(), container.clone());
    ctx.watchers.spawn(async move {
        tokio::select! {
            () = ctx_.watch_end.cancelled() => {}
            never = note_lost_monitor(&*monitor, &monitored, &container) => match never {},
            exit = monitor.wait(&monitored) => {
                if container.status().phase == ContainerPhase::Exited {
                    return;
                }
                ctx_.observe_container(&container, |status| status.exited(exit)).await;
                tracing::info!(container = container.id(), code = exit.code, oom = exit.oom, source = ?exit.source, "exited");
            }
        }
    });
}

/// Makes it known when the monitor ends before its container, which runs on without a reader of its output.
async fn note_lost_monitor(
    monitor: &dyn Monitor,
    monitored: &Monitored,
    container: &Container,
) -> std::convert::Infallible {
    monitor.monitor_ended(monitored).await;
    if monitor.is_alive(monitored) && container.monitor_lost.set(SystemTime::now()).is_ok() {
        tracing::error!(
            container = container.id(),
            name = container.meta.key().name,
            monitor = monitored.monitor.map_or(0, |process| process.pid),
            "the container's monitor has ended before it: its output is lost and it cannot be attached to; restart it"
        );
    }
    std::future::pending().await
}
