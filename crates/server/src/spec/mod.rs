// SPDX-License-Identifier: Apache-2.0
//! Makes the OCI `config.json` of a container.
//!
//! ```text
//!   I/O before, each bounded by its caller                pure
//!   ------------------------------------------            -----------------------------
//!   user::resolve_user       /etc/passwd in the root  \
//!   mounts::find_host_path   host paths, by `volume`   >  SpecInput --> generate --> Spec
//!   devices::find_devices    device nodes, as well    /
//!   cdi::resolve             CDI files, device nodes
//!   facts::NodeFacts         once, at start
//! ```
//!
//! [`generate`] reads nothing but its input, so every rule is tested as a table. A request that
//! cannot be honoured is refused by name ([`SpecError::Unsupported`]), never half honoured.

mod apparmor;
pub mod capabilities;
pub mod cdi;
pub mod devices;
pub mod env;
mod error;
pub mod facts;
pub mod mounts;
pub mod namespaces;
pub mod paths;
pub mod pause;
mod policy;
pub mod process;
pub mod resources;
pub mod rlimits;
pub mod seccomp;
mod seccomp_profile;
#[cfg(test)]
mod snapshot_tests;

#[cfg(test)]
mod node_snapshot_tests;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod unsupported;
pub mod update;
pub mod user;
pub mod userns;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use hull_image_store::ImageConfig;
use hull_netns::PodNamespaces;
use oci_spec::runtime::{Capability, Linux, Root, Spec};

pub use devices::{ResolvedDevice, find_devices, resolve_devices};
pub use error::SpecError;
pub use facts::{Arch, HandlerFacts, NodeFacts};
pub use mounts::{Propagation, ResolvedMount, check_mounts, make_volumes, resolve_mounts};
pub use pause::{PauseInput, pause_spec};
pub use policy::{HandlerPolicy, KeyPattern};
pub use process::exec_process;
pub use user::{GroupsPolicy, ResolvedUser, UserRequest, resolve_user};

/// The version written to `ociVersion`: every runtime in use takes it (crun 1.8 takes nothing newer than 1.1).
pub const OCI_VERSION: &str = "1.0.2";

/// The annotation that holds the pod sandbox's id.
pub const SANDBOX_ID_ANNOTATION: &str = "io.hull.sandbox-id";
/// The annotation that holds the container's name in its pod.
pub const CONTAINER_NAME_ANNOTATION: &str = "io.hull.container-name";

/// Everything a container's spec is made from.
#[derive(Debug, Clone, Copy)]
pub struct SpecInput<'a> {
    /// What the kubelet wants.
    pub container: &'a v1::ContainerConfig,
    /// The pod it is for.
    pub sandbox: &'a v1::PodSandboxConfig,
    /// What the image says.
    pub image: &'a ImageConfig,
    /// The container's id.
    pub container_id: &'a str,
    /// The pod sandbox's id.
    pub sandbox_id: &'a str,
    /// The container's root on the host, mounted.
    pub rootfs: &'a Path,
    /// The pod's pinned namespaces: the truth about what the pod shares with the host.
    pub namespaces: &'a PodNamespaces,
    /// The pod's files and its /dev/shm.
    pub files: &'a PodFiles,
    /// The pod's hostname, for `HOSTNAME`; the node's for a pod on the host's network.
    pub hostname: &'a str,
    /// Host pid of the process whose PID namespace is joined: the pod's pause for mode POD, the target's
    /// first process for TARGET (see [`namespaces::pid_namespace`]). Not looked at otherwise.
    pub join_pid: Option<i32>,
    /// Who the process is, from [`resolve_user`].
    pub user: &'a ResolvedUser,
    /// The container's cgroup: absolute, below each hierarchy's root. `linux.cgroupsPath` is made of it.
    pub cgroups_path: &'a Path,
    /// The container's mounts, from [`resolve_mounts`].
    pub mounts: &'a [ResolvedMount],
    /// The container's devices, from [`resolve_devices`].
    pub devices: &'a [ResolvedDevice],
    /// What the devices of vendors need, from [`cdi::resolve`]; demanded when [`cdi::requested`] names some.
    pub cdi: Option<&'a cdi::Edits>,
    /// The parsed document of a Localhost seccomp profile; demanded when [`seccomp::localhost_path`] names one.
    pub seccomp_localhost: Option<&'a seccomp::LocalhostProfile>,
    /// The AppArmor profile of containers that do not name one.
    pub apparmor_default: Option<&'a str>,
    /// Capabilities before the container's own adds and drops.
    pub default_capabilities: &'a [Capability],
    /// Limits of its processes, from [`rlimits::within_reach`].
    pub rlimits: &'a [rlimits::Rlimit],
    /// The most processes of the container; `None`: no limit of its own.
    pub pids_limit: Option<u32>,
    /// What this machine and this daemon can do.
    pub facts: &'a NodeFacts,
    /// What the OCI runtime can do.
    pub handler: &'a HandlerFacts,
    /// What the administrator lets the handler's containers do.
    pub policy: &'a HandlerPolicy,
}

/// Files made once for a pod and mounted into each of its containers. `None`: there is nothing to mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFiles {
    /// For `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// For `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// For `/etc/hosts`: the host's own, for a pod on the host's network; the kubelet makes the others.
    pub hosts: Option<PathBuf>,
    /// For `/dev/shm`: the pod's tmpfs, or the host's for a pod in the host's ipc namespace.
    pub shm: Option<PathBuf>,
}

