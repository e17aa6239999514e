// SPDX-License-Identifier: Apache-2.0
//! Taking a container apart. Every step is idempotent and derives what it touches from the id, so the
//! same code serves remove, the undo of a failed create, and a start after a crash. Every step runs;
//! every failure is reported. Nothing that is still populated is deleted: it is killed first.

use hull_oci_runtime::DeleteRequest;

use crate::context::{Context, Failures, UNDO_DEADLINE};
use crate::error::{Error, Result};
use crate::model::ContainerMeta;
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
    failures.note(processes(ctx, meta).await);
    for mount in &meta.image_mounts {
        let dir = ctx.layout.image_mount(&meta.id, mount.index);
        failures.note(ctx.images.remove_root(&dir).await);
    }
    failures.note(ctx.images.remove_root(&ctx.layout.container_dir(&meta.id)).await);
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

/// Ends what lives, then has runtime and monitor forget it.
async fn processes(ctx: &Context, meta: &ContainerMeta) -> Result<()> {
    let mut failures = Failures::default();
    if ctx.node.is_populated(&meta.cgroup) {
        failures.note(ctx.node.kill_cgroup(&meta.cgroup, UNDO_DEADLINE).await);
    }
    // A handler that was configured away leaves its state directory to its owner.
    if let Ok((_, handler)) = ctx.handler(RPC, &meta.handler) {
        let delete = DeleteRequest { id: meta.id.clone(), force: true };
        let monitored = ctx.store.container_exact(&meta.id).and_then(|c| c.status().monitored.clone());
        if monitored.is_none() {
            // A create of a dead daemon may still go on: its monitor ends before the runtime forgets.
            failures.note(handler.monitor.remove(&meta.id, None).await);
        }
        failures.note(handler.runtime.delete(&delete).await);
        failures.note(handler.monitor.remove(&meta.id, monitored.as_ref()).await);
    }
    failures.into_result(RPC, &meta.id)
}

async fn remove_cgroup(ctx: &Context, cgroup: &std::path::Path) -> Result<()> {
    if ctx.node.is_populated(cgroup) {
        ctx.node.kill_cgroup(cgroup, UNDO_DEADLINE).await?;
    }
    ctx.node.remove_cgroup(cgroup).await
}
