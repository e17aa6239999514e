// SPDX-License-Identifier: Apache-2.0
//! What the bridge has for pods: leases, and links that no lease explains.

use std::net::IpAddr;
use std::sync::Arc;

use super::lease::Lease;
use super::{Shared, blocking, names, node};
use crate::{Error, Held, Result};

/// Every lease and every stray link.
pub(super) async fn held(shared: &Arc<Shared>) -> Result<Vec<Held>> {
    // Before the leases: a link that is plugged in meanwhile has its lease already.
    let links = stray(shared).await?;
    let mut held: Vec<Held> = shared.book().iter().map(lease).collect();
    held.extend(
        links.into_iter().map(|(sandbox_id, _)| Held {
            what: format!("link {}", names::host_link(&sandbox_id)),
            sandbox_id,
        }),
    );
    Ok(held)
}

/// Pods that are plugged in although they have no lease, and are not being unplugged either.
pub(super) async fn stray(shared: &Arc<Shared>) -> Result<Vec<(String, Vec<IpAddr>)>> {
    let config = shared.config.clone();
    let found = blocking("look at the bridge's links", move || {
        node::plugged(&config).map_err(|source| Error::Io {
            context: format!("network {}: look at the bridge's links", config.name),
            source,
        })
    })
    .await?;
    let book = shared.book();
    let is_stray = |(id, ips): &(String, Vec<IpAddr>)| {
        book.get(id).is_none() && !ips.iter().any(|ip| book.is_leaving(ip))
    };
    Ok(found.into_iter().filter(is_stray).collect())
}

fn lease(lease: &Lease) -> Held {
    let ips: Vec<String> = lease.ips.iter().map(ToString::to_string).collect();
    Held { sandbox_id: lease.sandbox_id.clone(), what: format!("lease of {}", ips.join(", ")) }
}
