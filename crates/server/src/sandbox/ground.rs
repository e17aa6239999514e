// SPDX-License-Identifier: Apache-2.0
//! What a pod stands on: its pinned namespaces, its files, its cgroup, its link to the network.
//!
//! ```text
//! a namespace is lost --> not ready, with the reason; its containers and what it holds stay until the pod is stopped
//! a file, /dev/shm, the cgroup or the built-in bridge's link is lost --> made again from the record, and logged
//! ```
//! A pod cannot get another namespace: its containers would be in two. So the kubelet learns it, which stops the pod and
//! makes another. Losses of namespaces are noticed when something is unmounted, at a start, and when a container is
//! created; all others when a container is created, for nothing else needs what was lost.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::records::blocking;
use crate::sandbox::{files, run};
use crate::store::Sandbox;

const RPC: &str = "CreateContainer";

/// How long a look at pinned namespaces may take: files of a volatile file system, so this is for a machine that is
/// worn out. A pod that is gone is told as ready rather than a pod that lives ended.
const LOOK: Duration = Duration::from_secs(5);

/// How long changes are gathered: containers that come and go mount and unmount in bursts.
const GATHER: Duration = Duration::from_millis(500);

/// Says which of its namespaces a pod has lost; `None` if none, or if that cannot be found out.
pub(crate) async fn loss(ctx: &Context, sandbox: &Sandbox) -> Option<String> {
    if !run::expects_namespaces(&sandbox.meta) {
        return None;
    }
    match tokio::time::timeout(LOOK, ctx.netns.open(sandbox.id())).await {
        Ok(Ok(found)) => {
            let lost = run::missing(&sandbox.meta, &found);
            let kinds = lost.join(", ");
            (!lost.is_empty()).then(|| {
                format!("the pod's {kinds} namespace is gone: its pin was removed by another program")
            })
        }
        Ok(Err(error @ (hull_netns::Error::NotFound { .. } | hull_netns::Error::NotANamespace { .. }))) => {
            Some(format!("the pod's namespaces are gone: {}", chain(&error)))
        }
        // Not being able to look is no reason to end a pod.
        Ok(Err(error)) => {
            tracing::warn!(sandbox = sandbox.id(), error = %chain(&error), "cannot check the pod's namespaces");
            None
        }
        Err(_) => {
            tracing::warn!(sandbox = sandbox.id(), after = ?LOOK, "checking the pod's namespaces takes too long");
            None
        }
    }
}

/// Makes a pod not ready for good. One that is being stopped meanwhile has lost nothing but what the stop took.
pub(crate) async fn lose(ctx: &Context, sandbox: &Sandbox, why: String) {
    let mut lost = false;
    let change = ctx.observe_sandbox(sandbox, |status| lost = status.lose(&why));
    change.await;
    if lost {
        tracing::error!(
            sandbox = sandbox.id(),
            reason = why,
            "the pod sandbox is not ready any more; stop it and run another"
        );
    }
}

/// Starts to watch the namespaces of all pods. Ends with the daemon.
pub(crate) fn watch(ctx: &Context) {
    let ctx_ = ctx.clone();
    ctx.tasks.spawn(async move {
        loop {
            let changed = tokio::select! {
                () = ctx_.shutdown.cancelled() => return,
                changed = ctx_.netns.changed() => changed,
            };
            if let Err(error) = changed {
                tracing::error!(error = %chain(&error), "lost namespaces will be noticed only when containers are created");
                return;
            }
            if !ctx_.pause(GATHER).await {
                return;
            }
            for sandbox in ctx_.store.sandboxes() {
                check(&ctx_, &sandbox).await;
            }
        }
    });
}

async fn check(ctx: &Context, sandbox: &Arc<Sandbox>) {
    if sandbox.is_ready()
        && let Some(why) = loss(ctx, sandbox).await
    {
        lose(ctx, sandbox, why).await;
    }
}

/// Makes again what a container of the pod needs and another program has taken away.
///
/// # Errors
/// When a namespace is lost, which cannot be made again; or a file or mount cannot.
pub(crate) async fn restore(ctx: &Context, sandbox: &Arc<Sandbox>) -> Result<()> {
    check(ctx, sandbox).await;
    if let Some(problem) = sandbox.status().why_lost() {
        return Err(Error::FailedPrecondition { operation: RPC, id: sandbox.id().to_owned(), problem });
    }
    let remade = files::remake(ctx, sandbox).await?;
    for what in remade {
        tracing::warn!(sandbox = sandbox.id(), what, "was removed by another program: made again");
    }
    let (node, cgroup) = (ctx.node.clone(), sandbox.meta.cgroup_parent.clone());
    if blocking(move || Ok::<_, Error>(node.has_lost_cgroup(&cgroup))).await? {
        ctx.node.create_cgroup(&sandbox.meta.cgroup_parent).await?;
        let cgroup = sandbox.meta.cgroup_parent.display();
        tracing::warn!(sandbox = sandbox.id(), %cgroup, "the pod's cgroup was removed by another program: made again without limits");
    }
    restore_link(ctx, sandbox).await;
    Ok(())
}

/// A pod without a link still runs what needs none, so this fails no creation.
async fn restore_link(ctx: &Context, sandbox: &Sandbox) {
    let restored = async {
        let Some(record) = ctx.records.attachment(sandbox.id()).await? else { return Ok(false) };
        Ok::<_, Error>(ctx.network.restore(&record.attachment).await?)
    };
    match tokio::time::timeout(ctx.config.timeouts.network, restored).await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => {
            tracing::warn!(
                sandbox = sandbox.id(),
                "the pod's link was removed by another program: made again"
            );
        }
        Ok(Err(error)) => {
            tracing::error!(sandbox = sandbox.id(), error = %chain(&error), "the pod's link is gone and cannot be made again");
        }
        Err(_) => tracing::error!(sandbox = sandbox.id(), "checking the pod's link takes too long"),
    }
}
