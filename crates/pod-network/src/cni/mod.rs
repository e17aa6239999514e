// SPDX-License-Identifier: Apache-2.0
//! CNI: the network is what plugins make it (CNI specification 1.1.0 and all before it).
//!
//! ```text
//! conf_dir ──watch──> load ──> known ──> plan: exact bytes, CNI_ARGS, capability arguments
//!                                 │         └──(durable at the caller)──> attach: lo up, ADD chain, cache
//!                                 └──> status: VERSION, STATUS         └> detach: DEL chain reversed, cache entry gone
//! ```
//! Invariants: detach uses the bytes that attach used. One attachment, one operation at a time.
//! No plugin without deadline. `status` reads memory alone. A failed attach has released everything
//! or says what it could not release.

mod add;
mod cache;
mod capability;
mod check;
mod conf;
mod config;
mod del;
mod gate;
mod gc;
mod invoke;
mod known;
mod load;
mod quantity;
mod reload;
mod result;
mod status;
mod target;
mod version;
mod watch;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hull_failpoint::failpoint_async;
use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{AttachRequest, Attached, Attachment, Error, Held, NetworkStatus, PodNetwork, Result, loopback};
use cache::Cache;
pub use config::CniConfig;
use gate::Gates;
use invoke::Invoker;
use known::Known;
use target::{Data, Key, Target};

/// The [`PodNetwork`] of CNI plugins.
#[derive(Debug)]
pub struct CniNetwork {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What the operations and the tasks have in common.
#[derive(Debug)]
struct Shared {
    config: CniConfig,
    invoker: Invoker,
    cache: Cache,
    gates: Gates,
    known: Known,
    /// Attached by this process and not detached since: never garbage, even if a caller's list of
    /// valid attachments was made before.
    live: Mutex<BTreeSet<Key>>,
    watched: AtomicBool,
    told_unwatched: AtomicBool,
}

// === impl CniNetwork ===

impl CniNetwork {
    /// Reads the configuration and begins to watch it. Must be called inside a tokio runtime.
    /// A missing or unusable configuration is no error but [`NetworkStatus::NotReady`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a config that cannot work, [`Error::Io`] when the cache's folder
    /// cannot be made.
    pub fn new(config: CniConfig) -> Result<Self> {
        config.validate()?;
        let shared = Arc::new(Shared {
            invoker: Invoker::new(config.bin_dirs.clone(), config.max_plugins),
            cache: Cache::open(config.cache_dir.clone())?,
            gates: Gates::default(),
            known: Known::default(),
            live: Mutex::default(),
            watched: AtomicBool::new(false),
            told_unwatched: AtomicBool::new(false),
            config,
        });
        make_conf_dir(&shared.config);
        let watch = reload::watch(&shared);
        let loaded = load::load(&shared.config.conf_dir, &shared.config.bin_dirs);
        shared.known.set(loaded, shared.config.default_network.as_deref());
        let cancel = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(reload::keep_reading(Arc::clone(&shared), watch, cancel.clone())),
            tokio::spawn(status::keep_asking(Arc::clone(&shared), cancel.clone())),
        ];
        Ok(Self { shared, cancel, tasks: Mutex::new(tasks) })
    }

    /// The configuration files that are not used, each with the reason.
    pub fn warnings(&self) -> Vec<String> {
        self.shared.known.warnings()
    }

    /// Whether changes of the configuration are watched; otherwise it is read at every plan.
    pub fn is_watching(&self) -> bool {
        self.shared.watched.load(Ordering::Acquire)
    }

    /// Ends the tasks and waits for them. Operations that run are not touched. Idempotent.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        let tasks = std::mem::take(&mut *self.tasks());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the network ended badly");
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CniNetwork {
    fn drop(&mut self) {
        self.cancel.cancel();
        for task in self.tasks().drain(..) {
            task.abort();
        }
    }
}

#[async_trait]
impl PodNetwork for CniNetwork {
    fn status(&self) -> NetworkStatus {
        if !self.is_watching() {
            // The answer is what was read last; the next one is newer.
            self.shared.known.stale.notify_one();
        }
        self.shared.status()
    }

    async fn plan(&self, request: &AttachRequest) -> Result<Attachment> {
        let shared = &self.shared;
        if !self.is_watching() {
            reload::read(shared).await;
        }
        // Plugins that have not been asked yet are given a try; only a no counts.
        let bad = matches!(shared.known.health(), known::Health::Bad(_));
        let (Some(list), false) = (shared.known.current().0, bad) else {
            return match shared.status() {
                NetworkStatus::NotReady { reason, message } => Err(Error::NotReady { reason, message }),
                // It became ready between the two looks.
                NetworkStatus::Ready => self.plan_on(request),
            };
        };
        shared.plan(&list, request)
    }

    async fn attach(&self, attachment: &Attachment) -> Result<Attached> {
        let target = Target::of(attachment)?;
        let _pass = self.shared.gates.enter(&target.key).await;
        self.shared.lock_live().insert(target.key.clone());
        let attached = self.shared.attach(&target).await;
        if attached.is_err() {
            self.shared.lock_live().remove(&target.key);
            self.shared.known.doubt.notify_one();
        }
        attached
    }

    async fn detach(&self, attachment: &Attachment) -> Result<()> {
        let target = Target::of(attachment)?;
        let _pass = self.shared.gates.enter(&target.key).await;
        self.shared.lock_live().remove(&target.key);
        let detached = self.shared.detach(&target).await;
        if detached.is_err() {
            self.shared.known.doubt.notify_one();
        }
        detached
    }

