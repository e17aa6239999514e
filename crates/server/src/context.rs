// SPDX-License-Identifier: Apache-2.0
//! What every verb needs: configuration, backends, records, the store, and the tasks the daemon owns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use hull_conmon_client::Monitor;
use hull_image_store::ImageStore;
use hull_netns::NetNsManager;
use hull_oci_runtime::OciRuntime;
use hull_pod_network::PodNetwork;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backends::Backends;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::layout::Layout;
use crate::ledger::Ledger;
use crate::model::{ContainerRecord, ContainerStatus, SandboxMeta, SandboxRecord, SandboxStatus};
use crate::node::Node;
use crate::operation::{Jobs, Operation};
use crate::probe::Probes;
use crate::records::{self, Records};
use crate::recovery::Recovery;
use crate::spec::HandlerPolicy;
use crate::spec::rlimits::{self, Rlimit};
use crate::store::{Container, Sandbox, Store};
use crate::unwritten::{self, Lagging, Unwritten};
use crate::volume::Volumes;

/// Shared by every verb.
pub(crate) type Context = Arc<Daemon>;

/// The daemon's inside.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) records: Records,
    pub(crate) store: Store,
    pub(crate) events: Events,
    pub(crate) node: Arc<dyn Node>,
    pub(crate) netns: Arc<dyn NetNsManager>,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) images: Arc<dyn ImageStore>,
    pub(crate) handlers: BTreeMap<String, Handler>,
    /// Limits of processes, of every container.
    pub(crate) rlimits: Vec<Rlimit>,
    /// What the handlers can do.
    pub(crate) probes: Probes,
    /// Every task the daemon spawned.
    pub(crate) tasks: TaskTracker,
    /// The daemon ends: timers and retries stop, operations are let finish.
    pub(crate) shutdown: CancellationToken,
    /// Those that wait for the ends of processes; operations need them, so they go last.
    pub(crate) watchers: TaskTracker,
    pub(crate) watch_end: CancellationToken,
    /// Looks at paths that requests name.
    pub(crate) volumes: Volumes,
    /// Serves exec, attach and port-forward; set when it listens.
    pub(crate) streaming: OnceLock<hull_streaming::Server>,
    /// What could not be given back yet.
    pub(crate) ledger: Ledger,
    /// Records that lag behind what is true.
    pub(crate) unwritten: Unwritten,
    /// What runs besides operations.
    pub(crate) jobs: Jobs,
    /// What the start still finds out, finishes or undoes.
    pub(crate) recovery: Recovery,
    /// The right to look for orphans: one at a time.
    pub(crate) checks: Semaphore,
    /// When this daemon was started.
    pub(crate) started: SystemTime,
    /// Pods that make slices share it; who stops a slice that several pods may share has it alone.
    pub(crate) slices: tokio::sync::RwLock<()>,
    /// A return of freed memory to the kernel is due.
    pub(crate) trim_due: AtomicBool,
}

/// A runtime handler: an OCI runtime and the monitor that goes with it.
#[derive(Debug, Clone)]
pub(crate) struct Handler {
    pub(crate) runtime: Arc<dyn OciRuntime>,
    pub(crate) monitor: Arc<dyn Monitor>,
}

/// How long undoing one thing may take before it is left to the next start.
pub(crate) const UNDO_DEADLINE: Duration = Duration::from_secs(30);

/// How long after an operation freed memory is given back.
const TRIM_AFTER: Duration = Duration::from_secs(3);

// === impl Daemon ===

