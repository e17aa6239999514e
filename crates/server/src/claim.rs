// SPDX-License-Identifier: Apache-2.0
//! Claims: a pod sandbox or container is listed only once its id has reached a caller.
//!
//! ```text
//!   made, somebody waits ---> claimed ------------------------> told: for good
//!        |                       ^  \-- its callers all left --v
//!        \-- nobody waits --> unclaimed --(same request again)--> claimed
//!                                \--(timeouts.unclaimed)--> undone
//! ```
//! A visible container in state CREATED whose creator gave up would make the kubelet create the next
//! attempt; an unclaimed one is given to its retry instead. Claims and their withdrawal meet under the
//! object's lock for status changes, so an id that was told is never hidden again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::operation::Waiter;

/// Whether it shall be claimed, given whether somebody was told.
pub(crate) type Decide = fn(&AtomicBool) -> bool;

/// What is made by an operation that a caller waits for.
#[async_trait]
pub(crate) trait Claimable: Send + Sync + 'static {
    fn id(&self) -> &str;

    /// Somebody has the id from a finished claim.
    fn told(&self) -> &AtomicBool;

    fn is_claimed(&self) -> bool;

    /// Sets, durably, whether it is claimed; `decide` is called under the lock for status changes.
    async fn set_claimed(&self, ctx: &Context, decide: Decide) -> Result<()>;

    /// Takes it away.
    async fn undo(self: Arc<Self>, ctx: &Context) -> Result<()>;
}

/// A caller that waits; leaving before it was told may withdraw the claim.
struct Untold<T: Claimable> {
    ctx: Context,
    object: Arc<T>,
    waiter: Option<Waiter>,
}

/// Waits for the outcome and tells the caller the id.
pub(crate) async fn tell<T: Claimable>(ctx: &Context, object: Arc<T>, waiter: Waiter) -> Result<String> {
    let guard = Untold { ctx: ctx.clone(), object, waiter: Some(waiter) };
    if let Some(waiter) = &guard.waiter {
        waiter.outcome().await.map_err(Error::Shared)?;
        claim(ctx, &guard.object).await?;
        waiter.deliver();
    }
    Ok(guard.object.id().to_owned())
}

/// Makes it somebody's, whatever an [`unclaim`] that is under way is about to do. In a task of its own:
/// a caller that leaves does not tear the write apart from its publication.
pub(crate) async fn claim<T: Claimable>(ctx: &Context, object: &Arc<T>) -> Result<()> {
    let (ctx_, object_) = (ctx.clone(), object.clone());
    let claimed = ctx.tasks.spawn(async move {
        let decide = |told: &AtomicBool| {
            told.store(true, Ordering::SeqCst);
            true
        };
        object_.set_claimed(&ctx_, decide).await
    });
    claimed.await.unwrap_or_else(|_| Err(Error::Lost { operation: "claim", id: object.id().to_owned() }))
}

/// Hides what reached nobody, until its request comes again or its time is over.
pub(crate) fn unclaim<T: Claimable>(ctx: &Context, object: &Arc<T>) {
    let (ctx_, object) = (ctx.clone(), object.clone());
    ctx.tasks.spawn(async move {
        if let Err(error) = object.set_claimed(&ctx_, |told| told.load(Ordering::SeqCst)).await {
            tracing::warn!(id = object.id(), error = %chain(&error), "cannot hide what nobody has claimed");
        }
        expire(&ctx_, &object);
    });
}

/// The longest pause between two tries to undo what nobody asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Undoes it when its time is over and it is still unclaimed; again and again, until it is undone or asked for. Keeps nothing in
/// memory that was removed meanwhile.
pub(crate) fn expire<T: Claimable>(ctx: &Context, object: &Arc<T>) {
    let (ctx_, object) = (ctx.clone(), Arc::downgrade(object));
    ctx.tasks.spawn(async move {
        let (mut wait, mut pause) = (ctx_.config.timeouts.unclaimed, Duration::from_secs(5));
        while ctx_.pause(wait).await {
            let Some(object) = object.upgrade() else { return };
            if object.is_claimed() {
                return;
            }
            tracing::info!(id = object.id(), "nobody asked for it again: undoing it");
            let Err(error) = object.clone().undo(&ctx_).await else { return };
            tracing::warn!(id = object.id(), error = %chain(&error), retry = ?pause, "cannot undo it yet");
            (wait, pause) = (pause, (pause * 2).min(LONGEST_PAUSE));
        }
    });
}

impl<T: Claimable> Drop for Untold<T> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let operation = waiter.operation().clone();
        drop(waiter);
        if operation.ended_well_untold() {
            self.object.told().store(false, Ordering::SeqCst);
            unclaim(&self.ctx, &self.object);
        }
    }
}
