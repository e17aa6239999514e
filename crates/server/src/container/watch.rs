// SPDX-License-Identifier: Apache-2.0
//! Watching a container's end: one task per container, asleep on a pidfd.

use std::sync::Arc;

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
