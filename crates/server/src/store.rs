// SPDX-License-Identifier: Apache-2.0
//! Every pod sandbox and container, in memory. Locks are short and never held across an await;
//! each object publishes its status as a snapshot that reading never waits for.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use hull_cri_api::v1;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::container;
use crate::error::{Error, Result};
use crate::limits;
use crate::model::{
    ContainerKey, ContainerMeta, ContainerPhase, ContainerRecord, ContainerStatus, SandboxKey, SandboxMeta,
    SandboxPhase, SandboxRecord, SandboxStatus,
};
use crate::operation::{Admission, OpKind, Slot};
use crate::sandbox;

/// A pod sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) meta: SandboxMeta,
    pub(crate) fingerprint: String,
    /// Bytes of its configuration, encoded.
    pub(crate) size: usize,
    pub(crate) slot: Slot,
    status: watch::Sender<Arc<SandboxStatus>>,
    /// Held while a status change is written: changes of one sandbox follow one another.
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// Held while files that it has lost are made again.
    pub(crate) remaking: tokio::sync::Mutex<()>,
    /// Somebody has the id from a finished claim.
    pub(crate) told: AtomicBool,
    /// Cancelled before the pod's network is released: nothing connects to its ports any more.
    pub(crate) forwards: CancellationToken,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) meta: ContainerMeta,
    pub(crate) fingerprint: String,
    /// Bytes of its configuration, encoded.
    pub(crate) size: usize,
    pub(crate) slot: Slot,
    status: watch::Sender<Arc<ContainerStatus>>,
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// Somebody has the id from a finished claim.
    pub(crate) told: AtomicBool,
    /// Cancelled when SIGKILL is due: no exec begins any more, and those that run end with the container.
    pub(crate) execs: CancellationToken,
    /// The start was found done after a restart of the daemon; its caller has not heard of it.
    pub(crate) start_untold: AtomicBool,
    /// The last sample, for the rate of processor time.
    pub(crate) cpu_sample: Mutex<Option<(Instant, u64)>>,
    /// The last count of the writable layer.
    pub(crate) layer: Mutex<LayerCount>,
    /// When its monitor was found to have ended before it. Not recorded: the next daemon finds the same.
    pub(crate) monitor_lost: OnceLock<SystemTime>,
}

/// The writable layer's size: counting walks a tree that the container made, which may take long.
#[derive(Debug, Default)]
pub(crate) struct LayerCount {
    pub(crate) running: bool,
    pub(crate) last: Option<hull_image_store::Usage>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sandboxes: BTreeMap<String, Arc<Sandbox>>,
    containers: BTreeMap<String, Arc<Container>>,
    sandbox_keys: HashMap<SandboxKey, String>,
    container_keys: HashMap<ContainerKey, String>,
}

impl Inner {
    /// Bytes of the configurations of a pod sandbox and its containers.
    fn size_of_pod(&self, id: &str) -> usize {
        let containers = self.containers.values().filter(|container| container.meta.sandbox_id == id);
        self.sandboxes.get(id).map_or(0, |sandbox| sandbox.size)
            + containers.map(|container| container.size).sum::<usize>()
    }
}

/// What admission of a make found under its key.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// Nothing: the new object is in the store, its operation runs in its slot.
    New(Arc<T>, Admission),
    /// An object with its own slot; the admission is that of the newcomer in this slot.
    Busy(Arc<T>, Admission),
    /// An object without a running operation.
    Idle(Arc<T>),
}

// === impl Sandbox ===

impl Sandbox {
    pub(crate) fn new(meta: SandboxMeta, fingerprint: String, status: SandboxStatus) -> Arc<Self> {
        Arc::new(Self {
            size: meta.config.encoded_len(),
            meta,
            fingerprint,
            slot: Slot::default(),
            told: AtomicBool::new(status.claimed),
            status: watch::Sender::new(Arc::new(status)),
            writing: tokio::sync::Mutex::new(()),
            remaking: tokio::sync::Mutex::new(()),
            forwards: CancellationToken::new(),
        })
    }

    /// The one of a record.
    pub(crate) fn recorded(record: SandboxRecord) -> Arc<Self> {
        let fingerprint = sandbox::request::fingerprint(&record.meta.config, &record.meta.handler);
        Self::new(record.meta, fingerprint, record.status)
    }

    pub(crate) fn id(&self) -> &str {
        &self.meta.id
    }

    pub(crate) fn status(&self) -> Arc<SandboxStatus> {
        self.status.borrow().clone()
    }

    pub(crate) fn publish(&self, status: SandboxStatus) {
        self.status.send_replace(Arc::new(status));
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.status().is_ready()
    }
}

