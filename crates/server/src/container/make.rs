// SPDX-License-Identifier: Apache-2.0
//! Making a container, stage by stage.
//!
//! ```text
//! record -> the pod's ground -> files -> root -> user -> spec -> cgroups -> monitor (runtime create) -> limits -> created
//!    |                                                     |--program cannot be run------------^ without a process
//!    |____________ any other failure: teardown of everything, by id ______________|
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hull_conmon_client::Stdio;
use hull_cri_api::v1;
use hull_failpoint::failpoint;
use hull_files::{PRIVATE_DIR, PRIVATE_FILE};
use hull_image_store::{Image, RootRequest};
use hull_netns::UserMappings;
use oci_spec::runtime::Spec;

use crate::cgroup;
use crate::container::{teardown, watch};
use crate::context::{Context, Handler};
use crate::error::{Error, Result, chain};
use crate::exhausted;
use crate::layout::{gate, own_dir};
use crate::ledger::{self, Owed};
use crate::model::{ContainerMeta, ContainerPhase, ContainerStatus, SandboxMeta, StartFailure, User};
use crate::operation::Operation;
use crate::records::{self, blocking};
use crate::sandbox::{ground, pause};
use crate::spec::seccomp::LocalhostProfile;
use crate::spec::{self, HandlerFacts, PodFiles, ResolvedDevice, ResolvedMount, SpecInput};
use crate::store::{Container, Sandbox};
use crate::volume::{Found, Lookup};

const RPC: &str = "CreateContainer";

pub(crate) async fn make_or_undo(
    ctx: Context,
    sandbox: Arc<Sandbox>,
    container: Arc<Container>,
    operation: Arc<Operation>,
) -> Result<()> {
    let rpc = operation.kind.rpc();
    let result =
        records::caught(rpc, container.id(), Box::pin(make(&ctx, &sandbox, &container, &operation))).await;
    if let Err(error) = result {
        // Before the undo, which gives back some of it.
        let error = exhausted::explain(&ctx, error);
        undo_or_owe(&ctx, &container, &operation).await;
        return Err(error);
    }
    Ok(())
}

/// Takes away what was half made, now or later.
pub(crate) async fn undo_or_owe(ctx: &Context, container: &Arc<Container>, operation: &Operation) {
    let undo = records::caught(operation.kind.rpc(), container.id(), Box::pin(undo(ctx, container)));
    if let Err(error) = operation.mark("undo", undo).await {
        tracing::warn!(container = container.id(), error = %crate::error::chain(&error), "undo is not complete; will be retried");
        ledger::owe(ctx, Owed::Container(Arc::new(container.meta.clone())), &error);
    }
}

/// A daemon that dies in between must find a record that says so; a failed undo leaves that record, and
/// the ledger, or the next start, tries again.
async fn undo(ctx: &Context, container: &Arc<Container>) -> Result<()> {
    let unmade = ctx
        .change_container(container, |status| {
            status.phase = ContainerPhase::Creating;
            status.claimed = false;
        })
        .await;
    let undone = teardown::everything(ctx, container).await;
    ctx.store.drop_container(container);
    if let (Err(error), Ok(())) = (&unmade, &undone) {
        // Nothing is left that the record would have to tell of.
        tracing::debug!(container = container.id(), error = %crate::error::chain(error), "its undo was not recorded");
    }
    undone
}

