// SPDX-License-Identifier: Apache-2.0
//! Asks the default network's plugins how they are, out of band; [`PodNetwork::status`] answers
//! from what was heard last.
//!
//! ```text
//! configuration changed ──> VERSION of each plugin, then STATUS (network version >= 1.1.0)
//! an operation failed   ──> STATUS
//! ready, >= 1.1.0       ──> STATUS every `status_interval`: nothing else would tell
//! not ready             ──> STATUS every few seconds
//! ```
//!
//! [`PodNetwork::status`]: crate::PodNetwork::status

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::conf::NetworkList;
use super::invoke::{Call, Deadline, Invoker, Verb};
use super::known::Health;
use super::target::{bytes, document};
use super::{Shared, version};
use crate::{Error, Result};

/// How often plugins that are not ready are asked again.
const RETRY: Duration = Duration::from_secs(2);

/// The least time between two rounds, however much fails.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs until cancelled.
pub(super) async fn keep_asking(shared: Arc<Shared>, cancel: CancellationToken) {
    let mut version_of = None;
    loop {
        let (default, generation) = shared.known.current();
        if let Some(list) = default {
            let ask_version = version_of != Some(generation);
            let health = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = shared.known.changed.notified() => { version_of = None; continue }
                health = ask(&shared, &list, ask_version) => health,
            };
            if health == Health::Good {
                version_of = Some(generation);
            }
            shared.known.set_health(generation, health);
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = shared.known.changed.notified() => version_of = None,
            () = again(&shared) => {}
        }
    }
}

/// Waits until the plugins should be asked again although the configuration is the same.
async fn again(shared: &Shared) {
    tokio::time::sleep(PAUSE).await;
    let (default, _) = shared.known.current();
    let interval = match default {
        Some(list) if list.version.has_status() => match shared.known.health() {
            Health::Good => shared.config.status_interval,
            _ => RETRY.min(shared.config.status_interval),
        },
        // Programs and files say everything; both are watched.
        _ => Duration::MAX,
    };
    tokio::select! {
        () = shared.known.doubt.notified() => {}
        () = tokio::time::sleep(interval) => {}
    }
}

async fn ask(shared: &Shared, list: &NetworkList, ask_version: bool) -> Health {
    let limit = shared.config.status_deadline;
    let asked = async {
        if ask_version {
            version::probe(&shared.invoker, list, limit).await?;
        }
        status(&shared.invoker, list, limit).await
    };
    match asked.await {
        Ok(()) => Health::Good,
        Err(error) => Health::Bad(error.to_string()),
    }
}

/// Runs STATUS in order, where the network's version knows it.
async fn status(invoker: &Invoker, list: &NetworkList, limit: Duration) -> Result<()> {
    if !list.version.has_status() {
        return Ok(());
    }
    let deadline = Deadline::after(limit);
    for plugin in &list.plugins {
        let call = Call {
            network: &list.name,
            plugin: &plugin.kind,
            verb: Verb::Status,
            container: None,
            stdin: bytes(&document(list, plugin)?)?,
            deadline,
        };
        match invoker.run(call).await {
            Ok(_) => {}
            // CNI spec 1.1.0, code 51: it cannot take pods either, but is worth other words.
            Err(Error::Plugin { network, plugin, command, code: Some(51), message }) => {
                let message = format!("{message} (pods that run may have limited connectivity)");
                return Err(Error::Plugin { network, plugin, command, code: Some(51), message });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