impl Daemon {
    pub(crate) fn new(config: Config, layout: Layout, backends: Backends) -> Result<Self> {
        let facts = backends.node.facts().clone();
        Ok(Self {
            records: Records::open(&layout)?,
            layout,
            store: Store::default(),
            events: Events::default(),
            node: backends.node,
            netns: backends.netns,
            network: backends.network,
            images: backends.images,
            handlers: backends.handlers,
            probes: Probes::new(&config),
            rlimits: rlimits::within_reach(&config.containers.ulimits, &facts),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            watchers: TaskTracker::new(),
            watch_end: CancellationToken::new(),
            volumes: Volumes::new(backends.volume_helper, config.timeouts.volume),
            streaming: OnceLock::new(),
            ledger: Ledger::default(),
            unwritten: Unwritten::default(),
            jobs: Jobs::default(),
            recovery: Recovery::default(),
            checks: Semaphore::new(1),
            started: SystemTime::now(),
            slices: tokio::sync::RwLock::new(()),
            trim_due: AtomicBool::new(false),
            config,
        })
    }

    /// Who owns what is made for a pod: its root, by the host's ids.
    pub(crate) fn owner(&self, meta: &SandboxMeta) -> (u32, u32) {
        if self.node.gives_files() { meta.owner() } else { (0, 0) }
    }

    /// How long what was sent SIGKILL may take to be gone before its undo is left to a later try.
    pub(crate) fn undo_deadline(&self) -> Duration {
        UNDO_DEADLINE.min(self.config.timeouts.stop_extra)
    }

    /// What the administrator lets the containers of a handler do.
    pub(crate) fn policy(&self, handler: &str) -> &HandlerPolicy {
        static SAFE: HandlerPolicy =
            HandlerPolicy { allowed_annotations: Vec::new(), seccomp_allow_socketcall: false };
        self.config.runtime.handlers.get(handler).map_or(&SAFE, |handler| &handler.policy)
    }

    /// The handler of a name; the empty one is the default.
    pub(crate) fn handler(&self, operation: &'static str, name: &str) -> Result<(String, &Handler)> {
        let name = if name.is_empty() { self.config.runtime.default.as_str() } else { name };
        self.handlers.get(name).map(|handler| (name.to_owned(), handler)).ok_or_else(|| {
            Error::InvalidArgument {
                operation,
                field: "runtime_handler".into(),
                problem: format!(
                    "failed to find runtime handler {name:?}; configured: {}",
                    self.handlers.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            }
        })
    }

    /// Changes a sandbox's status: durable first, then published.
    pub(crate) async fn change_sandbox(
        &self,
        sandbox: &Sandbox,
        change: impl FnOnce(&mut SandboxStatus) + Send,
    ) -> Result<()> {
        self.alter_sandbox(sandbox, change, Err).await
    }

    /// Publishes what was done to a sandbox, even if it cannot be written down now: see [`crate::unwritten`].
    pub(crate) async fn observe_sandbox(
        self: &Arc<Self>,
        sandbox: &Sandbox,
        change: impl FnOnce(&mut SandboxStatus) + Send,
    ) {
        let later = |error: Error| {
            tracing::warn!(sandbox = sandbox.id(), error = %crate::error::chain(&error), "state changed but not recorded yet");
            unwritten::lags(self, Lagging::Sandbox(sandbox.id().to_owned()));
            Ok(())
        };
        // `later` makes no error.
        let _ = self.alter_sandbox(sandbox, change, later).await;
    }

    async fn alter_sandbox(
        &self,
        sandbox: &Sandbox,
        change: impl FnOnce(&mut SandboxStatus) + Send,
        unrecorded: impl FnOnce(Error) -> Result<()> + Send,
    ) -> Result<()> {
        let _order = sandbox.writing.lock().await;
        if self.store.sandbox_exact(sandbox.id()).is_none() {
            return Ok(());
        }
        let before = sandbox.status();
        let mut status = (*before).clone();
        change(&mut status);
        if status == *before {
            return Ok(());
        }
        self.records.put_sandbox(self.sandbox_record(sandbox, &status)).await.or_else(unrecorded)?;
        sandbox.publish(status);
        self.events.sandbox_changed(self, sandbox, &before, &sandbox.status());
        Ok(())
    }

    /// Changes a container's status: durable first, then published.
    pub(crate) async fn change_container(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerStatus) + Send,
    ) -> Result<()> {
        self.alter_container(container, change, Err).await
    }