async fn make(
    ctx: &Context,
    sandbox: &Arc<Sandbox>,
    container: &Arc<Container>,
    operation: &Operation,
) -> Result<()> {
    let meta = &container.meta;
    let mut status = (*container.status()).clone();
    let (_, handler) = ctx.handler(RPC, &meta.handler)?;
    let image = ctx
        .images
        .find(&meta.image_id)?
        .ok_or_else(|| Error::NotFound { kind: "image", id: meta.image_name.clone() })?;

    let (_, group) = ctx.owner(&sandbox.meta);
    let record = ctx.container_record(container, &status);
    operation.step("container.create.record", ctx.records.put_container(record)).await?;
    operation.step("container.create.ground", ground::restore(ctx, sandbox)).await?;
    operation.step("container.create.files", files(ctx, meta, group)).await?;
    let userns = sandbox.status().namespaces.user.clone();
    let root = RootRequest {
        image_id: image.id.clone(),
        dir: ctx.layout.container_dir(&meta.id),
        userns: userns.clone(),
    };
    let rootfs = operation.step("container.create.root", ctx.images.prepare_root(&root)).await?;
    let images = match meta.image_mounts.is_empty() {
        true => HashMap::new(),
        false => operation.step("container.create.images", image_mounts(ctx, meta, userns, group)).await?,
    };
    // Looks at volumes, which may hang, and makes nothing that an undo would have to know.
    let volumes = ctx.volumes.longest();
    let roots = Roots { own: rootfs, images };
    let made =
        operation.stage("container.create.spec", volumes, spec_of(ctx, sandbox, meta, image, roots)).await?;
    status.user = Some(made.user);
    operation.step("container.create.bundle", write_bundle(ctx, meta, made.spec)).await?;
    operation.step("container.create.cgroups", cgroups(ctx, meta)).await?;
    let deadline = ctx.config.timeouts.create;
    let create = monitor_request(ctx, meta, handler, deadline);
    // The monitor ends what it started by itself at the deadline; ours is the backstop.
    let backstop = deadline + Duration::from_secs(15);
    match operation.stage("container.create.monitor", backstop, handler.monitor.create(&create)).await {
        Ok(monitored) => {
            status.monitored = Some(monitored);
            give_streams(ctx, &sandbox.meta, &status).await;
            operation.step("container.create.limits", ctx.node.tell_limits(&meta.cgroup)).await?;
        }
        Err(error) => {
            status.unstartable = Some(unstartable(error)?);
            operation.step("container.create.unstartable", teardown::programs(ctx, meta, None)).await?;
        }
    }
    status.phase = ContainerPhase::Created;
    let created = ctx.change_container(container, |current| {
        status.claimed = operation.has_waiters() && !operation.is_cancelled();
        *current = status;
    });
    operation.step("container.create.created", created).await?;
    if !sandbox.is_ready() {
        return Err(Error::FailedPrecondition {
            operation: RPC,
            id: sandbox.id().to_owned(),
            problem: sandbox.status().why_not_ready(),
        });
    }
    watch::spawn(ctx, container);
    Ok(())
}

/// A program that cannot be run is for the start to tell, which the kubelet takes for an end of the container; what
/// fails a creation it tries again for ever. Every other error stays one.
fn unstartable(error: Error) -> Result<StartFailure> {
    if let Error::Step { cause, .. } = &error
        && let Error::Monitor(hull_conmon_client::Error::Program { .. }) = &**cause
    {
        return Ok(StartFailure { message: chain(&**cause) });
    }
    Err(error)
}

/// In a user namespace the runtime cannot give them to the process. One that never opens them by name does well without.
async fn give_streams(ctx: &Context, sandbox: &SandboxMeta, status: &ContainerStatus) {
    let (Some(users), Some(user), Some(monitored)) = (sandbox.users(), &status.user, &status.monitored)
    else {
        return;
    };
    let owner = |id: i64, host: fn(&UserMappings, u32) -> Option<u32>| {
        u32::try_from(id).ok().and_then(|id| host(&users, id))
    };
    let uid = owner(user.uid, UserMappings::host_uid);
    let gid = owner(user.gid, UserMappings::host_gid);
    let (Some(uid), Some(gid)) = (uid, gid) else { return };
    let pid = monitored.process.pid;
    if let Err(error) = ctx.node.give_streams(pid, (uid, gid)).await {
        tracing::warn!(pid, error = %crate::error::chain(&error), "the container cannot open /dev/stdout by name");
    }
}

