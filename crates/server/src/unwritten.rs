// SPDX-License-Identifier: Apache-2.0
//! Records that lag behind: what was observed or done, but could not be written down, since the disk was full.
//!
//! ```text
//! write fails --lags--> waits (1 s) --write--> written, or its object is gone: forgotten
//!                         ^            |
//!                         '-- pause x2 -'  (at most 30 s)
//! ```
//! No event tells that a disk has room again. Without anything that lags there is no task and no timer. A daemon that dies
//! meanwhile finds the older record; what it says of processes and namespaces is asked of the kernel at every start.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::context::Context;
use crate::error::{Result, chain};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A record by its kind and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lagging {
    Sandbox(String),
    Container(String),
}

/// Those that lag.
#[derive(Debug, Default)]
pub(crate) struct Unwritten(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    records: BTreeSet<Lagging>,
    has_task: bool,
}

// === impl Unwritten ===

impl Unwritten {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lags now; with nothing left the task is over.
    fn rest(&self) -> Vec<Lagging> {
        let mut waiting = self.lock();
        waiting.has_task = !waiting.records.is_empty();
        waiting.records.iter().cloned().collect()
    }
}

/// Has a record written as soon as that can be done.
pub(crate) fn lags(ctx: &Context, record: Lagging) {
    {
        let mut waiting = ctx.unwritten.lock();
        waiting.records.insert(record);
        if std::mem::replace(&mut waiting.has_task, true) {
            return;
        }
    }
    let ctx_ = ctx.clone();
    ctx.tasks.spawn(async move {
        let mut pause = FIRST_PAUSE;
        while ctx_.pause(pause).await {
            for record in ctx_.unwritten.rest() {
                match write(&ctx_, &record).await {
                    Ok(()) => drop(ctx_.unwritten.lock().records.remove(&record)),
                    Err(error) => tracing::debug!(?record, error = %chain(&error), "still not recorded"),
                }
            }
            if ctx_.unwritten.rest().is_empty() {
                tracing::info!("every record is up to date again");
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    });
}

/// Writes what is true now; nothing for an object that is gone.
async fn write(ctx: &Context, record: &Lagging) -> Result<()> {
    match record {
        Lagging::Sandbox(id) => {
            let Some(sandbox) = ctx.store.sandbox_exact(id) else { return Ok(()) };
            let _order = sandbox.writing.lock().await;
            if ctx.store.sandbox_exact(id).is_none() {
                return Ok(());
            }
            ctx.records.put_sandbox(ctx.sandbox_record(&sandbox, &sandbox.status())).await
        }
        Lagging::Container(id) => {
            let Some(container) = ctx.store.container_exact(id) else { return Ok(()) };
            let _order = container.writing.lock().await;
            if ctx.store.container_exact(id).is_none() {
                return Ok(());
            }
            ctx.records.put_container(ctx.container_record(&container, &container.status())).await
        }
    }
}
