// SPDX-License-Identifier: Apache-2.0
//! The spec of a pod's pause: the first process of a PID namespace that the pod's containers share.
//!
//! It holds nothing and can do nothing: one program on a read-only root, no capabilities, no new
//! privileges, the built-in system call filter, no environment but a path. A container that looks at `/proc/1/root` of its
//! pod finds an empty house (and may not even look: the program is not dumpable).

use std::collections::HashMap;
use std::path::Path;

use hull_cgroups::Mode;
use hull_netns::{IdMapping, PodNamespaces, UserMappings};
use oci_spec::runtime::{LinuxCpu, LinuxNamespaceType, LinuxResources, Root, Spec, User};

use super::mounts::mount;
use super::namespaces::namespace;
use super::{
    HandlerPolicy, NodeFacts, SANDBOX_ID_ANNOTATION, SpecError, absolute, bare_linux, bare_spec,
    capabilities, cgroups_path, devices, process, resources, seccomp, systemd_annotation,
};

/// The program's path in the pause's root; see [`crate::pause::write_root`].
pub const PAUSE_PROGRAM: &str = "/pause";

/// Nobody: the pause needs no file of its own.
const NOBODY: u32 = 65534;

/// Everything a pause's spec is made from.
#[derive(Debug, Clone, Copy)]
pub struct PauseInput<'a> {
    /// The pod sandbox's id.
    pub sandbox_id: &'a str,
    /// The root that [`crate::pause::write_root`] made; all pods may share it.
    pub rootfs: &'a Path,
    /// The pod's pinned namespaces.
    pub namespaces: &'a PodNamespaces,
    /// The ids of the pod's own user namespace.
    pub users: Option<&'a UserMappings>,
    /// The pause's cgroup.
    pub cgroups_path: &'a Path,
    /// What this machine and this daemon can do.
    pub facts: &'a NodeFacts,
    /// Whether the OCI runtime has seccomp; without, the pause runs unfiltered.
    pub seccomp: bool,
}

/// Makes the pause's spec.
pub fn pause_spec(input: &PauseInput<'_>) -> Result<Spec, SpecError> {
    let pinned = input.namespaces;
    let mut namespaces: Vec<_> =
        pinned.user.iter().map(|path| namespace(LinuxNamespaceType::User, Some(path))).collect();
    namespaces.extend([LinuxNamespaceType::Mount, LinuxNamespaceType::Pid].map(|kind| namespace(kind, None)));
    for (kind, path) in [
        (LinuxNamespaceType::Network, pinned.network.as_ref().map(|it| it.as_path())),
        (LinuxNamespaceType::Ipc, pinned.ipc.as_deref()),
        (LinuxNamespaceType::Uts, pinned.uts.as_deref()),
    ] {
        namespaces.extend(path.map(|path| namespace(kind, Some(path))));
    }
    if input.facts.cgroup == Mode::V2 {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }

    let filter = match input.seccomp {
        true => {
            Some(seccomp::runtime_default(&capabilities::none(), input.facts, &HandlerPolicy::default())?)
        }
        false => None,
    };
    let mut linux = bare_linux();
    linux
        .set_cgroups_path(Some(cgroups_path(input.cgroups_path)?))
        .set_namespaces(Some(namespaces))
        .set_resources(Some(pause_resources()))
        .set_seccomp(filter);

    let mut user = User::default();
    let (uid, gid) = nobody(input.users);
    user.set_uid(uid).set_gid(gid);
    let mut process = process::bare_process(vec![PAUSE_PROGRAM.to_owned()], "/".into());
    process
        .set_user(user)
        // youki does not start a process without one, wherever its program is.
        .set_env(Some(vec!["PATH=/".to_owned()]))
        .set_capabilities(Some(capabilities::none()))
        .set_no_new_privileges(Some(true))
        // The kubelet's value for a pod's own process: the last to be killed when memory runs out.
        .set_oom_score_adj(Some(process::oom_score_adj(-998, input.facts)?));

    let mut root = Root::default();
    root.set_path(absolute("pause root", input.rootfs)?).set_readonly(Some(true));
    let mut spec = bare_spec(root, linux);
    spec.set_process(Some(process))
        .set_mounts(Some(vec![
            // Runtimes need these two to set a container up; nothing in it does.
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"]),
        ]))
        .set_annotations(Some(annotations(input)));
    Ok(spec)
}

/// Nobody, or in a user namespace that is too small to have one, the last of those that it has.
fn nobody(users: Option<&UserMappings>) -> (u32, u32) {
    let last = |mappings: &[IdMapping]| {
        let ends = mappings.iter().map(|it| it.container_id.saturating_add(it.length).saturating_sub(1));
        ends.max().unwrap_or(NOBODY)
    };
    let Some(users) = users else { return (NOBODY, NOBODY) };
    (
        users.host_uid(NOBODY).map_or_else(|| last(&users.uids), |_| NOBODY),
        users.host_gid(NOBODY).map_or_else(|| last(&users.gids), |_| NOBODY),
    )
}

fn annotations(input: &PauseInput<'_>) -> HashMap<String, String> {
    let id = (SANDBOX_ID_ANNOTATION.to_owned(), input.sandbox_id.to_owned());
    std::iter::once(id).chain(systemd_annotation(input.cgroups_path)).collect()
}

/// No devices, and the least share of the processor.
fn pause_resources() -> LinuxResources {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(2));
    let mut limits = resources::devices_only(devices::rules(&[], false));
    limits.set_cpu(Some(cpu));
    limits
}