async fn files(ctx: &Context, meta: &ContainerMeta, group: u32) -> Result<()> {
    let bundle = ctx.layout.container_dir(&meta.id);
    let run = ctx.layout.container_run_dir(&meta.id);
    // One that the request names is its owner's affair, and is made with the host paths.
    let default = ctx.layout.default_log_dir(&meta.sandbox_id);
    let logs = meta.log_path.ancestors().skip(1).take_while(|dir| dir.starts_with(&default));
    let logs: Vec<PathBuf> = logs.map(Path::to_owned).collect();
    blocking(move || {
        let io = |path: &Path| {
            let context = format!("make directory {}", path.display());
            move |e| Error::io(context, e)
        };
        failpoint!("container.files.mkdir").map_err(io(&bundle))?;
        gate(&bundle, group).map_err(io(&bundle))?;
        own_dir(&run, PRIVATE_DIR).map_err(io(&run))?;
        logs.iter().rev().try_for_each(|dir| own_dir(dir, PRIVATE_DIR).map_err(io(dir)))
    })
    .await
}

/// Where file systems of images are mounted on the host.
struct Roots {
    own: PathBuf,
    /// By the number of the mount.
    images: HashMap<usize, PathBuf>,
}

/// Images as volumes: roots as containers have them, which are bound read-only, so that nothing is ever written
/// into their upper directories.
async fn image_mounts(
    ctx: &Context,
    meta: &ContainerMeta,
    userns: Option<PathBuf>,
    group: u32,
) -> Result<HashMap<usize, PathBuf>> {
    let gates: Vec<PathBuf> = std::iter::once(ctx.layout.image_mounts(&meta.id))
        .chain(meta.image_mounts.iter().map(|mount| ctx.layout.image_mount(&meta.id, mount.index)))
        .collect();
    blocking(move || {
        let io = |dir: &Path, e| Error::io(format!("make directory {}", dir.display()), e);
        gates.iter().try_for_each(|dir| gate(dir, group).map_err(|e| io(dir, e)))
    })
    .await?;
    let mut roots = HashMap::new();
    for mount in &meta.image_mounts {
        let dir = ctx.layout.image_mount(&meta.id, mount.index);
        let root = RootRequest { image_id: mount.image_id.clone(), dir, userns: userns.clone() };
        roots.insert(mount.index, ctx.images.prepare_root(&root).await?);
    }
    Ok(roots)
}

struct Made {
    spec: Spec,
    user: User,
}

/// Everything the spec needs from the node, then the spec. A dead file server costs this operation its deadline, and
/// nobody else anything.
async fn spec_of(
    ctx: &Context,
    sandbox: &Arc<Sandbox>,
    meta: &ContainerMeta,
    image: Arc<Image>,
    roots: Roots,
) -> Result<Made> {
    let join_pid = join_pid(ctx, sandbox, meta)?;
    let handler = can(ctx, meta).await;
    let users = sandbox.meta.users();
    let checked = spec::check_mounts(&meta.config.mounts, users.as_ref(), ctx.node.facts(), &handler)?;
    let looked = look(ctx, meta, &checked).await?;
    let (ctx, sandbox, meta) = (ctx.clone(), sandbox.clone(), meta.clone());
    blocking(move || {
        let facts = ctx.node.facts();
        let config = &meta.config;
        let want = spec::UserRequest::new(config, &image.config)?;
        let user = spec::resolve_user(&roots.own, want)?;
        let mounts = spec::resolve_mounts(&config.mounts, checked, looked.host_paths, &roots.images)?;
        spec::make_volumes(&roots.own, &image.config.volumes, ctx.owner(&sandbox.meta))?;
        let privileged = config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref())
            .is_some_and(|context| context.privileged);
        let devices = spec::resolve_devices(looked.devices, privileged)?;
        let cdi = match spec::cdi::requested(config)? {
            names if names.is_empty() => None,
            names => Some(spec::cdi::resolve(&names, &ctx.config.containers.cdi_spec_dirs)?),
        };
        let pod = sandbox.status();
        let spec = spec::generate(&SpecInput {
            container: config,
            sandbox: &sandbox.meta.config,
            image: &image.config,
            container_id: &meta.id,
            sandbox_id: sandbox.id(),
            rootfs: &roots.own,
            namespaces: &pod.namespaces,
            files: &pod_files(&ctx, &sandbox),
            hostname: &sandbox.meta.hostname,
            join_pid,
            user: &user,
            cgroups_path: &meta.cgroup,
            mounts: &mounts,
            devices: &devices,
            cdi: cdi.as_ref(),
            seccomp_localhost: looked.profile.as_ref(),
            apparmor_default: ctx.config.containers.apparmor_profile.as_deref(),
            default_capabilities: &ctx.config.containers.default_capabilities,
            rlimits: &ctx.rlimits,
            pids_limit: ctx.config.containers.pids_limit,
            facts,
            handler: &handler,
            policy: ctx.policy(&meta.handler),
        })?;
        let user = User {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user.groups.iter().copied().map(i64::from).collect(),
        };
        Ok::<_, Error>(Made { spec, user })
    })
    .await
}

