// SPDX-License-Identifier: Apache-2.0
//! RunPodSandbox: admit, then make the pod stage by stage.
//!
//! ```text
//! admit -> record -> cgroup -> namespaces -> files -> network -> [pause] -> ready
//!            |______________ any failure: teardown of everything, by id ______|
//! ```
//! The record *creating* is durable before anything is made; every name derives from the id, so that
//! record is the undo list of a daemon that dies in between.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hull_cri_api::v1;
use hull_netns::PodNamespaces;
use hull_pod_network::NetworkStatus;

use crate::cgroup;
use crate::claim::{self, Claimable, Decide};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exhausted;
use crate::id;
use crate::ledger::{self, Owed};
use crate::model::{AttachmentRecord, SandboxMeta, SandboxPhase, SandboxStatus, Unknown};
use crate::operation::{Admission, Operation};
use crate::records;
use crate::sandbox::{files, pause, release, remove, request, teardown};
use crate::spec::userns;
use crate::store::{Found, Sandbox};
use crate::volume::Lookup;

const RPC: &str = "RunPodSandbox";

/// Runs a pod sandbox, or finds the one that this very request already made; returns its id.
pub(crate) async fn run(ctx: &Context, request: v1::RunPodSandboxRequest) -> Result<String> {
    let config = request.config.ok_or_else(|| request::invalid(RPC, "config", "is missing"))?;
    let key = request::validate(&config, ctx.config.runtime.cgroup_driver)?;
    let (handler, _) = ctx.handler(RPC, &request.runtime_handler)?;
    refuse_unless_able(ctx, &config, &handler).await?;
    let fingerprint = request::fingerprint(&config, &handler);
    loop {
        let meta = plan(ctx, &config, &request.runtime_handler, handler.clone())?;
        let found = ctx.store.admit_sandbox(&key, &fingerprint, || {
            Sandbox::new(meta, fingerprint.clone(), SandboxStatus::creating())
        });
        match found {
            Found::New(sandbox, Admission::Run(operation)) => {
                let waiter = operation.waiter();
                spawn(ctx, sandbox.clone(), operation);
                return claim::tell(ctx, sandbox, waiter).await;
            }
            Found::New(_, _) => return Err(Error::Lost { operation: RPC, id: key.name }),
            Found::Busy(sandbox, Admission::Join(operation)) => {
                let waiter = operation.waiter();
                return claim::tell(ctx, sandbox, waiter).await;
            }
            Found::Busy(_, Admission::Cancel(operation)) => {
                operation.cancel();
                let _ = operation.ended().await;
            }
            Found::Busy(
                _,
                Admission::Wait(operation)
                | Admission::Shorten(operation)
                | Admission::Refuse(operation)
                | Admission::Run(operation),
            ) => {
                let _ = operation.ended().await;
            }
            Found::Idle(sandbox) => {
                if let Some(id) = settle(ctx, &sandbox, &fingerprint).await? {
                    return Ok(id);
                }
            }
        }
    }
}

/// Only a pod that asks for what not every handler can waits for the handler's answer.
async fn refuse_unless_able(ctx: &Context, config: &v1::PodSandboxConfig, handler: &str) -> Result<()> {
    if userns::of_pod(config).is_none() {
        return Ok(());
    }
    let facts = tokio::select! {
        () = ctx.shutdown.cancelled() => ctx.probes.facts(handler),
        facts = ctx.probes.answered(handler) => facts,
    };
    if facts.user_namespaces {
        return Ok(());
    }
    let what = format!(
        "a user namespace for a pod of the runtime handler {handler:?}: the runtime (runc 1.2 and crun 1.9 can) or the \
         file system of containers' roots (Linux 5.19) cannot map ids; set hostUsers: true, or choose another handler"
    );
    Err(Error::Unimplemented { what })
}

