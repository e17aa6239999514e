// SPDX-License-Identifier: Apache-2.0
//! Which namespaces a container has of its own, shares with its pod, or with the host.
//!
//! | kind    | where it comes from                                                              |
//! |---------|----------------------------------------------------------------------------------|
//! | user, network, ipc, uts | the pod's pinned ones; what the pod has not pinned is the host's        |
//! | pid     | [`pid_namespace`]                                                                |
//! | mount   | always its own                                                                   |
//! | cgroup  | its own on cgroup v2, unless privileged                                          |

use std::path::{Path, PathBuf};

use hull_cgroups::Mode;
use hull_cri_api::v1;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use super::{SpecError, SpecInput, sandbox_security_context, security_context};

/// Where a container's PID namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PidNamespace {
    /// The one that the pod's containers share; its first process is the pod's pause.
    Pod,
    /// One of its own.
    Container,
    /// The host's.
    Host,
    /// That of the container with this id.
    Target(String),
}

const FIELD_PID: &str = "linux.security_context.namespace_options.pid";

/// Where the container's PID namespace comes from. POD, which is also what an absent message says,
/// means: as the pod. Who fills [`SpecInput::join_pid`] asks this.
pub fn pid_namespace(
    container: &v1::ContainerConfig,
    sandbox: &v1::PodSandboxConfig,
) -> Result<PidNamespace, SpecError> {
    let own = security_context(container).and_then(|it| it.namespace_options.as_ref());
    match mode(own.map_or(0, |it| it.pid))? {
        v1::NamespaceMode::Pod => pod_pid_namespace(sandbox),
        v1::NamespaceMode::Container => Ok(PidNamespace::Container),
        v1::NamespaceMode::Node => Ok(PidNamespace::Host),
        v1::NamespaceMode::Target => {
            let target = own.map(|it| it.target_id.clone()).unwrap_or_default();
            if target.is_empty() {
                return Err(SpecError::invalid(FIELD_PID, "TARGET needs a target_id"));
            }
            Ok(PidNamespace::Target(target))
        }
    }
}

/// Where a pod's containers get their PID namespace unless they say otherwise; [`PidNamespace::Pod`]
/// means that the pod needs a pause.
pub fn pod_pid_namespace(sandbox: &v1::PodSandboxConfig) -> Result<PidNamespace, SpecError> {
    let options = sandbox_security_context(sandbox).and_then(|it| it.namespace_options.as_ref());
    match mode(options.map_or(0, |it| it.pid))? {
        v1::NamespaceMode::Pod => Ok(PidNamespace::Pod),
        v1::NamespaceMode::Container => Ok(PidNamespace::Container),
        v1::NamespaceMode::Node => Ok(PidNamespace::Host),
        v1::NamespaceMode::Target => Err(SpecError::invalid(FIELD_PID, "TARGET is not for a pod sandbox")),
    }
}

fn mode(value: i32) -> Result<v1::NamespaceMode, SpecError> {
    v1::NamespaceMode::try_from(value)
        .map_err(|_| SpecError::invalid(FIELD_PID, format!("unknown value {value}")))
}

/// `linux.namespaces`.
pub(super) fn container_namespaces(
    input: &SpecInput<'_>,
    privileged: bool,
) -> Result<Vec<LinuxNamespace>, SpecError> {
    host_network_only_with_the_pod(input)?;
    let pinned = input.namespaces;
    // The user namespace comes first: the others are entered with what it gives.
    let mut list: Vec<LinuxNamespace> =
        pinned.user.iter().map(|path| namespace(LinuxNamespaceType::User, Some(path))).collect();
    list.push(namespace(LinuxNamespaceType::Mount, None));
    for (kind, path) in [
        (LinuxNamespaceType::Network, pinned.network.as_ref().map(|it| it.as_path())),
        (LinuxNamespaceType::Ipc, pinned.ipc.as_deref()),
        (LinuxNamespaceType::Uts, pinned.uts.as_deref()),
    ] {
        list.extend(path.map(|path| namespace(kind, Some(path))));
    }
    match pid_namespace(input.container, input.sandbox)? {
        PidNamespace::Container => list.push(namespace(LinuxNamespaceType::Pid, None)),
        PidNamespace::Host => {}
        PidNamespace::Pod | PidNamespace::Target(_) => {
            let Some(pid) = input.join_pid.filter(|pid| *pid > 0) else {
                let problem = "the process whose PID namespace is to be joined does not run";
                return Err(SpecError::invalid(FIELD_PID, problem));
            };
            let path = PathBuf::from(format!("/proc/{pid}/ns/pid"));
            list.push(namespace(LinuxNamespaceType::Pid, Some(&path)));
        }
    }
    if input.facts.cgroup == Mode::V2 && !privileged {
        list.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    Ok(list)
}

/// A container cannot be on the host's network or ipc in a pod that is not: it would see what its pod may not.
fn host_network_only_with_the_pod(input: &SpecInput<'_>) -> Result<(), SpecError> {
    let Some(own) = security_context(input.container).and_then(|it| it.namespace_options.as_ref()) else {
        return Ok(());
    };
    let node = v1::NamespaceMode::Node as i32;
    for (kind, wanted, pinned) in [
        ("network", own.network, input.namespaces.network.is_some()),
        ("ipc", own.ipc, input.namespaces.ipc.is_some()),
    ] {
        if wanted == node && pinned {
            let field = format!("linux.security_context.namespace_options.{kind}");
            return Err(SpecError::invalid(field, format!("NODE, but the pod has its own {kind} namespace")));
        }
    }
    Ok(())
}

pub(super) fn namespace(kind: LinuxNamespaceType, path: Option<&Path>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path.map(Path::to_owned));
    namespace
}
