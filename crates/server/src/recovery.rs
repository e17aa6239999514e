// SPDX-License-Identifier: Apache-2.0
//! Start-up: what an earlier daemon left is adopted, finished or undone, before the API answers.
//!
//! What may have changed while no daemon ran: containers exited, the node was rebooted (another boot
//! id: no process of ours lives), namespaces were removed, records were damaged (quarantined). What a
//! record says about processes is checked against the kernel.
//!
//! ```text
//! record creating            -> undone
//! record stopping            -> its stop is taken up again
//! record ready, boot differs -> not ready, network released
//! container created/running  -> watched again; ended meanwhile: exited, with the code from the exit file
//! exec or session that ran   -> killed: nobody has its streams any more
//! container created, but the runtime says running -> running (its start was not recorded)
//! attachment without a pod   -> released
//! network has more than that -> collected, in the background
//! directory without a record -> deleted
//! ```

mod execs;
mod orphans;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use hull_oci_runtime::{Exit, ExitSource, RuntimeStatus};
use hull_pod_network::Attachment;
use tokio::task::JoinSet;

use crate::claim;
use crate::container;
use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::ledger::{self, Owed};
use crate::model::{AttachmentRecord, ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord};
use crate::records::AllRecords;
use crate::sandbox;
use crate::store::{Container, Sandbox};

/// How long one object may hold up the start; it goes on in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes over from the daemon before.
pub(crate) async fn recover(ctx: &Context) -> Result<()> {
    let records = ctx.records.clone();
    let all = crate::records::blocking(move || records.load()).await?;
    for bad in &all.quarantined {
        tracing::error!(id = bad.id, reason = bad.reason, path = %bad.path.display(), "record cannot be read: put into quarantine");
    }
    let AllRecords { sandboxes, containers, attachments, .. } = all;
    let known: Vec<Attachment> = attachments.iter().map(|record| record.attachment.clone()).collect();
    let known_containers: Vec<String> = containers.iter().map(|record| record.meta.id.clone()).collect();
    side_by_side(ctx, containers, container_record).await;
    side_by_side(ctx, sandboxes, sandbox_record).await;
    side_by_side(ctx, attachments, attachment_record).await;
    execs::end(ctx).await;
    orphans::delete(ctx, &known_containers).await;
    orphans::delete_execs(ctx).await;
    ctx.tasks.spawn(collect_network_garbage(ctx.clone(), known));
    Ok(())
}

/// What the network holds for pods that no record knows any more. In the background: new pods need not wait for it.
async fn collect_network_garbage(ctx: Context, known: Vec<Attachment>) {
    let deadline = ctx.config.timeouts.network;
    let collect = async {
        let records = ctx.records.clone();
        if crate::records::blocking(move || records.has_lost_attachments()).await? {
            // The pod of a record that cannot be read may live, and needs its addresses.
            tracing::warn!(
                "attachments are in quarantine: what the network holds for pods that are gone is kept until they are removed there"
            );
            return Ok(());
        }
        ctx.network.gc(&known).await?;
        Ok::<_, Error>(())
    };
    let stage = "collect the network's garbage";
    let result = tokio::select! {
        () = ctx.shutdown.cancelled() => return,
        result = tokio::time::timeout(deadline, collect) => result.unwrap_or_else(|_| {
            Err(Error::DeadlineExceeded { operation: "recovery", id: "network".to_owned(), stage, after: deadline })
        }),
    };
    if let Err(error) = result {
        tracing::warn!(error = %chain(&error), "the network's garbage is not all collected; the next start tries again");
    }
}

/// Every record in a task of its own, which the start waits for only so long.
async fn side_by_side<T, F>(ctx: &Context, records: Vec<T>, recover: fn(Context, T) -> F)
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for record in records {
        let work = ctx.tasks.spawn(recover(ctx.clone(), record));
        tasks.spawn(async move { tokio::time::timeout(PATIENCE, work).await.is_ok() });
    }
    while let Some(done) = tasks.join_next().await {
        if !matches!(done, Ok(true)) {
            tracing::warn!(after = ?PATIENCE, "an object takes long to recover: going on in the background");
        }
    }
}

async fn container_record(ctx: Context, record: ContainerRecord) {
    let ContainerRecord { boot_id, meta, status } = record;
    if status.phase == ContainerPhase::Creating {
        if let Err(error) = container::teardown::by_meta(&ctx, &meta).await {
            tracing::warn!(container = meta.id, error = %chain(&error), "half-made container not undone; will be retried");
            ledger::owe(&ctx, Owed::Container(Box::new(meta)), &error);
        }
        return;
    }
    let fingerprint = container::request::fingerprint(&meta.config);
    let container = Container::new(meta, fingerprint, status);
    ctx.store.adopt_container(container.clone());
    if container.status().phase != ContainerPhase::Exited {
        if boot_id == ctx.node.boot_id() {
            adopt(&ctx, &container).await;
        } else {
            let exit = Exit { code: 255, at: SystemTime::now(), oom: false, source: ExitSource::Unknown };
            ctx.observe_container(&container, |status| status.exited(exit)).await;
        }
    }
    if !container.status().claimed {
        claim::expire(&ctx, &container);
    }
}