/// What the request's paths lead to. The directory of its log is there.
struct Looked {
    host_paths: Vec<PathBuf>,
    devices: Vec<Vec<ResolvedDevice>>,
    profile: Option<LocalhostProfile>,
}

async fn look(ctx: &Context, meta: &ContainerMeta, checked: &[ResolvedMount]) -> Result<Looked> {
    let config = &meta.config;
    let never_made = &ctx.config.containers.host_paths_not_made;
    let host_paths = config.mounts.iter().zip(checked).filter(|(asked, _)| !spec::mounts::is_image(asked));
    let host_paths = host_paths.map(|(_, mount)| Lookup::HostPath {
        path: mount.source.clone(),
        make: !never_made.contains(&mount.source),
    });
    let profile = spec::seccomp::localhost_path(config)?;
    let devices = config.devices.iter().map(Lookup::device);
    let logs = meta.log_path.parent().map(|logs| Lookup::Directory(logs.to_owned()));
    let logs = logs.into_iter().chain([Lookup::LogFile(meta.log_path.clone())]);
    let lookups = host_paths.chain(devices).chain(profile.clone().map(Lookup::Profile)).chain(logs).collect();
    let mut looked = Looked { host_paths: Vec::new(), devices: Vec::new(), profile: None };
    for found in ctx.volumes.look(lookups).await? {
        match found {
            Found::Path(path) => looked.host_paths.push(path),
            Found::Devices(devices) => looked.devices.push(devices),
            Found::Text(text) => {
                let path = profile.as_deref().unwrap_or(Path::new(""));
                looked.profile = Some(LocalhostProfile::parse(path, text.as_bytes())?);
            }
            Found::Directory | Found::LogFile | Found::Answer => {}
        }
    }
    Ok(looked)
}

/// What the handler can do. Only a container that asks for what not every runtime can waits for the answer.
async fn can(ctx: &Context, meta: &ContainerMeta) -> HandlerFacts {
    let asks = |mount: &v1::Mount| mount.recursive_read_only || !mount.uid_mappings.is_empty();
    if meta.config.mounts.iter().any(asks) {
        return ctx.probes.answered(&meta.handler).await;
    }
    ctx.probes.facts(&meta.handler)
}

