// SPDX-License-Identifier: Apache-2.0
//! What runs now, for people: kind, key, stage, age, what it waits for; and ending one of them.

use std::time::Duration;

use super::{Job, OpKind, Operation};
use crate::context::Daemon;
use crate::error::{Error, Result};
use crate::model::{ContainerKey, SandboxKey};
use crate::store::Container;

/// One operation or job.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// The RPC, or what else it is.
    pub(crate) kind: &'static str,
    /// What the kubelet knows the thing by; a reference of an image.
    pub(crate) key: String,
    /// The id of the thing, or of the job.
    pub(crate) id: String,
    pub(crate) stage: &'static str,
    pub(crate) waiting_for: &'static str,
    pub(crate) age: Duration,
    pub(crate) stage_age: Duration,
    /// How long the stage may take; `None`: local work that cannot be cut short.
    pub(crate) stage_deadline: Option<Duration>,
    /// Calls that wait for its end.
    pub(crate) callers: usize,
    pub(crate) cancelled: bool,
    pub(crate) cancellable: bool,
    /// The process that called, where that is known.
    pub(crate) caller: Option<i32>,
    /// A job has no thing: its id is its own.
    is_job: bool,
}

// === impl Listed ===

impl Listed {
    /// Whether it is what an administrator named: by its key, its id, or the beginning of a thing's id.
    fn is_named(&self, wanted: &str) -> bool {
        self.key == wanted || self.id == wanted || !self.is_job && self.id.starts_with(wanted)
    }
}

/// Everything that runs, the oldest first.
pub(crate) fn list(ctx: &Daemon) -> Vec<Listed> {
    let mut all = Vec::new();
    for sandbox in ctx.store.sandboxes() {
        if let Some(operation) = sandbox.slot.current() {
            all.push(listed(&operation, sandbox_key(&sandbox.meta.key())));
        }
    }
    for container in ctx.store.containers() {
        if let Some(operation) = container.slot.current() {
            all.push(listed(&operation, container_name(ctx, &container)));
        }
    }
    all.extend(ctx.jobs.list().into_iter().map(job));
    all.sort_by_key(|listed| std::cmp::Reverse(listed.age));
    all
}

/// Cancels the operation of a thing: named by its key, or by its id or the beginning of it.
///
/// # Errors
/// When nothing runs there, several things are meant, or what runs is never cancelled: what ends a thing.
pub(crate) fn cancel(ctx: &Daemon, wanted: &str) -> Result<Listed> {
    const RPC: &str = "CancelOperation";
    if wanted.is_empty() {
        let problem = "must not be empty".to_owned();
        return Err(Error::InvalidArgument { operation: RPC, field: "key".to_owned(), problem });
    }
    let mut found: Vec<Listed> = list(ctx).into_iter().filter(|listed| listed.is_named(wanted)).collect();
    let Some(one) = found.pop() else {
        return Err(Error::NotFound { kind: "running operation", id: wanted.to_owned() });
    };
    if !found.is_empty() {
        let named = found.iter().chain([&one]).map(|listed| format!("{} {}", listed.kind, listed.id));
        let named: Vec<String> = named.collect();
        let problem = format!("{wanted:?} names several operations; use an id: {}", named.join(", "));
        return Err(Error::InvalidArgument { operation: RPC, field: "key".to_owned(), problem });
    }
    if !one.cancellable {
        let problem = format!("{} is never cancelled: what ends a thing runs to its end", one.kind);
        return Err(Error::FailedPrecondition { operation: RPC, id: wanted.to_owned(), problem });
    }
    if let Some(sandbox) = ctx.store.sandbox_exact(&one.id) {
        cancel_current(sandbox.slot.current(), one.kind);
    } else if let Some(container) = ctx.store.container_exact(&one.id) {
        cancel_current(container.slot.current(), one.kind);
    }
    for job in ctx.jobs.list() {
        if let Some(token) = job.cancel.filter(|_| job.id == one.id) {
            token.cancel();
        }
    }
    Ok(one)
}

/// Another operation may have taken the slot meanwhile.
fn cancel_current(current: Option<std::sync::Arc<Operation>>, kind: &str) {
    if let Some(operation) = current.filter(|operation| operation.kind.rpc() == kind) {
        operation.cancel();
    }
}

fn listed(operation: &Operation, key: String) -> Listed {
    let stage = operation.current_stage();
    Listed {
        kind: operation.kind.rpc(),
        key,
        id: operation.id.clone(),
        stage: stage.name,
        waiting_for: waits_for(stage.name),
        age: operation.progress().1,
        stage_age: stage.since.elapsed(),
        stage_deadline: stage.deadline,
        callers: operation.callers(),
        cancelled: operation.is_cancelled(),
        cancellable: operation.kind.is_cancellable(),
        caller: None,
        is_job: false,
    }
}

fn job(job: Job) -> Listed {
    let age = job.started.elapsed();
    Listed {
        kind: job.kind,
        key: job.key,
        id: job.id,
        stage: "",
        waiting_for: job.waiting_for,
        age,
        stage_age: age,
        stage_deadline: None,
        callers: usize::from(job.caller.is_some()),
        cancelled: job.cancel.as_ref().is_some_and(tokio_util::sync::CancellationToken::is_cancelled),
        cancellable: job.cancel.is_some(),
        caller: job.caller,
        is_job: true,
    }
}

fn pod_name(key: &SandboxKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

/// `namespace/name/uid#attempt`
fn sandbox_key(key: &SandboxKey) -> String {
    format!("{}/{}#{}", pod_name(key), key.uid, key.attempt)
}

/// `namespace/pod/container#attempt`
pub(crate) fn container_name(ctx: &Daemon, container: &Container) -> String {
    let pod = ctx.store.sandbox_exact(&container.meta.sandbox_id);
    let pod = pod.map_or_else(|| container.meta.sandbox_id.clone(), |pod| pod_name(&pod.meta.key()));
    let ContainerKey { name, attempt, .. } = container.meta.key();
    format!("{pod}/{name}#{attempt}")
}

/// What a stage waits for, in words.
fn waits_for(stage: &str) -> &'static str {
    let Some((_, step)) = stage.rsplit_once('.') else {
        return if stage == "undo" { "what was half made to be taken away" } else { "its turn" };
    };
    match step {
        "former" => "the network to release what pods had before the node restarted",
        "plan" | "network" => "the network to attach the pod",
        "pause" => "the OCI runtime to start the pod's pause",
        "namespaces" => "the kernel to make namespaces",
        "cgroup" | "cgroups" => "the kernel to make cgroups",
        "root" | "images" => "the image store to mount a root",
        "spec" | "logs" => "volume paths to be looked at",
        "monitor" => "conmon and the OCI runtime to create the container",
        "runtime" | "state" => "the OCI runtime",
        "containers" => "the pod's containers",
        "resources" => "network, namespaces and mounts to be released",
        "everything" => "everything of it to be taken away",
        "signal" => "the OCI runtime to send the stop signal",
        "grace" => "the container to end by itself",
        "kill" | "leftovers" => "the kernel to end what was sent SIGKILL",
        _ => "its files to be written",
    }
}

// === impl OpKind ===

impl OpKind {
    /// What ends a thing is never cancelled.
    pub(crate) fn is_cancellable(self) -> bool {
        match self {
            Self::RunSandbox
            | Self::CreateContainer
            | Self::StartContainer
            | Self::UpdateContainer
            | Self::RecoverContainer => true,
            Self::StopSandbox | Self::RemoveSandbox | Self::StopContainer | Self::RemoveContainer => false,
        }
    }
}
