// SPDX-License-Identifier: Apache-2.0
//! Detach: host ports, lease, link. Idempotent: what is gone already is fine.
//!
//! ```text
//! [table replaced without the pod -> its connections forgotten] -> lease deleted -> link handed over
//! ```
//! The link is removed after the answer, see [`unplug`](super::unplug).

use std::sync::Arc;

use hull_failpoint::failpoint;

use super::conntrack::{self, Which};
use super::lease::Lease;
use super::{Shared, Turn, blocking, former, plug, unplug};
use crate::{Attachment, Error, Result};

pub(super) async fn detach(shared: &Arc<Shared>, attachment: &Attachment) -> Result<()> {
    let (id, bridge) = super::target(attachment)?;
    if bridge != shared.config.name {
        return former::release(shared, &bridge, id).await;
    }
    let turn = shared.turn(id).await;
    release(shared, id, turn).await
}

/// Takes back everything that a pod may have.
pub(super) async fn release(shared: &Arc<Shared>, sandbox_id: &str, turn: Turn) -> Result<()> {
    let lease = shared.book().get(sandbox_id).cloned();
    if let Some(lease) = lease.clone().filter(|lease| !lease.port_mappings.is_empty()) {
        shared.book().close_ports(sandbox_id);
        shared.sync_rules().await?;
        forget_led(lease).await;
    }
    let (leases, id, held) = (shared.leases.clone(), sandbox_id.to_owned(), lease.is_some());
    let working = Turn::clone(&turn);
    blocking("release the pod", move || {
        let _turn = working;
        let failed = |source| Error::Io { context: format!("release pod {id}"), source };
        failpoint!("bridge.detach.lease").map_err(failed)?;
        leases.delete(&id)?;
        // Without a lease there is most likely no link: that is soon found out.
        if held { Ok(()) } else { plug::unplug(&id).map_err(failed) }
    })
    .await?;
    if held {
        let ips = shared.book().release(sandbox_id);
        unplug::later(shared, sandbox_id.to_owned(), ips, turn);
    }
    Ok(())
}

/// The next pod with this address and port is not to get what was meant for this one.
async fn forget_led(lease: Lease) {
    let id = lease.sandbox_id.clone();
    let forgotten = blocking("forget connections", move || {
        let failed = |source| Error::Io { context: "forget connections".to_owned(), source };
        failpoint!("bridge.detach.conntrack").map_err(failed)?;
        for mapping in &lease.port_mappings {
            for ip in &lease.ips {
                conntrack::forget(mapping, Which::LedTo(*ip)).map_err(failed)?;
            }
        }
        Ok(())
    });
    if let Err(error) = forgotten.await {
        tracing::warn!(
            sandbox = id,
            error = &error as &dyn std::error::Error,
            "connections to closed host ports not forgotten: they end by their timeouts"
        );
    }
}
