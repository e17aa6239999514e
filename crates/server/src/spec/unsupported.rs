// SPDX-License-Identifier: Apache-2.0
//! What Hull does not do yet, refused by name before anything is built.

use hull_cri_api::v1;
use hull_cri_api::v1::security_profile::ProfileType;

use super::{SpecError, SpecInput, sandbox_security_context, security_context};

const LATER: &str = "not served yet; leave it unset";

/// Refuses what would otherwise be ignored: fields of later versions of Kubernetes, and SELinux's labels. Without SELinux
/// on the node these mean nothing, and are ignored as everywhere.
pub(super) fn refuse(input: &SpecInput<'_>) -> Result<(), SpecError> {
    refuse_in_container(input.container)?;
    let own = security_context(input.container).and_then(|it| it.selinux_options.as_ref());
    let pods = sandbox_security_context(input.sandbox).and_then(|it| it.selinux_options.as_ref());
    if !input.facts.selinux || security_context(input.container).is_some_and(|it| it.privileged) {
        return Ok(());
    }
    let given = |it: &v1::SeLinuxOption| {
        ![&it.user, &it.role, &it.r#type, &it.level].into_iter().all(String::is_empty)
    };
    if own.is_some_and(given) || pods.is_some_and(given) {
        let reason = "SELinux is enabled on this node, and labels are not set yet";
        return Err(SpecError::unsupported("linux.security_context.selinux_options", reason));
    }
    Ok(())
}

fn refuse_in_container(container: &v1::ContainerConfig) -> Result<(), SpecError> {
    let Some(security) = security_context(container) else { return Ok(()) };
    if security.cgroup_mount_mode != v1::CgroupMountMode::Unspecified as i32 {
        return Err(SpecError::unsupported("linux.security_context.cgroup_mount_mode", LATER));
    }
    refuse_in_both(security.namespace_options.as_ref(), security.seccomp.as_ref(), security.apparmor.as_ref())
}

/// Refuses fields of later versions of Kubernetes in a pod.
///
/// # Errors
/// [`SpecError::Unsupported`] with the name of the field.
pub(crate) fn refuse_in_pod(sandbox: &v1::PodSandboxConfig) -> Result<(), SpecError> {
    let Some(security) = sandbox_security_context(sandbox) else { return Ok(()) };
    refuse_in_both(security.namespace_options.as_ref(), security.seccomp.as_ref(), security.apparmor.as_ref())
}

fn refuse_in_both(
    namespaces: Option<&v1::NamespaceOption>,
    seccomp: Option<&v1::SecurityProfile>,
    apparmor: Option<&v1::SecurityProfile>,
) -> Result<(), SpecError> {
    if namespaces.is_some_and(|it| it.cgroupns_options.is_some()) {
        let field = "linux.security_context.namespace_options.cgroupns_options";
        return Err(SpecError::unsupported(field, LATER));
    }
    for (name, profile) in [("seccomp", seccomp), ("apparmor", apparmor)] {
        let Some(profile) = profile else { continue };
        let later = [
            ("oci_ref", !profile.oci_ref.is_empty()),
            ("base_profile", profile.base_profile.is_some()),
            // Of AppArmor it is invalid, now and later.
            ("profile_type OCI", name == "seccomp" && profile.profile_type == ProfileType::Oci as i32),
        ];
        if let Some((field, _)) = later.iter().find(|(_, given)| *given) {
            return Err(SpecError::unsupported(format!("linux.security_context.{name}.{field}"), LATER));
        }
    }
    Ok(())
}
