// SPDX-License-Identifier: Apache-2.0
//! Taking a pod sandbox apart. Every step is idempotent and derives what it touches from the id, so
//! the same code serves stop, remove, the undo of a failed run, and a start after a crash. Every
//! step runs; every failure is reported.

use std::sync::Arc;

use crate::context::{Context, Failures, UNDO_DEADLINE};
use crate::error::{Error, Result};
use crate::model::SandboxMeta;
use crate::node::remove_tree;
use crate::records::blocking;
use crate::sandbox::{pause, release};
use crate::store::Sandbox;

/// Releases network, namespaces and mounts; the sandbox's files and record stay.
pub(crate) async fn resources(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    let mut failures = Failures::default();
    failures.note(pause::end(ctx, meta).await);
    failures.note(release::detach(ctx, &meta.id).await);
    failures.note(ctx.netns.remove(&meta.id).await);
    failures.note(ctx.node.unmount(&ctx.layout.shm(&meta.id)).await);
    failures.into_result("teardown of pod sandbox", &meta.id)
}

/// Takes away everything, the record last. The sandbox has no containers any more.
pub(crate) async fn everything(ctx: &Context, sandbox: &Arc<Sandbox>) -> Result<()> {
    by_meta(ctx, &sandbox.meta).await
}

/// As [`everything`], for a record without an object.
pub(crate) async fn by_meta(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    let mut failures = Failures::default();
    failures.note(resources(ctx, meta).await);
    if meta.owns_cgroup_parent {
        failures.note(cgroups(ctx, meta).await);
    }
    let dirs = [ctx.layout.sandbox_dir(&meta.id), ctx.layout.default_log_dir(&meta.id)];
    let shm = ctx.layout.shm(&meta.id);
    failures.note(
        blocking(move || {
            hull_failpoint::failpoint!("sandbox.remove.files").map_err(|e| Error::io("remove files", e))?;
            // A mount that could not be undone must not be emptied through the tree.
            match std::fs::remove_dir(&shm) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("remove {}", shm.display()), e));
                }
                _ => {}
            }
            for dir in &dirs {
                remove_tree(dir).map_err(|e| Error::io(format!("remove {}", dir.display()), e))?;
            }
            Ok::<_, Error>(())
        })
        .await,
    );
    failures.into_result("teardown of pod sandbox", &meta.id)?;
    ctx.records.delete_sandbox(&meta.id).await
}

async fn cgroups(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    ctx.node.kill_cgroup(&meta.cgroup_parent, UNDO_DEADLINE).await?;
    ctx.node.remove_cgroup(&meta.cgroup_parent).await?;
    // `/hull` itself goes with its last pod.
    if let Some(above) = meta.cgroup_parent.parent().filter(|above| above.ends_with("hull")) {
        ctx.node.prune_cgroup(above).await;
    }
    Ok(())
}