/// What to do with a finished sandbox that has the key: its id, or `None` to ask again.
async fn settle(ctx: &Context, sandbox: &Arc<Sandbox>, fingerprint: &str) -> Result<Option<String>> {
    let status = sandbox.status();
    let same = sandbox.fingerprint == fingerprint && status.is_ready();
    if same {
        claim::claim(ctx, sandbox).await?;
        return Ok(Some(sandbox.id().to_owned()));
    }
    if !status.claimed {
        remove::remove(ctx, sandbox.id()).await?;
        return Ok(None);
    }
    let key = sandbox.meta.key();
    let detail = if status.is_ready() {
        "it was made from another configuration; stop and remove it, or use a higher attempt"
    } else if status.lost.is_some() {
        "it has lost a namespace; stop and remove it, or use a higher attempt"
    } else {
        "it is stopped; remove it, or use a higher attempt"
    };
    Err(Error::AlreadyExists {
        operation: RPC,
        name: format!("pod {}/{} (uid {}, attempt {})", key.namespace, key.name, key.uid, key.attempt),
        id: sandbox.id().to_owned(),
        detail: detail.to_owned(),
    })
}

#[async_trait]
impl Claimable for Sandbox {
    fn id(&self) -> &str {
        self.id()
    }

    fn told(&self) -> &AtomicBool {
        &self.told
    }

    fn is_claimed(&self) -> bool {
        self.status().claimed
    }

    async fn set_claimed(&self, ctx: &Context, decide: Decide) -> Result<()> {
        ctx.change_sandbox(self, |status| status.claimed = decide(&self.told)).await
    }

    async fn undo(self: Arc<Self>, ctx: &Context) -> Result<()> {
        remove::remove(ctx, self.id()).await
    }
}

/// What never changes of the new sandbox.
fn plan(
    ctx: &Context,
    config: &v1::PodSandboxConfig,
    requested: &str,
    handler: String,
) -> Result<SandboxMeta> {
    let id = id::new_id()?;
    let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
    let driver = ctx.config.runtime.cgroup_driver;
    let cgroup_parent = match parent {
        "" => cgroup::own_parent(driver, &id),
        parent => cgroup::parent(RPC, driver, parent)?,
    };
    let ours = made_cgroups(ctx);
    let is_new = |path: &std::path::Path| {
        !ctx.node.cgroup_exists(path) || ours.iter().any(|made| path.starts_with(made))
    };
    let mut meta = SandboxMeta {
        owns_cgroup_parent: parent.is_empty(),
        made_cgroup: cgroup_parent
            .ancestors()
            .filter(|path| *path != std::path::Path::new("/"))
            .take_while(|path| !parent.is_empty() && is_new(path))
            .last()
            .map(std::path::Path::to_path_buf),
        handler,
        requested_handler: requested.to_owned(),
        config: config.clone(),
        created_at: SystemTime::now(),
        cgroup_parent,
        hostname: config.hostname.clone(),
        unknown: Unknown::new(),
        id,
    };
    if meta.hostname.is_empty() {
        meta.hostname =
            if meta.host_network() { ctx.node.hostname() } else { meta.id.chars().take(12).collect() };
    }
    Ok(meta)
}

/// The cgroups that pods have made: what is in them may go before this pod, and is then this one's to remove as well.
fn made_cgroups(ctx: &Context) -> Vec<PathBuf> {
    ctx.store.sandboxes().iter().filter_map(|pod| pod.meta.made_cgroup.clone()).collect()
}

fn spawn(ctx: &Context, sandbox: Arc<Sandbox>, operation: Arc<Operation>) {
    let body = make_or_undo(ctx.clone(), sandbox.clone(), operation.clone());
    let (ctx_, operation_) = (ctx.clone(), operation.clone());
    ctx.spawn_operation(operation, body, move |outcome| {
        let made = outcome.is_ok();
        sandbox.slot.finish(&operation_, outcome);
        if made && operation_.ended_well_untold() {
            claim::unclaim(&ctx_, &sandbox);
        }
    });
}