/// Makes a container's spec.
///
/// Errors: [`SpecError::Invalid`] for what can never work, [`SpecError::Unsupported`] for what Hull or
/// this node does not do.
pub fn generate(input: &SpecInput<'_>) -> Result<Spec, SpecError> {
    unsupported::refuse(input)?;
    let users = userns::of_pod(input.sandbox);
    userns::check(input, users.as_ref())?;
    let security = security_context(input.container);
    let privileged = privileged(input)?;
    let capabilities = capabilities::of_container(input, privileged)?;
    let mounts = mounts::container_mounts(input, privileged, users.as_ref())?;

    let mut linux = bare_linux();
    linux
        .set_cgroups_path(Some(cgroups_path(input.cgroups_path)?))
        .set_namespaces(Some(namespaces::container_namespaces(input, privileged)?))
        .set_resources(Some(resources::container_resources(input, privileged)?))
        .set_devices(devices::nodes(input.devices))
        .set_seccomp(seccomp::of_container(input, privileged, &capabilities)?)
        .set_rootfs_propagation(mounts::rootfs_propagation(input.mounts).map(str::to_owned))
        .set_masked_paths(paths::masked(security, privileged)?)
        .set_readonly_paths(paths::readonly(security, privileged)?);

    let mut root = Root::default();
    root.set_path(absolute("rootfs", input.rootfs)?)
        .set_readonly(security.is_some_and(|it| it.readonly_rootfs).then_some(true));

    let mut spec = bare_spec(root, linux);
    spec.set_process(Some(process::container_process(input, capabilities)?))
        .set_mounts(Some(mounts))
        .set_annotations(Some(annotations(input)));
    match input.cdi {
        Some(edits) => cdi::apply(&mut spec, edits, privileged),
        None if cdi::requested(input.container)?.is_empty() => {}
        // A caller's mistake that would drop a device without a word.
        None => return Err(SpecError::invalid("CDI_devices", "not every device has been resolved")),
    }
    Ok(spec)
}

/// The container's Linux security context.
fn security_context(container: &v1::ContainerConfig) -> Option<&v1::LinuxContainerSecurityContext> {
    container.linux.as_ref()?.security_context.as_ref()
}

/// The sandbox's Linux security context.
fn sandbox_security_context(sandbox: &v1::PodSandboxConfig) -> Option<&v1::LinuxSandboxSecurityContext> {
    sandbox.linux.as_ref()?.security_context.as_ref()
}

/// Whether the container is privileged. Only a pod that was admitted as privileged may hold one.
fn privileged(input: &SpecInput<'_>) -> Result<bool, SpecError> {
    let wanted = security_context(input.container).is_some_and(|it| it.privileged);
    if wanted && !sandbox_security_context(input.sandbox).is_some_and(|it| it.privileged) {
        let problem = "no privileged container is allowed in a pod sandbox that is not privileged";
        return Err(SpecError::invalid("linux.security_context.privileged", problem));
    }
    Ok(wanted)
}

/// The annotations of the pod and of the container that the handler may be given, the container's before the pod's, and
/// Hull's own, which nothing replaces.
fn annotations(input: &SpecInput<'_>) -> HashMap<String, String> {
    let given = input.sandbox.annotations.iter().chain(&input.container.annotations);
    let allowed = given.filter(|(key, _)| input.policy.allows(key));
    let mut all: HashMap<String, String> = allowed.map(|(key, value)| (key.clone(), value.clone())).collect();
    all.insert(SANDBOX_ID_ANNOTATION.to_owned(), input.sandbox_id.to_owned());
    let name = input.container.metadata.as_ref().map(|it| it.name.clone()).unwrap_or_default();
    all.insert(CONTAINER_NAME_ANNOTATION.to_owned(), name);
    all.extend(systemd_annotation(input.cgroups_path));
    all
}

/// A spec with nothing but what is given; the library's own defaults are not ours.
fn bare_spec(root: Root, linux: Linux) -> Spec {
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_mounts(None)
        .set_process(None)
        .set_hostname(None)
        .set_domainname(None)
        .set_hooks(None)
        .set_annotations(None)
        .set_linux(Some(linux));
    spec
}

/// A `linux` object without the library's defaults.
fn bare_linux() -> Linux {
    let mut linux = Linux::default();
    linux
        .set_uid_mappings(None)
        .set_gid_mappings(None)
        .set_sysctl(None)
        .set_resources(None)
        .set_cgroups_path(None)
        .set_namespaces(None)
        .set_devices(None)
        .set_seccomp(None)
        .set_rootfs_propagation(None)
        .set_masked_paths(None)
        .set_readonly_paths(None)
        .set_mount_label(None);
    linux
}

fn cgroups_path(path: &Path) -> Result<PathBuf, SpecError> {
    let path = absolute("cgroups path", path)?;
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(SpecError::invalid("linux.cgroup_parent", "must not contain \"..\""));
    }
    Ok(crate::cgroup::for_runtime(&path))
}

/// For a container that systemd manages: crun would put its processes one level deeper than runc does, where
/// nobody looks for them.
fn systemd_annotation(cgroup: &Path) -> Option<(String, String)> {
    crate::cgroup::is_systemd(cgroup).then(|| ("run.oci.systemd.subgroup".to_owned(), String::new()))
}

fn absolute(what: &'static str, path: &Path) -> Result<PathBuf, SpecError> {
    if !path.is_absolute() {
        return Err(SpecError::invalid(what, format!("{} is not an absolute path", path.display())));
    }
    Ok(path.to_owned())
}
