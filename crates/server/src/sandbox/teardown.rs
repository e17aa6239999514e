// SPDX-License-Identifier: Apache-2.0
//! Taking a pod sandbox apart. Every step is idempotent and derives what it touches from the id, so
//! the same code serves stop, remove, the undo of a failed run, and a start after a crash. Every
//! step runs; every failure is reported.

use std::path::Path;
use std::sync::Arc;

use crate::cgroup;
use crate::context::{Context, Failures};
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
    failures.note(ctx.node.unmount(&ctx.layout.pod_files(&meta.id)).await);
    failures.into_result("teardown of pod sandbox", &meta.id)
}

/// Takes away everything, the record last, and forgets the sandbox. It has no containers any more.
pub(crate) async fn everything(ctx: &Context, sandbox: &Arc<Sandbox>) -> Result<()> {
    things(ctx, &sandbox.meta).await?;
    // No change may write the record again after its end.
    let _order = sandbox.writing.lock().await;
    ctx.records.delete_sandbox(sandbox.id()).await?;
    ctx.store.drop_sandbox(sandbox);
    Ok(())
}

/// As [`everything`], for a record without an object.
pub(crate) async fn by_meta(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    things(ctx, meta).await?;
    ctx.records.delete_sandbox(&meta.id).await
}

async fn things(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    let mut failures = Failures::default();
    failures.note(resources(ctx, meta).await);
    if meta.owns_cgroup_parent {
        failures.note(cgroups(ctx, meta).await);
    } else if let Some(made) = &meta.made_cgroup {
        for cgroup in meta.cgroup_parent.ancestors().take_while(|path| path.starts_with(made)) {
            prune(ctx, meta, cgroup).await;
        }
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
    failures.into_result("teardown of pod sandbox", &meta.id)
}

async fn cgroups(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    ctx.node.kill_cgroup(&meta.cgroup_parent, ctx.undo_deadline()).await?;
    ctx.node.remove_cgroup(&meta.cgroup_parent).await?;
    // `/hull` itself goes with its last pod.
    if let Some(above) = meta.cgroup_parent.parent().filter(|above| cgroup::holds_own_parents(above)) {
        prune(ctx, meta, above).await;
    }
    Ok(())
}

/// A directory that is not empty cannot be removed; a slice would be stopped with all that lives in it. So it is left
/// to the last pod that needs it, and no pod comes to need it meanwhile.
async fn prune(ctx: &Context, meta: &SandboxMeta, path: &Path) {
    if !cgroup::is_systemd(path) {
        return ctx.node.prune_cgroup(path).await;
    }
    let _alone = ctx.slices.write().await;
    let others = ctx.store.sandboxes();
    if !others.iter().any(|other| other.id() != meta.id && other.meta.cgroup_parent.starts_with(path)) {
        ctx.node.prune_cgroup(path).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use mockall::predicate::eq;

    use super::*;
    use crate::backends::Backends;
    use crate::config::Config;
    use crate::context::Daemon;
    use crate::layout::Layout;
    use crate::node::MockNode;

    /// A pod whose teardown meets this node; everything else is a mock.
    async fn teardown(owns: bool, made: Option<&str>, parent: &str, node: MockNode) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::mock(dir.path());
        let layout = Layout { root: config.root.clone(), run_root: config.run_root.clone() };
        layout.make().unwrap();
        let mut backends = Backends::open(&config).await.unwrap();
        backends.node = Arc::new(node);
        let ctx = Arc::new(Daemon::new(config, layout, backends).unwrap());
        let meta = SandboxMeta {
            id: "a".repeat(64),
            handler: "mock".into(),
            requested_handler: String::new(),
            config: hull_cri_api::v1::PodSandboxConfig {
                linux: Some(hull_cri_api::v1::LinuxPodSandboxConfig {
                    security_context: Some(hull_cri_api::v1::LinuxSandboxSecurityContext {
                        namespace_options: Some(hull_cri_api::v1::NamespaceOption {
                            pid: 1,
                            ..Default::default()
                        }),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            },
            created_at: SystemTime::now(),
            cgroup_parent: PathBuf::from(parent),
            owns_cgroup_parent: owns,
            made_cgroup: made.map(PathBuf::from),
            hostname: String::new(),
            unknown: crate::model::Unknown::new(),
        };
        by_meta(&ctx, &meta).await.unwrap();
    }

    fn node() -> MockNode {
        let mut node = MockNode::new();
        node.expect_facts().return_const(crate::spec::tests::facts());
        node.expect_unmount().returning(|_| Ok(()));
        node
    }

    #[tokio::test]
    async fn a_named_parent_may_hold_other_pods_and_is_never_killed() {
        let mut node = node();
        node.expect_kill_cgroup().never();
        node.expect_remove_cgroup().never();
        node.expect_prune_cgroup().with(eq(Path::new("/x/y/z"))).once().return_const(());
        node.expect_prune_cgroup().with(eq(Path::new("/x/y"))).once().return_const(());
        teardown(false, Some("/x/y"), "/x/y/z", node).await;
    }

    #[tokio::test]
    async fn a_parent_that_was_there_before_is_left_alone() {
        let mut node = node();
        node.expect_kill_cgroup().never();
        node.expect_remove_cgroup().never();
        node.expect_prune_cgroup().never();
        teardown(false, None, "/kubepods/burstable/pod1", node).await;
    }

    #[tokio::test]
    async fn the_pods_own_parent_goes_with_all_that_is_in_it() {
        let mut node = node();
        node.expect_kill_cgroup()
            .with(eq(Path::new("/hull/a")), mockall::predicate::always())
            .once()
            .returning(|_, _| Ok(()));
        node.expect_remove_cgroup().with(eq(Path::new("/hull/a"))).once().returning(|_| Ok(()));
        node.expect_prune_cgroup().with(eq(Path::new("/hull"))).once().return_const(());
        teardown(true, None, "/hull/a", node).await;
    }
}