// === impl Container ===

impl Container {
    pub(crate) fn new(meta: ContainerMeta, fingerprint: String, status: ContainerStatus) -> Arc<Self> {
        Arc::new(Self {
            size: meta.config.encoded_len(),
            meta,
            fingerprint,
            slot: Slot::default(),
            told: AtomicBool::new(status.claimed),
            status: watch::Sender::new(Arc::new(status)),
            writing: tokio::sync::Mutex::new(()),
            execs: CancellationToken::new(),
            start_untold: AtomicBool::new(false),
            cpu_sample: Mutex::new(None),
            layer: Mutex::new(LayerCount::default()),
            monitor_lost: OnceLock::new(),
        })
    }

    /// The one of a record.
    pub(crate) fn recorded(record: ContainerRecord) -> Arc<Self> {
        let fingerprint = container::request::fingerprint(&record.meta.config);
        Self::new(record.meta, fingerprint, record.status)
    }

    pub(crate) fn id(&self) -> &str {
        &self.meta.id
    }

    pub(crate) fn status(&self) -> Arc<ContainerStatus> {
        self.status.borrow().clone()
    }

    pub(crate) fn publish(&self, status: ContainerStatus) {
        self.status.send_replace(Arc::new(status));
    }

    /// Since when this daemon knows that the container runs without its monitor.
    pub(crate) fn unmonitored_since(&self) -> Option<SystemTime> {
        let lives = self.status().exit.is_none();
        self.monitor_lost.get().copied().filter(|_| lives)
    }

    /// Waits until the container has exited, or never was.
    pub(crate) async fn exited(&self) {
        let mut status = self.status.subscribe();
        // The sender lives in `self`: it cannot close while we wait.
        let _ = status.wait_for(|status| status.phase == ContainerPhase::Exited).await;
    }

    /// The limits that apply.
    pub(crate) fn resources(&self) -> Option<v1::LinuxContainerResources> {
        self.resources_in(&self.status())
    }

    /// The limits that applied in a status.
    pub(crate) fn resources_in(&self, status: &ContainerStatus) -> Option<v1::LinuxContainerResources> {
        match &status.updated {
            Some(updated) => Some(updated.resources.clone()),
            None => self.meta.config.linux.as_ref()?.resources.clone(),
        }
    }

    pub(crate) fn take_start_untold(&self) -> bool {
        self.start_untold.swap(false, Ordering::SeqCst)
    }
}

// === impl Store ===

impl Store {
    /// Finds what has the key, or takes the key with a new object; in one step.
    pub(crate) fn admit_sandbox(
        &self,
        key: &SandboxKey,
        fingerprint: &str,
        make: impl FnOnce() -> Arc<Sandbox>,
    ) -> Found<Sandbox> {
        let mut inner = self.lock();
        let existing = inner.sandbox_keys.get(key).and_then(|id| inner.sandboxes.get(id)).cloned();
        match existing {
            Some(sandbox) => match sandbox.slot.behind(OpKind::RunSandbox, fingerprint) {
                None => Found::Idle(sandbox),
                Some(admission) => Found::Busy(sandbox, admission),
            },
            None => {
                let sandbox = make();
                let admission = sandbox.slot.admit(OpKind::RunSandbox, sandbox.id(), fingerprint);
                inner.sandbox_keys.insert(key.clone(), sandbox.id().to_owned());
                inner.sandboxes.insert(sandbox.id().to_owned(), sandbox.clone());
                Found::New(sandbox, admission)
            }
        }
    }

    /// As [`Store::admit_sandbox`].
    ///
    /// # Errors
    /// The bytes that the pod's configurations would have together, where those are more than [`limits::POD`].
    pub(crate) fn admit_container(
        &self,
        key: &ContainerKey,
        fingerprint: &str,
        make: impl FnOnce() -> Arc<Container>,
    ) -> std::result::Result<Found<Container>, usize> {
        let mut inner = self.lock();
        let existing = inner.container_keys.get(key).and_then(|id| inner.containers.get(id)).cloned();
        Ok(match existing {
            Some(container) => match container.slot.behind(OpKind::CreateContainer, fingerprint) {
                None => Found::Idle(container),
                Some(admission) => Found::Busy(container, admission),
            },
            None => {
                let container = make();
                let size = container.size + inner.size_of_pod(&key.sandbox_id);
                if size > limits::POD {
                    return Err(size);
                }
                let admission = container.slot.admit(OpKind::CreateContainer, container.id(), fingerprint);
                inner.container_keys.insert(key.clone(), container.id().to_owned());
                inner.containers.insert(container.id().to_owned(), container.clone());
                Found::New(container, admission)
            }
        })
    }

