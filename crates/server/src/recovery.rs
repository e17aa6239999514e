// SPDX-License-Identifier: Apache-2.0
//! Start-up: what an earlier daemon left is adopted, finished or undone, while the API already answers for it (ADR 0022).
//!
//! What may have changed while no daemon ran: containers exited, the node was rebooted (another boot
//! id: no process of ours lives), namespaces were removed, records were damaged (quarantined). What a
//! record says about processes is checked against the kernel.
//!
//! ```text
//! read records -> all are in the store -> asked of the kernel: what lives -> work begins -> a moment -> the API answers
//!                 (local files and system calls alone: it takes milliseconds)   |
//!                                                                              '-> goes on, each for itself
//! record creating            -> undone
//! record stopping            -> its stop is taken up again
//! record ready, boot differs -> not ready, network released
//! record ready, a namespace gone -> not ready, until it is stopped
//! container created/running  -> watched again; ended meanwhile: exited, with the code from the exit file
//! exec or session that ran   -> killed: nobody has its streams any more
//! container created, but the runtime says running -> running (its start was not recorded)
//! attachment without a pod   -> released
//! network has more than that -> collected
//! directory without a record -> deleted
//! directory that strangers may pass, of a former version -> closed
//! ```
//! The work at a pod or container is an operation in its slot: it is listed, who wants to make, stop or remove the
//! same thing waits for it or ends it, and nobody else does. Each of its steps has a deadline; what cannot be undone or
//! released in time is in the ledger.

mod attachments;
mod containers;
mod execs;
mod gates;
mod orphans;
mod pods;
mod progress;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::error::Result;
use crate::model::AttachmentRecord;
use crate::records::AllRecords;
use crate::sandbox::ground;
use crate::store::{Container, Sandbox};

pub(crate) use progress::{Part, Recovery};

/// How long the start waits for all to be recovered, as it mostly is, before the API answers.
const MOMENT: Duration = Duration::from_millis(300);

/// Takes over from the daemon before. When it returns, everything that has a record is in the store, in a state that the
/// kernel was asked about; [`Recovery::done`] tells when all is done.
///
/// # Errors
/// The records cannot be listed.
pub(crate) async fn recover(ctx: &Context) -> Result<()> {
    let began = Instant::now();
    let records = ctx.records.clone();
    let all = crate::records::blocking(move || records.load()).await?;
    for bad in &all.quarantined {
        tracing::error!(id = bad.id, reason = bad.reason, path = %bad.path.display(), "record cannot be read: put into quarantine");
    }
    for id in &all.taken_back {
        tracing::info!(id, "a record that could not be read before can be: taken back out of quarantine");
    }
    let AllRecords { sandboxes, containers, attachments, .. } = all;
    let boot = ctx.node.boot_id();
    let (mut pods, mut held) = (Vec::new(), Vec::new());
    for record in sandboxes {
        let rebooted = record.boot_id != boot;
        pods.push((Sandbox::recorded(record), rebooted));
    }
    for record in containers {
        let rebooted = record.boot_id != boot;
        held.push((Container::recorded(record), rebooted));
    }
    pods.iter().for_each(|(sandbox, _)| ctx.store.adopt_sandbox(sandbox.clone()));
    held.iter().for_each(|(container, _)| ctx.store.adopt_container(container.clone()));

    gates::close(ctx).await;
    // Before anything can be asked for, from what is on this machine: no foreign program may hold this up.
    pods::look(ctx, &pods).await;
    containers::end_of_boot(ctx, &held).await;
    let left = execs::find(ctx).await;
    let orphans = orphans::find(ctx).await;

    let whole = ctx.recovery.objects.begin();
    let former = former(&attachments, boot);
    containers::take_up(ctx, held);
    pods::take_up(ctx, pods, &former);
    attachments::take_up(ctx, attachments);
    execs::take_up(ctx, left);
    orphans::take_up(ctx, orphans);
    ground::watch(ctx);
    drop(whole);
    tell(ctx, began).await;
    Ok(())
}

/// Work that is no operation: listed as a job; `part` is over with it.
fn aside(
    ctx: &Context,
    part: impl Send + 'static,
    key: &str,
    waits_for: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let job = ctx.jobs.begin("recovery", key, waits_for);
    ctx.tasks.spawn(async move {
        // The job first: when all is recovered none is listed.
        let _held = (job, part);
        work.await;
    });
}

/// The pods whose network is of a former boot.
fn former(attachments: &[AttachmentRecord], boot: &str) -> BTreeSet<String> {
    let former = attachments.iter().filter(|record| record.boot_id != boot && !record.releasing);
    former.map(|record| record.attachment.sandbox_id.clone()).collect()
}

/// Waits a moment, and tells when all is recovered.
async fn tell(ctx: &Context, began: Instant) {
    let done = move || tracing::info!(ms = began.elapsed().as_millis(), "all is recovered");
    if tokio::time::timeout(MOMENT, ctx.recovery.objects.none()).await.is_ok() {
        return done();
    }
    let left = ctx.recovery.objects.left();
    tracing::info!(left, "still recovering; what is known is served meanwhile");
    let ctx_ = ctx.clone();
    ctx.tasks.spawn(async move {
        tokio::select! {
            () = ctx_.shutdown.cancelled() => {}
            () = ctx_.recovery.objects.none() => done(),
        }
    });
}