    async fn check(&self, attachment: &Attachment) -> Result<()> {
        let target = Target::of(attachment)?;
        let _pass = self.shared.gates.enter(&target.key).await;
        let result = self.shared.cached_result(&target.key).await?;
        check::check(&self.shared.invoker, &target, result.as_deref(), self.shared.config.add_deadline).await
    }

    /// Only another ADD would do it, which plugins may answer with another address.
    async fn restore(&self, _attachment: &Attachment) -> Result<bool> {
        Ok(false)
    }

    async fn gc(&self, valid: &[Attachment]) -> Result<()> {
        gc::gc(&self.shared, &valid.iter().map(Key::of).collect()).await
    }

    async fn held(&self) -> Result<Vec<Held>> {
        let cache = self.shared.cache.clone();
        let targets = blocking("list the CNI results", move || cache.targets()).await?;
        let held = |target: Target| Held {
            what: format!("attachment {} of network {}", target.key.interface, target.key.network),
            sandbox_id: target.key.container,
        };
        Ok(targets.into_iter().map(held).collect())
    }
}

impl CniNetwork {
    /// Plans on whatever the default network is now.
    fn plan_on(&self, request: &AttachRequest) -> Result<Attachment> {
        match self.shared.known.current().0 {
            Some(list) => self.shared.plan(&list, request),
            None => Err(Error::Invalid("the network's configuration is changing, try again".to_owned())),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn status(&self) -> NetworkStatus {
        self.known.status(&self.config.conf_dir, self.config.default_network.as_deref())
    }

    /// Everything that attach and detach will need. Pure but for the configuration.
    fn plan(&self, list: &conf::NetworkList, request: &AttachRequest) -> Result<Attachment> {
        let capability_args = capability::arguments(request)?;
        let wants_ports =
            list.plugins.iter().any(|plugin| plugin.capabilities.iter().any(|c| c == "portMappings"));
        if capability_args.contains_key("portMappings") && !wants_ports {
            tracing::warn!(
                network = list.name,
                pod = request.pod_name,
                "no plugin of the network has the capability portMappings: the pod's host ports will not work"
            );
        }
        let data = Data::new(list, target::cni_args(request)?, capability_args);
        let attachment = Attachment {
            sandbox_id: request.sandbox_id.clone(),
            network: list.name.clone(),
            interface: self.config.interface.clone(),
            netns: request.netns.clone(),
            port_mappings: request.port_mappings.clone(),
            data: serde_json::to_value(data).map_err(|e| Error::Invalid(e.to_string()))?,
        };
        if request.netns.to_str().is_none_or(|path| path.is_empty() || path.contains('\0')) {
            return Err(Error::Invalid(format!(
                "network namespace {:?} cannot be told to plugins",
                request.netns
            )));
        }
        // What could not be read back must not be recorded.
        Target::of(&attachment)?;
        Ok(attachment)
    }

    async fn attach(&self, target: &Target) -> Result<Attached> {
        if self.config.loopback {
            self.loopback_up(target).await.map_err(|source| {
                // No plugin has run: there is nothing to release.
                Error::Attach { source: Box::new(source), released: None }
            })?;
        }
        let attached = async {
            let added = add::add(&self.invoker, target, self.config.add_deadline).await?;
            self.remember(target, &added.raw).await?;
            let result = serde_json::from_str(added.raw.get()).map_err(|e| Error::Invalid(e.to_string()))?;
            Ok(Attached { ips: added.result.pod_ips(), result })
        };
        let source = match attached.await {
            Ok(attached) => return Ok(attached),
            Err(source) => source,
        };
        // CNI spec, "Attachment Parameters": after a failed ADD the runtime runs DEL on the whole list.
        let released = self.detach(target).await.err().map(Box::new);
        Err(Error::Attach { source: Box::new(source), released })
    }

    async fn detach(&self, target: &Target) -> Result<()> {
        let result = self.cached_result(&target.key).await?;
        del::del(&self.invoker, target, result.as_deref(), self.config.del_deadline).await?;
        self.forget(&target.key).await
    }

    async fn loopback_up(&self, target: &Target) -> Result<()> {
        let context = "bring up the pod's loopback interface";
        failpoint_async!("cni.attach.loopback")
            .map_err(|source| Error::Io { context: context.to_owned(), source })?;
        let netns = target.netns.clone();
        let up =
            move || loopback::up(&netns).map_err(|source| Error::Io { context: context.to_owned(), source });
        blocking(context, up).await
    }

    async fn remember(&self, target: &Target, result: &RawValue) -> Result<()> {
        let (cache, entry) = (self.cache.clone(), cache::Entry::new(target, result));
        blocking("write the CNI result", move || cache.put(&entry)).await
    }

    async fn cached_result(&self, key: &Key) -> Result<Option<Box<RawValue>>> {
        let (cache, key) = (self.cache.clone(), key.clone());
        blocking("read the CNI result", move || Ok(cache.result(&key))).await
    }

    async fn forget(&self, key: &Key) -> Result<()> {
        let (cache, key) = (self.cache.clone(), key.clone());
        blocking("remove the CNI result", move || cache.remove(&key)).await
    }

    fn is_live(&self, key: &Key) -> bool {
        self.lock_live().contains(key)
    }

    fn live(&self) -> Vec<Key> {
        self.lock_live().iter().cloned().collect()
    }

    fn lock_live(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network provider commonly comes later and expects the folder. Where it cannot be made the
/// nearest parent is watched.
fn make_conf_dir(config: &CniConfig) {
    let dir = &config.conf_dir;
    if let Err(error) = hull_files::make_dir(dir, 0o755) {
        tracing::warn!(dir = %dir.display(), %error, "cannot make the folder of network configurations");
    }
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(
    context: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Io { context: context.to_owned(), source: std::io::Error::other(error) }),
    }
}
