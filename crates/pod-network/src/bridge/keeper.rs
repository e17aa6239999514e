// SPDX-License-Identifier: Apache-2.0
//! Whether the bridge is ready, and making it so.
//!
//! ```text
//!  unready (why) ──renew──> ready (bridge, subnets) ──attach found the bridge gone: renew──> ready
//!       ^  │ asked for the status: tries again in the background, at most once a second
//!       └──┘
//! ```

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::lease::Lease;
use super::node::{self, Node};
use super::{Shared, blocking};
use crate::{Error, NetworkStatus, Result};

/// The CRI's reason of an unready network.
pub(super) const REASON: &str = "NetworkPluginNotReady";
/// The least time between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of the bridge.
#[derive(Debug)]
pub(super) enum State {
    Unready(String),
    Ready(Arc<Node>),
}

/// The bridge, made now if it is not ready yet.
pub(super) async fn node(shared: &Arc<Shared>) -> Result<Arc<Node>> {
    let ready = match &*state(shared) {
        State::Ready(node) => Some(Arc::clone(node)),
        State::Unready(_) => None,
    };
    match ready {
        Some(node) => Ok(node),
        None => renew(shared).await,
    }
}

/// Makes or mends bridge and table.
pub(super) async fn renew(shared: &Arc<Shared>) -> Result<Arc<Node>> {
    // One at a time: both parts are bounded, and no operation on a ready bridge comes here.
    let _alone = shared.preparing.lock().await;
    match prepare(shared).await {
        Ok(node) => {
            let node = Arc::new(node);
            let before = std::mem::replace(&mut *state(shared), State::Ready(Arc::clone(&node)));
            match before {
                State::Unready(_) => {
                    tracing::info!(bridge = shared.config.name, mtu = node.mtu, "the bridge is ready")
                }
                State::Ready(before) if before.index != node.index => {
                    tracing::warn!(
                        bridge = shared.config.name,
                        "the bridge was removed by another program: made anew"
                    );
                }
                State::Ready(_) => {}
            }
            Ok(node)
        }
        Err(error) => {
            let message = told(&error);
            let mut state = state(shared);
            if !matches!(&*state, State::Unready(before) if *before == message) {
                tracing::warn!(bridge = shared.config.name, "the bridge is not ready: {message}");
            }
            *state = State::Unready(message.clone());
            Err(Error::NotReady { reason: REASON.to_owned(), message })
        }
    }
}

/// What the daemon says of its network.
pub(super) fn status(shared: &Shared) -> NetworkStatus {
    match &*state(shared) {
        State::Ready(_) => NetworkStatus::Ready,
        State::Unready(message) => {
            shared.doubt.notify_one();
            NetworkStatus::NotReady { reason: REASON.to_owned(), message: message.clone() }
        }
    }
}

/// Tries again when somebody asks while the bridge is not ready.
pub(super) async fn keep_trying(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = shared.doubt.notified() => {}
        }
        if matches!(&*state(&shared), State::Unready(_)) {
            // Its outcome is what the status says.
            let _ = renew(&shared).await;
        }
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn prepare(shared: &Arc<Shared>) -> Result<Node> {
    let held: Vec<Lease> = shared.book().iter().cloned().collect();
    let config = shared.config.clone();
    let prepared = blocking("prepare the bridge", move || {
        node::prepare(&config, &held).map_err(|problem| {
            let message = format!("network {}: {problem}", config.name);
            Error::NotReady { reason: REASON.to_owned(), message }
        })
    });
    let (node, found) = prepared.await?;
    for lease in found {
        adopt(shared, lease).await?;
    }
    shared.sync_rules().await?;
    Ok(node)
}

/// A pod that is plugged in keeps its addresses, whatever became of its lease.
async fn adopt(shared: &Arc<Shared>, lease: Lease) -> Result<()> {
    let next = {
        let mut book = shared.book();
        if lease.ips.iter().any(|ip| book.is_leaving(ip)) {
            return Ok(());
        }
        tracing::warn!(sandbox = lease.sandbox_id, ips = ?lease.ips, "a pod is plugged in without a lease: its addresses are kept");
        book.adopt(lease.clone());
        book.next()
    };
    let leases = shared.leases.clone();
    blocking("write a lease that was lost", move || leases.put(&lease, next)).await
}

fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}

fn state(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}
