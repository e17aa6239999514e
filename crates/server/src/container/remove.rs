// SPDX-License-Identifier: Apache-2.0
//! RemoveContainer: stop it without patience, take everything away.
//!
//! Idempotent, also for an unknown id, as the CRI demands of it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::container::{stop, teardown};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::operation::{Admission, OpKind, Operation};
use crate::store::Container;

/// Removes a container, also a running one.
pub(crate) async fn remove(ctx: &Context, id: &str) -> Result<()> {
    match ctx.store.container(id)? {
        Some(container) => remove_object(ctx, &container).await,
        None => Ok(()),
    }
}

/// Removes a container that may also still be in creation.
pub(crate) async fn remove_object(ctx: &Context, container: &Arc<Container>) -> Result<()> {
    loop {
        match container.slot.admit(OpKind::RemoveContainer, container.id(), "") {
            Admission::Run(operation) => {
                if stop::is_gone(ctx, container) {
                    container.slot.finish(&operation, Ok(()));
                    return Ok(());
                }
                operation.shorten(Instant::now());
                let waiter = operation.waiter();
                spawn(ctx, container.clone(), operation);
                return waiter.outcome().await.map_err(Error::Shared);
            }
            Admission::Join(operation) => return operation.ended().await.map_err(Error::Shared),
            Admission::Cancel(operation) => {
                operation.cancel();
                let _ = operation.ended().await;
            }
            Admission::Shorten(operation) => {
                operation.shorten(Instant::now());
                let _ = operation.ended().await;
            }
            Admission::Wait(operation) | Admission::Refuse(operation) => {
                let _ = operation.ended().await;
            }
        }
    }
}

fn spawn(ctx: &Context, container: Arc<Container>, operation: Arc<Operation>) {
    let (ctx_, container_, operation_) = (ctx.clone(), container.clone(), operation.clone());
    let body = async move {
        stop::run(&ctx_, &container_, &operation_).await?;
        operation_.finally("container.remove.everything", teardown::everything(&ctx_, &container_)).await?;
        ctx_.events.container_deleted(&ctx_, &container_);
        Ok(())
    };
    let ended = operation.clone();
    ctx.spawn_operation(operation, body, move |outcome| container.slot.finish(&ended, outcome));
}
