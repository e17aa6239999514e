// SPDX-License-Identifier: Apache-2.0
//! A network that needs no plugin and no configuration: a bridge on the node, and a veth to each pod.
//!
//! ```text
//!      pod a            pod b                    node
//!   eth0 10.85.0.2   eth0 10.85.0.3    127.0.0.1:8080   192.0.2.7:8080
//!      │ hv<hash>       │ hv<hash>            │ │ table inet hull-hull0: host ports, masquerading
//!      └───────┬────────┘                     │ │
//!        hull0 10.85.0.1 ─────────────────────┴─┴── uplink
//! ```
//! Invariants: names derive from the sandbox's id, so releasing needs no memory. A lease is written before
//! its address is used, and an address is given out again only when no link carries it. One pod, one
//! operation at a time; operations on different pods wait for each other only in the kernel, and where
//! the table of rules is replaced. Several bridges of different names live side by side.

mod attach;
mod check;
mod config;
mod conntrack;
mod detach;
mod former;
mod gc;
mod held;
mod keeper;
mod lease;
mod link;
mod names;
mod netlink;
mod node;
mod plug;
mod ports;
mod rules;
mod ruleset;
mod subnet;
mod sysctl;
mod unplug;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::keyed::Keyed;
use crate::{AttachRequest, Attached, Attachment, Error, Held, NetworkStatus, PodNetwork, Result};
pub use config::{
    BridgeConfig, DEFAULT_NAME, DEFAULT_SUBNETS, LARGEST_MTU, LEAST_MTU, check_subnets, default_subnets,
};
use keeper::State;
use lease::{Book, Leases};
pub use names::check_bridge_name;
use rules::Rules;
pub use subnet::Subnet;
use unplug::Unplug;

/// How long links that are being removed are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The [`PodNetwork`] of a bridge of our own.
#[derive(Debug)]
pub struct BridgeNetwork {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the operations and the tasks have in common.
#[derive(Debug)]
struct Shared {
    config: BridgeConfig,
    leases: Leases,
    book: Mutex<Book>,
    state: Mutex<State>,
    preparing: tokio::sync::Mutex<()>,
    rules: Rules,
    turns: Keyed<String, tokio::sync::Mutex<()>>,
    unplug: Unplug,
    doubt: Notify,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// The right to work on a pod. Shared with the blocking threads that work for it: it ends with the last.
type Turn = Arc<OwnedMutexGuard<()>>;

/// The backend's part of an [`Attachment`].
#[derive(Debug, Serialize, Deserialize)]
struct Data {
    bridge: String,
}

// === impl BridgeNetwork ===

impl BridgeNetwork {
    /// Reads the leases and makes the bridge. A node that cannot have it is no error but
    /// [`NetworkStatus::NotReady`]; it is tried again when somebody asks.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a config that cannot work, [`Error::Io`] when the leases cannot be read.
    pub async fn open(config: BridgeConfig) -> Result<Self> {
        config.validate()?;
        let (dir, quarantine) = (config.state_dir.join(&config.name), config.quarantine.clone());
        let (leases, held, bad, next) = blocking("read leases", move || {
            let leases = Leases::open(&dir, &quarantine)?;
            let (held, bad, next) = leases.load()?;
            Ok((leases, held, bad, next))
        })
        .await?;
        for bad in bad {
            tracing::error!(id = bad.id, reason = bad.reason, path = %bad.path.display(), "lease cannot be read: put into quarantine");
        }
        let shared = Arc::new(Shared {
            leases,
            book: Mutex::new(Book::new(held, next)),
            state: Mutex::new(State::Unready(format!("network {}: it is not made yet", config.name))),
            preparing: tokio::sync::Mutex::default(),
            rules: Rules::default(),
            turns: Keyed::default(),
            unplug: Unplug::default(),
            doubt: Notify::new(),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        });
        // Its outcome is what the status says.
        let _ = keeper::renew(&shared).await;
        let keeper = tokio::spawn(keeper::keep_trying(Arc::clone(&shared)));
        Ok(Self { shared, keeper: Mutex::new(Some(keeper)) })
    }

    /// Ends the tasks and waits for the links that are being removed. Without any pod, bridge and table go
    /// too. Operations that run are not touched. Idempotent.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.cancel.cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::error!(%error, "a task of the network ended badly");
        }
        shared.tasks.close();
        if tokio::time::timeout(PATIENCE, shared.tasks.wait()).await.is_err() {
            tracing::warn!(after = ?PATIENCE, "links of pods that are gone are not removed yet: the next start finds them");
        }
        if shared.book().is_empty() {
            self.remove().await;
        }
    }

