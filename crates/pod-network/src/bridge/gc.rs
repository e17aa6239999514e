// SPDX-License-Identifier: Apache-2.0
//! Garbage: leases that nobody knows. And, where a lease was lost, what the attachment still knows.

use std::sync::Arc;

use super::{Shared, blocking, detach, held, unplug};
use crate::{Attachment, Result};

/// Releases what is neither valid nor attached by this process. Every lease is tried; the first failure
/// is returned, further ones are logged.
pub(super) async fn gc(shared: &Arc<Shared>, valid: &[Attachment]) -> Result<()> {
    for (id, ips) in unplug::take_stuck(shared) {
        let turn = shared.turn(&id).await;
        if shared.book().get(&id).is_none() {
            unplug::later(shared, id, ips, turn);
        }
    }
    let mut first = reopen(shared, valid).await;
    let is_valid = |id: &str| valid.iter().any(|attachment| attachment.sandbox_id == id);
    let stale: Vec<String> = {
        let book = shared.book();
        let ids = book.iter().map(|lease| &lease.sandbox_id);
        ids.filter(|id| !is_valid(id) && !book.is_live(id)).cloned().collect()
    };
    for id in stale {
        let turn = shared.turn(&id).await;
        // Looked at again: it may have been attached anew while its turn was waited for.
        if shared.book().is_live(&id) {
            continue;
        }
        tracing::info!(sandbox = id, network = shared.config.name, "releasing a lease that nobody knows");
        match detach::release(shared, &id, turn).await {
            Err(error) if first.is_err() => tracing::warn!(%error, "collecting garbage failed further"),
            Err(error) => first = Err(error),
            Ok(()) => {}
        }
    }
    match unplug_strays(shared, is_valid).await {
        Err(error) if first.is_err() => tracing::warn!(%error, "collecting garbage failed further"),
        Err(error) => first = Err(error),
        Ok(()) => {}
    }
    first
}

/// Links without a lease: of a pod whose lease is gone, so that nothing else leads to them.
async fn unplug_strays(shared: &Arc<Shared>, is_valid: impl Fn(&str) -> bool) -> Result<()> {
    for (id, _) in held::stray(shared).await? {
        if is_valid(&id) {
            continue;
        }
        let turn = shared.turn(&id).await;
        // Looked at again, as above.
        let Some((_, ips)) = held::stray(shared).await?.into_iter().find(|(stray, _)| *stray == id) else {
            continue;
        };
        tracing::info!(sandbox = id, network = shared.config.name, "removing a link without a lease");
        unplug::later(shared, id, ips, turn);
    }
    Ok(())
}

/// Opens the host ports of pods whose lease had to be read back from their link.
async fn reopen(shared: &Arc<Shared>, valid: &[Attachment]) -> Result<()> {
    let mut opened = false;
    for attachment in valid {
        // A pod that is being detached meanwhile must not get its lease back.
        let _turn = shared.turn(&attachment.sandbox_id).await;
        let lease = shared.book().open_ports(attachment);
        let Some(lease) = lease else { continue };
        opened |= !lease.port_mappings.is_empty();
        let (leases, next) = (shared.leases.clone(), shared.book().next());
        blocking("write a lease that was lost", move || leases.put(&lease, next)).await?;
    }
    if opened { shared.sync_rules().await } else { Ok(()) }
}