async fn make_or_undo(ctx: Context, sandbox: Arc<Sandbox>, operation: Arc<Operation>) -> Result<()> {
    let rpc = operation.kind.rpc();
    let result = records::caught(rpc, sandbox.id(), Box::pin(make(&ctx, &sandbox, &operation))).await;
    if let Err(error) = result {
        // Before the undo, which gives back some of it.
        let error = exhausted::explain(&ctx, error);
        undo_or_owe(&ctx, &sandbox, &operation).await;
        return Err(error);
    }
    Ok(())
}

/// Takes away what was half made, now or later.
pub(crate) async fn undo_or_owe(ctx: &Context, sandbox: &Arc<Sandbox>, operation: &Operation) {
    let undo = records::caught(operation.kind.rpc(), sandbox.id(), Box::pin(undo(ctx, sandbox)));
    if let Err(error) = operation.mark("undo", undo).await {
        tracing::warn!(sandbox = sandbox.id(), error = %crate::error::chain(&error), "undo is not complete; will be retried");
        ledger::owe(ctx, Owed::Sandbox(Arc::new(sandbox.meta.clone())), &error);
    }
}

/// A daemon that dies in between must find a record that says so; a failed undo leaves that record, and
/// the ledger, or the next start, tries again.
async fn undo(ctx: &Context, sandbox: &Arc<Sandbox>) -> Result<()> {
    let unmade = ctx
        .change_sandbox(sandbox, |status| {
            status.phase = SandboxPhase::Creating;
            status.claimed = false;
        })
        .await;
    let undone = teardown::everything(ctx, sandbox).await;
    ctx.store.drop_sandbox(sandbox);
    if let (Err(error), Ok(())) = (&unmade, &undone) {
        // Nothing is left that the record would have to tell of.
        tracing::debug!(sandbox = sandbox.id(), error = %crate::error::chain(error), "its undo was not recorded");
    }
    undone
}

async fn make(ctx: &Context, sandbox: &Arc<Sandbox>, operation: &Operation) -> Result<()> {
    let mut status = (*sandbox.status()).clone();
    let record = ctx.sandbox_record(sandbox, &status);
    operation.step("sandbox.run.record", ctx.records.put_sandbox(record)).await?;
    operation.step("sandbox.run.cgroup", make_cgroup(ctx, &sandbox.meta)).await?;
    status.namespaces =
        operation.step("sandbox.run.namespaces", ctx.netns.create(&namespaces(&sandbox.meta))).await?;
    operation.step("sandbox.run.files", files::make(ctx, &sandbox.meta)).await?;
    let logs = ctx.volumes.look(vec![Lookup::Directory(log_directory(ctx, &sandbox.meta))]);
    operation.stage("sandbox.run.logs", ctx.volumes.longest(), logs).await?;
    if let Some(netns) = &status.namespaces.network {
        former_released(ctx, operation).await?;
        let plan = plan_network(ctx, &sandbox.meta, netns.as_path());
        let record = operation.stage("sandbox.run.plan", ctx.config.timeouts.network, plan).await?;
        operation.step("sandbox.run.attachment", ctx.records.put_attachment(record.clone())).await?;
        // Attaching, and on failure releasing what was half done, each with its own deadline inside.
        let timeouts = &ctx.config.timeouts;
        let deadline = timeouts.network + timeouts.release + Duration::from_secs(10);
        status.ips = operation.stage("sandbox.run.network", deadline, attach(ctx, record)).await?;
    }
    if pause::is_needed(&sandbox.meta) {
        operation
            .step("sandbox.run.pause-files", pause::prepare(ctx, &sandbox.meta, &status.namespaces))
            .await?;
        let deadline = ctx.config.timeouts.create + ctx.config.timeouts.start;
        status.pause =
            Some(operation.stage("sandbox.run.pause", deadline, pause::start(ctx, &sandbox.meta)).await?);
    }
    status.phase = SandboxPhase::Ready;
    let ready = ctx.change_sandbox(sandbox, |current| {
        status.claimed = operation.has_waiters() && !operation.is_cancelled();
        *current = status;
    });
    operation.step("sandbox.run.ready", ready).await?;
    pause::watch(ctx, sandbox);
    Ok(())
}