    /// Publishes what was observed, even if it cannot be written down now (a full disk): the truth is
    /// the kernel's, and a later start finds it again.
    pub(crate) async fn observe_container(
        self: &Arc<Self>,
        container: &Container,
        change: impl FnOnce(&mut ContainerStatus) + Send,
    ) {
        let later = |error: Error| {
            tracing::warn!(container = container.id(), error = %crate::error::chain(&error), "state observed but not recorded yet");
            unwritten::lags(self, Lagging::Container(container.id().to_owned()));
            Ok(())
        };
        // `later` makes no error.
        let _ = self.alter_container(container, change, later).await;
    }

    async fn alter_container(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerStatus) + Send,
        unrecorded: impl FnOnce(Error) -> Result<()> + Send,
    ) -> Result<()> {
        let _order = container.writing.lock().await;
        if self.store.container_exact(container.id()).is_none() {
            return Ok(());
        }
        let before = container.status();
        let mut status = (*before).clone();
        change(&mut status);
        if status == *before {
            return Ok(());
        }
        self.records.put_container(self.container_record(container, &status)).await.or_else(unrecorded)?;
        container.publish(status);
        self.events.container_changed(self, container, &before, &container.status());
        Ok(())
    }

    /// Waits for the next of several tries; `false`: the daemon ends meanwhile.
    pub(crate) async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    pub(crate) fn sandbox_record(&self, sandbox: &Sandbox, status: &SandboxStatus) -> SandboxRecord {
        SandboxRecord {
            boot_id: self.node.boot_id().to_owned(),
            meta: sandbox.meta.clone(),
            status: status.clone(),
        }
    }

    pub(crate) fn container_record(
        &self,
        container: &Container,
        status: &ContainerStatus,
    ) -> ContainerRecord {
        ContainerRecord {
            boot_id: self.node.boot_id().to_owned(),
            meta: container.meta.clone(),
            status: status.clone(),
        }
    }

    /// Runs an operation's body in a task of the daemon; `done` frees the slot and tells the waiters.
    pub(crate) fn spawn_operation(
        self: &Arc<Self>,
        operation: Arc<Operation>,
        body: impl Future<Output = Result<()>> + Send + 'static,
        done: impl FnOnce(crate::operation::Outcome) + Send + 'static,
    ) {
        let ctx = self.clone();
        self.tasks.spawn(async move {
            // A panic is a bug, but not one that may block its object for ever.
            let result = records::caught(operation.kind.rpc(), &operation.id, Box::pin(body)).await;
            ctx.trim_later();
            let (stage, age) = operation.progress();
            let (operation_name, id) = (operation.kind.rpc(), operation.id.as_str());
            let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            match &result {
                Ok(()) => tracing::info!(operation = operation_name, id, ms, "done"),
                Err(error) => {
                    tracing::warn!(operation = operation_name, id, ms, stage, error = %crate::error::chain(error), "failed");
                }
            }
            done(result.map_err(Arc::new));
        });
    }
}

impl Daemon {
    /// After a burst of operations, once: nothing ticks while the daemon is idle.
    fn trim_later(self: &Arc<Self>) {
        if self.trim_due.swap(true, Ordering::Relaxed) {
            return;
        }
        let ctx = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = ctx.shutdown.cancelled() => return,
                () = tokio::time::sleep(TRIM_AFTER) => {}
            }
            ctx.trim_due.store(false, Ordering::Relaxed);
            crate::memory::trim();
        });
    }
}

/// Collects the failures of steps that must all be tried.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<Error>);

// === impl Failures ===

impl Failures {
    /// Notes a step's result and goes on.
    pub(crate) fn note<E>(&mut self, result: std::result::Result<(), E>)
    where
        Error: From<E>,
    {
        if let Err(error) = result {
            self.0.push(error.into());
        }
    }

    pub(crate) fn into_result(self, operation: &'static str, id: &str) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Cleanup { operation, id: id.to_owned(), failures: self.0 })
        }
    }
}
