// SPDX-License-Identifier: Apache-2.0
//! Attach: lease, link, host ports.
//!
//! ```text
//! reserve (memory) -> lease written -> link -> [table replaced -> old connections forgotten] -> attached
//!     |                  |_______________________ any failure, or death: detach ______|
//!     |_ the pod had a lease: everything that it has is released
//! ```

use std::path::Path;
use std::sync::Arc;

use hull_failpoint::failpoint;
use serde_json::json;

use super::conntrack::{self, Which};
use super::lease::Lease;
use super::names;
use super::node::{self, Node};
use super::{Shared, Turn, blocking, detach, keeper, plug};
use crate::{Attached, Attachment, Error, Protocol, Result};

pub(super) async fn attach(shared: &Arc<Shared>, attachment: &Attachment) -> Result<Attached> {
    let id = super::own(shared, attachment)?;
    let turn = shared.turn(id).await;
    let node = keeper::node(shared).await?;
    let reserved = shared.book().reserve(attachment, &node.subnets);
    let failed = match reserved {
        Ok(lease) => match make(shared, attachment, node, lease, &turn).await {
            Ok(attached) => return Ok(attached),
            Err(failed) => failed,
        },
        // Nothing was taken: a pod that has a lease was attached before, and loses what it has, as
        // with every failed attach.
        Err(error @ Error::Invalid(_)) => error,
        Err(source) => return Err(Error::Attach { source: Box::new(source), released: None }),
    };
    let released = detach::release(shared, id, turn).await.err().map(Box::new);
    Err(Error::Attach { source: Box::new(failed), released })
}

/// Makes the link of an attached pod again where it is gone from the bridge or from the pod.
pub(super) async fn restore(shared: &Arc<Shared>, attachment: &Attachment) -> Result<bool> {
    let id = super::own(shared, attachment)?.to_owned();
    let turn = shared.turn(&id).await;
    let lease = shared.book().get(&id).cloned();
    let Some(lease) = lease else { return Ok(false) };
    let node = keeper::node(shared).await?;
    let (netns, index) = (attachment.netns.clone(), node.index);
    let (id_, turn_) = (id.clone(), Turn::clone(&turn));
    let is_lost = blocking("look at the pod's link", move || {
        let _turn = turn_;
        let failed = |source| Error::Io { context: format!("look at the link of pod {id_}"), source };
        let is_plugged = node::is_plugged(&names::host_link(&id_), index).map_err(failed)?;
        let is_up = plug::look(&netns).map_err(failed)?.is_some_and(|(up, _)| up);
        if is_plugged && is_up {
            return Ok(false);
        }
        // Half of a link, or one on another bridge, is in the way.
        plug::unplug(&id_).map_err(failed)?;
        Ok(true)
    });
    if is_lost.await? {
        replug(shared, node, &lease, &attachment.netns, &turn).await?;
        return Ok(true);
    }
    Ok(false)
}

async fn make(
    shared: &Arc<Shared>,
    attachment: &Attachment,
    node: Arc<Node>,
    lease: Lease,
    turn: &Turn,
) -> Result<Attached> {
    let node = replug(shared, node, &lease, &attachment.netns, turn).await?;
    if !lease.port_mappings.is_empty() || !shared.rules.is_intact(&shared.config)? {
        shared.sync_rules().await?;
        forget_begun(lease.clone()).await;
    }
    Ok(Attached { result: result(shared, &node, &lease), ips: lease.ips })
}

/// Lease and link; answers the node that they are on.
async fn replug(
    shared: &Arc<Shared>,
    node: Arc<Node>,
    lease: &Lease,
    netns: &Path,
    turn: &Turn,
) -> Result<Arc<Node>> {
    match plugged(shared, &node, lease, netns, turn).await {
        Ok(()) => Ok(node),
        // The bridge may have been removed behind our back; then it is made anew, and tried once more.
        Err(error) => match keeper::renew(shared).await {
            Ok(again) if again.index != node.index => {
                plugged(shared, &again, lease, netns, turn).await?;
                Ok(again)
            }
            _ => Err(error),
        },
    }
}

/// Lease and link, on one blocking thread, which keeps the pod's turn to its end even when nobody waits.
async fn plugged(
    shared: &Arc<Shared>,
    node: &Arc<Node>,
    lease: &Lease,
    netns: &Path,
    turn: &Turn,
) -> Result<()> {
    let (node, lease, netns) = (Arc::clone(node), lease.clone(), netns.to_owned());
    let (leases, next, turn) = (shared.leases.clone(), shared.book().next(), Turn::clone(turn));
    let context = format!("network {}: plug pod {} in", shared.config.name, lease.sandbox_id);
    blocking("plug the pod in", move || {
        let _turn = turn;
        failpoint!("bridge.attach.lease").map_err(io_error("write lease"))?;
        leases.put(&lease, next)?;
        plug::plug(&node, &lease, &netns).map_err(|source| Error::Io { context, source })
    })
    .await
}

/// A client that sent datagrams before the port was mapped goes on to be led elsewhere otherwise.
async fn forget_begun(lease: Lease) {
    let mappings: Vec<_> =
        lease.port_mappings.into_iter().filter(|it| it.protocol == Protocol::Udp).collect();
    if mappings.is_empty() {
        return;
    }
    let families: Vec<bool> = lease.ips.iter().map(std::net::IpAddr::is_ipv4).collect();
    let forgotten = blocking("forget connections", move || {
        failpoint!("bridge.attach.conntrack").map_err(io_error("forget connections"))?;
        for mapping in &mappings {
            for ipv4 in &families {
                conntrack::forget(mapping, Which::Begun { ipv4: *ipv4 })
                    .map_err(io_error("forget connections"))?;
            }
        }
        Ok(())
    });
    if let Err(error) = forgotten.await {
        tracing::warn!(
            sandbox = lease.sandbox_id,
            error = &error as &dyn std::error::Error,
            "connections to a new host port not forgotten: senders reach the pod after their timeout"
        );
    }
}

fn result(shared: &Shared, node: &Node, lease: &Lease) -> serde_json::Value {
    let ips = lease.ips.iter().map(|ip| {
        let subnet = node.subnets.iter().find(|subnet| subnet.contains(*ip));
        json!({
            "address": subnet.map_or_else(|| ip.to_string(), |subnet| format!("{ip}/{}", subnet.prefix())),
            "gateway": subnet.map(|subnet| subnet.gateway().to_string()),
        })
    });
    json!({
        "bridge": shared.config.name,
        "hostInterface": names::host_link(&lease.sandbox_id),
        "interface": names::POD_LINK,
        "mtu": node.mtu,
        "ips": ips.collect::<Vec<_>>(),
    })
}

fn io_error(context: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { context: context.to_owned(), source }
}