/// After the node restarted, what its pods had before is given back before anything new is taken: a subnet may be full
/// of it. Whatever the network does, that ends.
async fn former_released(ctx: &Context, operation: &Operation) -> Result<()> {
    if ctx.recovery.former.left() == 0 {
        return Ok(());
    }
    let patience = ctx.config.timeouts.release;
    let released = async {
        let _ = tokio::time::timeout(patience, ctx.recovery.former.none()).await;
        Ok::<_, Error>(())
    };
    operation.stage("sandbox.run.former", patience + Duration::from_secs(10), released).await
}

/// Not while the slices of a shared parent are taken away: this pod is in the store, and keeps the later ones.
async fn make_cgroup(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    let _shared = ctx.slices.read().await;
    ctx.node.create_cgroup(&meta.cgroup_parent).await.map(drop)
}

fn namespaces(meta: &SandboxMeta) -> hull_netns::CreateRequest {
    let options = meta.namespace_options();
    let own_network = options.network != v1::NamespaceMode::Node as i32;
    let own_ipc = options.ipc != v1::NamespaceMode::Node as i32;
    let sysctls = meta.config.linux.as_ref().map(|linux| linux.sysctls.clone()).unwrap_or_default();
    hull_netns::CreateRequest {
        id: meta.id.clone(),
        user: meta.users(),
        network: own_network,
        ipc: own_ipc,
        uts: own_network,
        hostname: if own_network { meta.hostname.clone() } else { String::new() },
        // Those of a namespace that is the host's have been refused.
        sysctls: sysctls.into_iter().collect(),
    }
}

/// Where the pod's containers log.
pub(crate) fn log_directory(ctx: &Context, meta: &SandboxMeta) -> PathBuf {
    match meta.config.log_directory.as_str() {
        "" => ctx.layout.default_log_dir(&meta.id),
        dir => PathBuf::from(dir),
    }
}

async fn plan_network(
    ctx: &Context,
    meta: &SandboxMeta,
    netns: &std::path::Path,
) -> Result<AttachmentRecord> {
    if let NetworkStatus::NotReady { reason, message } = ctx.network.status() {
        return Err(hull_pod_network::Error::NotReady { reason, message }.into());
    }
    let wanted = request::attach_request(&meta.id, &meta.config, netns)?;
    release::refuse_held_ports(ctx, &wanted.port_mappings)?;
    let attachment = ctx.network.plan(&wanted).await?;
    let boot_id = ctx.node.boot_id().to_owned();
    Ok(AttachmentRecord { boot_id, attachment, releasing: false, unknown: Unknown::new() })
}

async fn attach(ctx: &Context, record: AttachmentRecord) -> Result<Vec<std::net::IpAddr>> {
    match ctx.network.attach(&record.attachment).await {
        Ok(attached) => Ok(attached.ips),
        Err(error) => {
            if let hull_pod_network::Error::Attach { released, .. } = &error {
                match released {
                    None => ctx.records.delete_attachment(&record.attachment.sandbox_id).await?,
                    Some(failure) => {
                        let why = Error::io("release", std::io::Error::other(failure.to_string()));
                        release::later(ctx, record, &why).await;
                    }
                }
            }
            Err(error.into())
        }
    }
}

/// The namespaces that a sandbox of an earlier daemon should have.
pub(crate) fn expects_namespaces(meta: &SandboxMeta) -> bool {
    let request = namespaces(meta);
    request.user.is_some() || request.network || request.ipc || request.uts
}

/// The kinds of namespaces that the pod was given and that are not pinned any more.
pub(crate) fn missing(meta: &SandboxMeta, found: &PodNamespaces) -> Vec<&'static str> {
    let wanted = namespaces(meta);
    let kinds = [
        ("user", wanted.user.is_some(), found.user.is_some()),
        ("network", wanted.network, found.network.is_some()),
        ("ipc", wanted.ipc, found.ipc.is_some()),
        ("uts", wanted.uts, found.uts.is_some()),
    ];
    kinds.into_iter().filter(|(_, wanted, found)| *wanted && !found).map(|(kind, ..)| kind).collect()
}
