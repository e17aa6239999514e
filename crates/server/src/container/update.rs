// SPDX-License-Identifier: Apache-2.0
//! UpdateContainerResources: new limits for a created or running container, whole or not at all.
//!
//! ```text
//! check -> keep what stands in the cgroup -> runtime update -> huge pages -> record -> published
//!                                                 |_______ any failure: put back _______|
//! ```
//! A daemon that dies in between leaves the new limits in the cgroup and the old ones in the record, which is
//! what status tells: the kubelet compares, and asks again. A stop that comes meanwhile cancels without
//! putting back: nothing runs for long under these limits.

use std::sync::Arc;

use hull_cri_api::v1;
use hull_oci_runtime::UpdateRequest;
use oci_spec::runtime::LinuxResources;

use crate::claim;
use crate::container::words;
use crate::context::{Context, Failures, Handler, UNDO_DEADLINE};
use crate::error::{Error, Result, chain};
use crate::limits;
use crate::model::{ContainerPhase, Updated};
use crate::operation::{Admission, OpKind, Operation};
use crate::records::blocking;
use crate::spec::update::{Update, undo, update as merged};
use crate::store::Container;

const RPC: &str = "UpdateContainerResources";

/// Changes a container's limits; what is zero or empty stays. Without any it changes nothing.
pub(crate) async fn update(ctx: &Context, request: v1::UpdateContainerResourcesRequest) -> Result<()> {
    let id = request.container_id.as_str();
    let container =
        ctx.store.container(id)?.ok_or_else(|| Error::NotFound { kind: "container", id: id.to_owned() })?;
    let Some(given) = request.linux.filter(|given| *given != v1::LinuxContainerResources::default()) else {
        return Ok(());
    };
    limits::message(RPC, "linux", &given, limits::RESOURCES)?;
    if !container.status().claimed {
        // Who knows the id has it from us.
        claim::claim(ctx, &container).await?;
    }
    loop {
        match container.slot.admit(OpKind::UpdateContainer, container.id(), "") {
            Admission::Run(operation) => {
                let waiter = operation.waiter();
                spawn(ctx, container.clone(), given, operation);
                return waiter.outcome().await.map_err(Error::Shared);
            }
            Admission::Refuse(operation) => {
                return Err(refused(container.id(), format!("{} is in progress", operation.kind.rpc())));
            }
            Admission::Join(operation)
            | Admission::Wait(operation)
            | Admission::Cancel(operation)
            | Admission::Shorten(operation) => {
                let _ = operation.ended().await;
            }
        }
    }
}

fn refused(id: &str, problem: String) -> Error {
    Error::FailedPrecondition { operation: RPC, id: id.to_owned(), problem }
}

fn spawn(
    ctx: &Context,
    container: Arc<Container>,
    given: v1::LinuxContainerResources,
    operation: Arc<Operation>,
) {
    let (ctx_, container_, operation_) = (ctx.clone(), container.clone(), operation.clone());
    let body = async move { run(&ctx_, &container_, &given, &operation_).await };
    let ended = operation.clone();
    ctx.spawn_operation(operation, body, move |outcome| container.slot.finish(&ended, outcome));
}

async fn run(
    ctx: &Context,
    container: &Container,
    given: &v1::LinuxContainerResources,
    operation: &Operation,
) -> Result<()> {
    let phase = container.status().phase;
    if !matches!(phase, ContainerPhase::Created | ContainerPhase::Running) {
        return Err(refused(container.id(), format!("it is not running but {}", words(phase))));
    }
    let (name, handler) = ctx.handler(RPC, &container.meta.handler)?;
    let (facts, can) = (ctx.node.facts(), ctx.probes.facts(&name));
    let before = container.resources().unwrap_or_default();
    let update = merged(&before, given, facts, &can)?;
    limits::message(RPC, "linux", &update.after, limits::RESOURCES)?;
    fits(ctx, container, &before, &update).await?;
    let sizes = update.hugepages.iter().map(|(size, _)| size.clone()).collect();
    let files = given.unified.keys().cloned().collect();
    let kept = ctx.node.cgroup_limits(&container.meta.cgroup, sizes, files);
    let kept = operation.step("container.update.keep", kept).await?;

    let result = apply(ctx, container, handler, &update, operation).await;
    match result {
        Err(error) if !matches!(error, Error::Cancelled { .. }) => {
            let document = undo(&before, &update, facts, &can);
            let back = async {
                let mut failures = Failures::default();
                match document {
                    Ok(document) => failures.note(tell(handler, container, document).await),
                    Err(error) => failures.note::<Error>(Err(error.into())),
                }
                // The runtime's way back first, because it remembers; the files have the last word.
                failures.note(ctx.node.restore_limits(kept).await);
                failures.note(ctx.node.tell_limits(&container.meta.cgroup).await);
                failures.into_result("undo of UpdateContainerResources", container.id())
            };
            let back = tokio::time::timeout(UNDO_DEADLINE, operation.mark("undo", back)).await;
            if !matches!(back, Ok(Ok(()))) {
                let problem = back.map_or_else(
                    |late| late.to_string(),
                    |undone| undone.map_or_else(|e| chain(&e), |()| String::new()),
                );
                tracing::warn!(container = container.id(), error = problem, "limits are not all put back");
            }
            Err(error)
        }
        result => result,
    }
}

async fn apply(
    ctx: &Context,
    container: &Container,
    handler: &Handler,
    update: &Update,
    operation: &Operation,
) -> Result<()> {
    // One that will never have a process has no limits but in its record.
    if container.status().unstartable.is_none() {
        let deadline = ctx.config.timeouts.runtime;
        let told = tell(handler, container, update.document.clone());
        operation.stage("container.update.runtime", deadline, told).await?;
        if !update.hugepages.is_empty() {
            let pages = ctx.node.set_hugepages(&container.meta.cgroup, update.hugepages.clone());
            operation.step("container.update.hugepages", pages).await?;
        }
        operation.step("container.update.tell", ctx.node.tell_limits(&container.meta.cgroup)).await?;
    }
    let recorded = ctx.change_container(container, |status| {
        status.updated = Some(Updated { resources: update.after.clone() });
    });
    // What is written down counts, also for its caller, whoever comes to end the container.
    operation.last_step("container.update.record", recorded).await
}

async fn tell(handler: &Handler, container: &Container, resources: LinuxResources) -> Result<()> {
    let request = UpdateRequest {
        id: container.id().to_owned(),
        resources,
        cgroup: Some(container.meta.cgroup.clone()),
    };
    Ok(handler.runtime.update(&request).await?)
}

/// Less memory than is in use would make the kernel kill for it (version 2) or fail half-way (version 1). What
/// files can be read again from does not count: the kernel lets go of it.
async fn fits(
    ctx: &Context,
    container: &Container,
    before: &v1::LinuxContainerResources,
    update: &Update,
) -> Result<()> {
    let limit = update.after.memory_limit_in_bytes;
    let Some(wanted) = u64::try_from(limit).ok().filter(|_| limit != before.memory_limit_in_bytes) else {
        return Ok(());
    };
    let (node, cgroup) = (ctx.node.clone(), container.meta.cgroup.clone());
    let stats = blocking(move || Ok::<_, Error>(node.cgroup_stats(&cgroup))).await?;
    match stats {
        Some(stats) if wanted > 0 && stats.memory_working_set > wanted => Err(refused(
            container.id(),
            format!(
                "memory_limit_in_bytes {wanted} is below what is in use, {} bytes",
                stats.memory_working_set
            ),
        )),
        _ => Ok(()),
    }
}
