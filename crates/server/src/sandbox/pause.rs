// SPDX-License-Identifier: Apache-2.0
//! The pause: the process that holds the pid namespace which the containers of a pod share. Runs
//! through the OCI runtime and a monitor like any container, from a root of one file that the daemon
//! carries in itself; pods with a pid namespace per container have none.

use std::sync::Arc;

use hull_conmon_client::{CreateRequest, Monitored, Stdio};
use hull_netns::PodNamespaces;
use hull_oci_runtime::DeleteRequest;

use crate::cgroup;
use crate::context::{Context, Failures};
use crate::error::{Error, Result};
use crate::layout::gate;
use crate::model::SandboxMeta;
use crate::records::blocking;
use crate::sandbox::stop;
use crate::spec::namespaces::{PidNamespace, pod_pid_namespace};
use crate::spec::{PauseInput, pause_spec};
use crate::store::Sandbox;

/// Whether the pod shares a pid namespace of its own.
pub(crate) fn is_needed(meta: &SandboxMeta) -> bool {
    matches!(pod_pid_namespace(&meta.config), Ok(PidNamespace::Pod))
}

/// The pause is a container with the sandbox's id, which no container has.
fn own_cgroup(meta: &SandboxMeta) -> std::path::PathBuf {
    cgroup::container(&meta.cgroup_parent, &meta.id)
}

fn monitor_cgroup(meta: &SandboxMeta) -> std::path::PathBuf {
    cgroup::monitor(&meta.cgroup_parent, &meta.id)
}

/// Writes its bundle and makes its monitor's cgroup.
pub(crate) async fn prepare(ctx: &Context, meta: &SandboxMeta, namespaces: &PodNamespaces) -> Result<()> {
    let root = ctx.layout.pause_root(&meta.id);
    let spec = pause_spec(&PauseInput {
        sandbox_id: &meta.id,
        rootfs: &root,
        namespaces,
        users: meta.users().as_ref(),
        cgroups_path: &own_cgroup(meta),
        facts: ctx.node.facts(),
        seccomp: ctx.probes.facts(&meta.handler).seccomp,
    })?;
    let (path, (_, group)) = (ctx.layout.pause_dir(&meta.id), ctx.owner(meta));
    blocking(move || {
        let io = |e| Error::io(format!("write {}", path.display()), e);
        gate(&path, group).map_err(io)?;
        crate::pause::write_root(&root).map_err(|e| Error::io(format!("write {}", root.display()), e))?;
        let bytes =
            serde_json::to_vec(&spec).map_err(|e| Error::io("write the pause's config.json", e.into()))?;
        hull_failpoint::failpoint!("pause.bundle.write").map_err(io)?;
        hull_files::write(&path.join("config.json"), &bytes, hull_files::PRIVATE_FILE).map_err(io)
    })
    .await?;
    ctx.node.create_cgroup(&monitor_cgroup(meta)).await.map(|_| ())
}

/// Creates and starts it from its bundle.
pub(crate) async fn start(ctx: &Context, meta: &SandboxMeta) -> Result<Monitored> {
    let (_, handler) = ctx.handler("RunPodSandbox", &meta.handler)?;
    let bundle = ctx.layout.pause_dir(&meta.id);
    let command = handler.runtime.create_command(&hull_oci_runtime::CreateRequest {
        id: meta.id.clone(),
        bundle: bundle.clone(),
        systemd_cgroup: cgroup::is_systemd(&own_cgroup(meta)),
    });
    let create = CreateRequest {
        command,
        name: "pause".to_owned(),
        state_dir: bundle,
        log_path: None,
        stdio: Stdio::default(),
        monitor_cgroup: Some(monitor_cgroup(meta)),
        deadline: ctx.config.timeouts.create,
    };
    let monitored = handler.monitor.create(&create).await?;
    handler.runtime.start(&meta.id).await?;
    Ok(monitored)
}

/// Whether it lives, or is not needed.
pub(crate) fn is_intact(ctx: &Context, sandbox: &Sandbox) -> bool {
    if !is_needed(&sandbox.meta) {
        return true;
    }
    let status = sandbox.status();
    let (Some(pause), Ok((_, handler))) = (&status.pause, ctx.handler("pause", &sandbox.meta.handler)) else {
        return false;
    };
    handler.monitor.is_alive(pause)
}

/// A pod whose pause ends has lost its pid namespace, and with it every process: it is stopped, so that
/// the kubelet makes another.
pub(crate) fn watch(ctx: &Context, sandbox: &Arc<Sandbox>) {
    let Some(pause) = sandbox.status().pause.clone() else { return };
    let Ok((_, handler)) = ctx.handler("pause", &sandbox.meta.handler) else { return };
    let monitor = handler.monitor.clone();
    let (ctx_, sandbox) = (ctx.clone(), sandbox.clone());
    ctx.watchers.spawn(async move {
        tokio::select! {
            () = ctx_.watch_end.cancelled() => return,
            _ = monitor.wait(&pause) => {}
        }
        if sandbox.is_ready() {
            tracing::warn!(sandbox = sandbox.id(), "the pod's pause ended: stopping the pod");
            let _ = stop::stop(&ctx_, sandbox.id()).await;
        }
    });
}

/// Ends it and has runtime and monitor forget it. Idempotent, also where there never was one.
pub(crate) async fn end(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    if !is_needed(meta) {
        return Ok(());
    }
    let mut failures = Failures::default();
    let monitored = ctx.store.sandbox_exact(&meta.id).and_then(|sandbox| sandbox.status().pause.clone());
    if let Ok((_, handler)) = ctx.handler("StopPodSandbox", &meta.handler) {
        let delete = DeleteRequest { id: meta.id.clone(), force: true };
        failures.note(handler.runtime.delete(&delete).await);
        failures.note(handler.monitor.remove(&meta.id, monitored.as_ref()).await);
    }
    for cgroup in [own_cgroup(meta), monitor_cgroup(meta)] {
        if ctx.node.is_populated(&cgroup) {
            failures.note(ctx.node.kill_cgroup(&cgroup, ctx.undo_deadline()).await);
        }
        failures.note(ctx.node.remove_cgroup(&cgroup).await);
    }
    failures.into_result("pause", &meta.id)
}
