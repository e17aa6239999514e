// SPDX-License-Identifier: Apache-2.0
//! Taking a container apart. Every step is idempotent and derives what it touches from the id, so the
//! same code serves remove, the undo of a failed create, and a start after a crash. Every step runs;
//! every failure is reported. Nothing that is still populated is deleted: it is killed first, and where that fails the
//! rest waits for the next try.

use std::sync::Arc;

use hull_oci_runtime::{DeleteRequest, OciRuntime};

use crate::context::{Context, Failures};
use crate::error::{Error, Result};
use crate::model::{ContainerMeta, ContainerPhase, ContainerStatus};
use crate::node::remove_tree;
use crate::records::blocking;
use crate::store::Container;

const RPC: &str = "teardown of container";

/// Takes away everything, the record last, and forgets the container. Logs stay: they are the kubelet's.
pub(crate) async fn everything(ctx: &Context, container: &Container) -> Result<()> {
    things(ctx, &container.meta).await?;
    // No change may write the record again after its end.
    let _order = container.writing.lock().await;
    ctx.records.delete_container(container.id()).await?;
    ctx.store.drop_container(container);
    Ok(())
}

/// As [`everything`], for a record without an object.
pub(crate) async fn by_meta(ctx: &Context, meta: &ContainerMeta) -> Result<()> {
    things(ctx, meta).await?;
    ctx.records.delete_container(&meta.id).await
}

async fn things(ctx: &Context, meta: &ContainerMeta) -> Result<()> {
    let mut failures = Failures::default();
    if ctx.node.is_populated(&meta.cgroup) {
        let killed = ctx.node.kill_cgroup(&meta.cgroup, ctx.undo_deadline()).await;
        // What sleeps in the kernel (a dead volume) keeps its root, and all that would wait for it waits once.
        if killed.is_err() && ctx.node.is_populated(&meta.cgroup) {
            return killed;
        }
        failures.note(killed);
    }
    let status = ctx.store.container_exact(&meta.id).map(|container| container.status());
    if status.as_ref().is_some_and(|status| status.phase == ContainerPhase::Exited) {
        // Nothing works on its root any more; neither side looks at what the other takes away.
        let (programs, roots) = tokio::join!(programs(ctx, meta, status), roots(ctx, meta));
        failures.note(programs);
        failures.note(roots);
    } else {
        failures.note(programs(ctx, meta, status).await);
        failures.note(roots(ctx, meta).await);
    }
    for cgroup in [&meta.cgroup, &meta.monitor_cgroup] {
        failures.note(remove_cgroup(ctx, cgroup).await);
    }
    let dirs = [ctx.layout.container_dir(&meta.id), ctx.layout.container_run_dir(&meta.id)];
    failures.note(
        blocking(move || {
            hull_failpoint::failpoint!("container.remove.files").map_err(|e| Error::io("remove files", e))?;
            for dir in &dirs {
                remove_tree(dir).map_err(|e| Error::io(format!("remove {}", dir.display()), e))?;
            }
            Ok::<_, Error>(())
        })
        .await,
    );
    failures.into_result(RPC, &meta.id)
}

/// Unmounts and deletes the container's root and its image volumes.
async fn roots(ctx: &Context, meta: &ContainerMeta) -> Result<()> {
    let mut failures = Failures::default();
    for mount in &meta.image_mounts {
        let dir = ctx.layout.image_mount(&meta.id, mount.index);
        failures.note(ctx.images.remove_root(&dir).await);
    }
    failures.note(ctx.images.remove_root(&ctx.layout.container_dir(&meta.id)).await);
    failures.into_result(RPC, &meta.id)
}

/// Has runtime and monitor forget it.
pub(crate) async fn programs(
    ctx: &Context,
    meta: &ContainerMeta,
    status: Option<Arc<ContainerStatus>>,
) -> Result<()> {
    let mut failures = Failures::default();
    // A handler that was configured away leaves its state directory to its owner.
    if let Ok((_, handler)) = ctx.handler(RPC, &meta.handler) {
        let monitored = status.as_ref().and_then(|status| status.monitored.clone());
        if monitored.is_none() {
            // A create of a dead daemon may still go on: its monitor ends before the runtime forgets.
            failures.note(handler.monitor.remove(&meta.id, None).await);
        }
        let has_exited = status.is_some_and(|status| status.phase == ContainerPhase::Exited);
        failures.note(forget(handler.runtime.as_ref(), &meta.id, has_exited).await);
        failures.note(handler.monitor.remove(&meta.id, monitored.as_ref()).await);
    }
    failures.into_result(RPC, &meta.id)
}

/// An exit that was observed need not be asked for again: one run of the runtime less.
async fn forget(runtime: &dyn OciRuntime, id: &str, has_exited: bool) -> hull_oci_runtime::Result<()> {
    let delete = |force| DeleteRequest { id: id.to_owned(), force };
    if has_exited {
        match runtime.delete(&delete(false)).await {
            Ok(()) | Err(hull_oci_runtime::Error::NotFound { .. }) => return Ok(()),
            Err(error) => tracing::debug!(container = id, %error, "not deleted at once: by force"),
        }
    }
    runtime.delete(&delete(true)).await
}

async fn remove_cgroup(ctx: &Context, cgroup: &std::path::Path) -> Result<()> {
    if ctx.node.is_populated(cgroup) {
        ctx.node.kill_cgroup(cgroup, ctx.undo_deadline()).await?;
    }
    ctx.node.remove_cgroup(cgroup).await
}