/// The process whose pid namespace the container joins.
fn join_pid(ctx: &Context, sandbox: &Sandbox, meta: &ContainerMeta) -> Result<Option<i32>> {
    use spec::namespaces::{PidNamespace, pid_namespace};
    match pid_namespace(&meta.config, &sandbox.meta.config)? {
        PidNamespace::Container | PidNamespace::Host => Ok(None),
        PidNamespace::Pod => {
            let intact = pause::is_intact(ctx, sandbox);
            let pause = sandbox.status().pause.as_ref().filter(|_| intact).map(|pause| pause.process.pid);
            pause.map(Some).ok_or_else(|| Error::FailedPrecondition {
                operation: RPC,
                id: sandbox.id().to_owned(),
                problem: "the pod's shared pid namespace has ended".to_owned(),
            })
        }
        PidNamespace::Target(id) => {
            let target = ctx.store.container(&id)?.filter(|target| target.meta.sandbox_id == meta.sandbox_id);
            let target = target
                .ok_or_else(|| Error::NotFound { kind: "target container in this pod", id: id.clone() })?;
            let status = target.status();
            let running = status.phase == ContainerPhase::Running;
            let pid = status.monitored.as_ref().filter(|_| running).map(|monitored| monitored.process.pid);
            pid.map(Some).ok_or_else(|| Error::FailedPrecondition {
                operation: RPC,
                id,
                problem: "the target container is not running".to_owned(),
            })
        }
    }
}

fn pod_files(ctx: &Context, sandbox: &Sandbox) -> PodFiles {
    let options = sandbox.meta.namespace_options();
    let host_ipc = options.ipc == v1::NamespaceMode::Node as i32;
    // A pod that an earlier version made has them elsewhere.
    let here = |path: PathBuf, name: &str| match path.exists() {
        true => Some(path),
        false => Some(ctx.layout.former_pod_file(sandbox.id(), name)).filter(|path| path.exists()),
    };
    PodFiles {
        resolv_conf: here(ctx.layout.resolv_conf(sandbox.id()), "resolv.conf"),
        hostname: here(ctx.layout.hostname(sandbox.id()), "hostname"),
        hosts: here(ctx.layout.hosts(sandbox.id()), "hosts").or_else(|| {
            // An earlier version wrote none for pods on the host's network. It is mounted read-only.
            let node = sandbox.meta.host_network().then(|| PathBuf::from("/etc/hosts"));
            node.filter(|path| path.exists())
        }),
        shm: Some(if host_ipc { PathBuf::from("/dev/shm") } else { ctx.layout.shm(sandbox.id()) }),
    }
}

async fn write_bundle(ctx: &Context, meta: &ContainerMeta, spec: Spec) -> Result<()> {
    let path = ctx.layout.container_dir(&meta.id).join("config.json");
    blocking(move || {
        let context = || format!("write {}", path.display());
        failpoint!("container.bundle.write").map_err(|e| Error::io(context(), e))?;
        let bytes = serde_json::to_vec(&spec).map_err(|e| Error::io(context(), e.into()))?;
        hull_files::write(&path, &bytes, PRIVATE_FILE).map_err(|e| Error::io(context(), e))
    })
    .await
}

/// The pod's cgroup may have been removed behind our back; the container's own is the runtime's to make.
async fn cgroups(ctx: &Context, meta: &ContainerMeta) -> Result<()> {
    ctx.node.create_cgroup(&meta.monitor_cgroup).await.map(|_| ())
}

/// How a container's standard streams are made.
pub(crate) fn stdio(config: &v1::ContainerConfig) -> Stdio {
    Stdio { terminal: config.tty, stdin: config.stdin, stdin_once: config.stdin_once }
}

fn monitor_request(
    ctx: &Context,
    meta: &ContainerMeta,
    handler: &Handler,
    deadline: Duration,
) -> hull_conmon_client::CreateRequest {
    let command = handler.runtime.create_command(&hull_oci_runtime::CreateRequest {
        id: meta.id.clone(),
        bundle: ctx.layout.container_dir(&meta.id),
        systemd_cgroup: cgroup::is_systemd(&meta.cgroup),
    });
    hull_conmon_client::CreateRequest {
        command,
        name: meta.config.metadata.as_ref().map_or_else(String::new, |metadata| metadata.name.clone()),
        state_dir: ctx.layout.container_run_dir(&meta.id),
        log_path: Some(meta.log_path.clone()),
        stdio: stdio(&meta.config),
        monitor_cgroup: Some(meta.monitor_cgroup.clone()),
        deadline,
    }
}