    /// Takes an object from the records. What was only half made leaves the key to what was made in its place, and of two
    /// that were made (one's record was in quarantine meanwhile) the newer has it.
    pub(crate) fn adopt_sandbox(&self, sandbox: Arc<Sandbox>) {
        let mut inner = self.lock();
        let (key, id) = (sandbox.meta.key(), sandbox.id().to_owned());
        let other = inner.sandbox_keys.get(&key).and_then(|other| inner.sandboxes.get(other));
        let rank = |it: &Sandbox| (it.status().phase != SandboxPhase::Creating, it.meta.created_at);
        if other.is_none_or(|other| rank(other) < rank(&sandbox)) {
            inner.sandbox_keys.insert(key, id.clone());
        }
        inner.sandboxes.insert(id, sandbox);
    }

    /// As [`Store::adopt_sandbox`].
    pub(crate) fn adopt_container(&self, container: Arc<Container>) {
        let mut inner = self.lock();
        let (key, id) = (container.meta.key(), container.id().to_owned());
        let other = inner.container_keys.get(&key).and_then(|other| inner.containers.get(other));
        let rank = |it: &Container| (it.status().phase != ContainerPhase::Creating, it.meta.created_at);
        if other.is_none_or(|other| rank(other) < rank(&container)) {
            inner.container_keys.insert(key, id.clone());
        }
        inner.containers.insert(id, container);
    }

    pub(crate) fn drop_sandbox(&self, sandbox: &Sandbox) {
        let mut inner = self.lock();
        inner.sandboxes.remove(sandbox.id());
        let key = sandbox.meta.key();
        if inner.sandbox_keys.get(&key).is_some_and(|id| id == sandbox.id()) {
            inner.sandbox_keys.remove(&key);
        }
    }

    pub(crate) fn drop_container(&self, container: &Container) {
        let mut inner = self.lock();
        inner.containers.remove(container.id());
        let key = container.meta.key();
        if inner.container_keys.get(&key).is_some_and(|id| id == container.id()) {
            inner.container_keys.remove(&key);
        }
    }

    /// Every sandbox, the hidden ones too.
    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.lock().sandboxes.values().cloned().collect()
    }

    /// Every container, the hidden ones too.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.lock().containers.values().cloned().collect()
    }

    /// Every container of a sandbox, the hidden ones too.
    pub(crate) fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        self.lock().containers.values().filter(|c| c.meta.sandbox_id == sandbox_id).cloned().collect()
    }

    /// By full id, also one that is hidden (its creator knows the id).
    pub(crate) fn sandbox_exact(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.lock().sandboxes.get(id).cloned()
    }

    /// By full id, also one that is hidden or in creation.
    pub(crate) fn container_exact(&self, id: &str) -> Option<Arc<Container>> {
        self.lock().containers.get(id).cloned()
    }

    /// By id or unambiguous prefix; an object in creation is not found.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Option<Arc<Sandbox>>> {
        find(
            "pod sandbox",
            &self.lock().sandboxes,
            id,
            |sandbox| sandbox.status().phase != SandboxPhase::Creating,
            |s| s.status().is_visible(),
        )
    }

    /// By id or unambiguous prefix; an object in creation is not found.
    pub(crate) fn container(&self, id: &str) -> Result<Option<Arc<Container>>> {
        find(
            "container",
            &self.lock().containers,
            id,
            |container| container.status().phase != ContainerPhase::Creating,
            |c| c.status().is_visible(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A full id finds what exists; a prefix finds only what is listed.
fn find<T>(
    kind: &'static str,
    map: &BTreeMap<String, Arc<T>>,
    id: &str,
    exists: impl Fn(&T) -> bool,
    is_listed: impl Fn(&T) -> bool,
) -> Result<Option<Arc<T>>> {
    if id.is_empty() {
        return Err(Error::InvalidArgument {
            operation: kind,
            field: "id".into(),
            problem: "must not be empty".into(),
        });
    }
    if let Some(exact) = map.get(id) {
        return Ok(Some(exact.clone()).filter(|object| exists(object)));
    }
    let mut matches = map
        .range(id.to_owned()..)
        .take_while(|(key, _)| key.starts_with(id))
        .filter(|(_, object)| is_listed(object))
        .map(|(_, object)| object);
    let first = matches.next().cloned();
    let others = matches.count();
    if others > 0 {
        return Err(Error::Ambiguous { kind, prefix: id.to_owned(), matches: others + 1 });
    }
    Ok(first)
}