async fn adopt(ctx: &Context, container: &Arc<Container>) {
    let status = container.status();
    let (Some(monitored), Ok((_, handler))) =
        (&status.monitored, ctx.handler("recovery", &container.meta.handler))
    else {
        tracing::error!(
            container = container.id(),
            handler = container.meta.handler,
            "no such runtime handler any more: cannot tell what it does"
        );
        return;
    };
    if status.phase == ContainerPhase::Created {
        find_lost_start(ctx, container).await;
    }
    if handler.monitor.is_alive(monitored) {
        container::watch::spawn(ctx, container);
    } else {
        let exit = handler.monitor.wait(monitored).await;
        ctx.observe_container(container, |status| status.exited(exit)).await;
    }
}

/// The daemon may have died between the runtime's start and its record.
async fn find_lost_start(ctx: &Context, container: &Arc<Container>) {
    let Ok((_, handler)) = ctx.handler("recovery", &container.meta.handler) else { return };
    let started = match handler.runtime.state(container.id()).await {
        Ok(state) => matches!(state.status, RuntimeStatus::Running | RuntimeStatus::Paused),
        Err(error) => {
            tracing::warn!(container = container.id(), error = %chain(&error), "cannot tell whether it was started");
            false
        }
    };
    if started {
        container.start_untold.store(true, Ordering::SeqCst);
        let at = SystemTime::now();
        ctx.observe_container(container, |status| {
            status.claimed = true;
            status.started(at);
        })
        .await;
    }
}

async fn sandbox_record(ctx: Context, record: SandboxRecord) {
    let SandboxRecord { boot_id, meta, status } = record;
    if status.phase == SandboxPhase::Creating {
        if let Err(error) = sandbox::teardown::by_meta(&ctx, &meta).await {
            tracing::warn!(sandbox = meta.id, error = %chain(&error), "half-made pod sandbox not undone; will be retried");
            ledger::owe(&ctx, Owed::Sandbox(Box::new(meta)), &error);
        }
        return;
    }
    let fingerprint = sandbox::request::fingerprint(&meta.config, &meta.handler);
    let sandbox = Sandbox::new(meta, fingerprint, status);
    ctx.store.adopt_sandbox(sandbox.clone());
    if !sandbox.status().claimed {
        claim::expire(&ctx, &sandbox);
    }
    let phase = sandbox.status().phase;
    let lost = phase == SandboxPhase::Ready
        && (boot_id != ctx.node.boot_id()
            || !is_intact(&ctx, &sandbox).await
            || !sandbox::pause::is_intact(&ctx, &sandbox));
    if phase == SandboxPhase::Stopping || lost {
        if lost {
            tracing::warn!(
                sandbox = sandbox.id(),
                "its namespaces or its pause are gone: the pod sandbox is not ready any more"
            );
        }
        if let Err(error) = sandbox::stop::stop(&ctx, sandbox.id()).await {
            tracing::warn!(sandbox = sandbox.id(), error = %chain(&error), "cannot finish its stop");
        }
    } else {
        sandbox::pause::watch(&ctx, &sandbox);
    }
}

async fn is_intact(ctx: &Context, sandbox: &Sandbox) -> bool {
    if !sandbox::run::expects_namespaces(&sandbox.meta) {
        return true;
    }
    match ctx.netns.open(sandbox.id()).await {
        Ok(found) => sandbox::run::are_complete(&sandbox.meta, &found),
        Err(hull_netns::Error::NotFound { .. } | hull_netns::Error::NotANamespace { .. }) => false,
        // Not being able to look is no reason to end a pod.
        Err(error) => {
            tracing::warn!(sandbox = sandbox.id(), error = %chain(&error), "cannot look at its namespaces");
            true
        }
    }
}

async fn attachment_record(ctx: Context, record: AttachmentRecord) {
    let id = record.attachment.sandbox_id.clone();
    if record.releasing {
        // In the background: a plugin that still hangs does not hold up the start.
        let error = Error::io("release", std::io::Error::other("an earlier daemon could not"));
        ledger::owe(&ctx, Owed::Network(Box::new(record)), &error);
    } else if ctx.store.sandbox_exact(&id).is_some() {
        // Its pod has it.
    } else if ctx.store.containers_of(&id).iter().any(|c| c.status().phase != ContainerPhase::Exited) {
        // The pod's record is in quarantine, its processes live: they keep their address.
        tracing::error!(
            sandbox = id,
            "containers run in a pod without a record: remove them, then start again"
        );
    } else {
        if let Err(error) = sandbox::release::detach(&ctx, &id).await {
            tracing::warn!(sandbox = id, error = %chain(&error), "network of a pod without a record not released");
        }
    }
}