    async fn remove(&self) {
        let shared = &self.shared;
        let config = shared.config.clone();
        let in_kernel = |step: &'static str, work: fn(&BridgeConfig) -> std::io::Result<bool>| {
            let config = config.clone();
            blocking(step, move || {
                work(&config).map_err(|source| Error::Io {
                    context: format!("network {}: {step}", config.name),
                    source,
                })
            })
        };
        let removed = async {
            // The table has the bridge's name: where the bridge is another daemon's, so is the table.
            if in_kernel("look at the bridge", node::is_ours).await? || shared.rules.is_intact(&config)? {
                shared.rules.remove(&config).await?;
            }
            in_kernel("remove the bridge", |config| node::remove(config).map(|()| true)).await.map(drop)
        };
        if let Err(error) = removed.await {
            tracing::warn!(%error, "the bridge is not taken away: it does no harm, and the next start uses it");
        }
    }
}

impl Drop for BridgeNetwork {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

#[async_trait]
impl PodNetwork for BridgeNetwork {
    fn status(&self) -> NetworkStatus {
        keeper::status(&self.shared)
    }

    async fn plan(&self, request: &AttachRequest) -> Result<Attachment> {
        let config = &self.shared.config;
        if !names::is_id(&request.sandbox_id) {
            return Err(Error::Invalid(format!("sandbox id {:?} cannot name a lease", request.sandbox_id)));
        }
        let node = keeper::node(&self.shared).await?;
        let has_ipv4 = node.subnets.iter().any(Subnet::is_ipv4);
        ports::validate(&request.port_mappings, has_ipv4, node.has_ipv6())?;
        if let Some(key) = request.annotations.keys().find(|key| {
            key.ends_with("kubernetes.io/ingress-bandwidth")
                || key.ends_with("kubernetes.io/egress-bandwidth")
        }) {
            tracing::warn!(
                pod = request.pod_name,
                namespace = request.pod_namespace,
                "annotation {key}: the bridge network does not limit bandwidth; the pod runs without a limit"
            );
        }
        let data = Data { bridge: config.name.clone() };
        Ok(Attachment {
            sandbox_id: request.sandbox_id.clone(),
            network: config.name.clone(),
            interface: names::POD_LINK.to_owned(),
            netns: request.netns.clone(),
            port_mappings: request.port_mappings.clone(),
            data: serde_json::to_value(data).map_err(|e| Error::Invalid(e.to_string()))?,
        })
    }

    async fn attach(&self, attachment: &Attachment) -> Result<Attached> {
        attach::attach(&self.shared, attachment).await
    }

    async fn detach(&self, attachment: &Attachment) -> Result<()> {
        detach::detach(&self.shared, attachment).await
    }

    async fn check(&self, attachment: &Attachment) -> Result<()> {
        check::check(&self.shared, attachment).await
    }

    async fn restore(&self, attachment: &Attachment) -> Result<bool> {
        attach::restore(&self.shared, attachment).await
    }

    async fn gc(&self, valid: &[Attachment]) -> Result<()> {
        gc::gc(&self.shared, valid).await
    }

    async fn held(&self) -> Result<Vec<Held>> {
        held::held(&self.shared).await
    }
}

// === impl Shared ===

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else works on this pod.
    async fn turn(&self, sandbox_id: &str) -> Turn {
        Arc::new(self.turns.get(&sandbox_id.to_owned()).lock_owned().await)
    }

    /// Brings the table to what the leases say.
    async fn sync_rules(&self) -> Result<()> {
        let config = &self.config;
        self.rules.sync(config, || ruleset::text(&config.name, &config.subnets, self.book().open())).await
    }
}

/// The pod of an attachment and the bridge that it was planned on.
fn target(attachment: &Attachment) -> Result<(&str, String)> {
    match serde_json::from_value::<Data>(attachment.data.clone()) {
        Ok(data) if names::is_id(&attachment.sandbox_id) => Ok((&attachment.sandbox_id, data.bridge)),
        _ => Err(Error::Invalid(format!(
            "{} is attached to network {}, which is none of the built-in bridge: start Hull once with the former network.backend to release it",
            attachment.sandbox_id, attachment.network
        ))),
    }
}

/// The pod of an attachment, which must have been planned on this bridge.
fn own<'a>(shared: &Shared, attachment: &'a Attachment) -> Result<&'a str> {
    let (id, bridge) = target(attachment)?;
    if bridge == shared.config.name {
        return Ok(id);
    }
    Err(Error::Invalid(format!(
        "{id} is attached to the former bridge {bridge}, not to {}",
        shared.config.name
    )))
}

/// Runs kernel and file work off the async threads.
async fn blocking<T: Send + 'static>(
    context: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Io { context: context.to_owned(), source: std::io::Error::other(error) }),
    }
}
