// SPDX-License-Identifier: Apache-2.0
//! What Hull does not do yet, refused by name before anything is built.

use hull_cri_api::v1;

use super::{SpecError, SpecInput, sandbox_security_context, security_context};

/// Refuses what would otherwise be ignored.
pub(super) fn refuse(input: &SpecInput<'_>) -> Result<(), SpecError> {
    let security = security_context(input.container);
    let sandbox = sandbox_security_context(input.sandbox);
    for options in [
        security.and_then(|it| it.namespace_options.as_ref()),
        sandbox.and_then(|it| it.namespace_options.as_ref()),
    ] {
        user_namespace(options.and_then(|it| it.userns_options.as_ref()))?;
    }
    selinux(input)
}

fn user_namespace(options: Option<&v1::UserNamespace>) -> Result<(), SpecError> {
    const FIELD: &str = "linux.security_context.namespace_options.userns_options";
    let Some(options) = options else { return Ok(()) };
    match v1::NamespaceMode::try_from(options.mode) {
        Ok(v1::NamespaceMode::Node) => Ok(()),
        Ok(v1::NamespaceMode::Pod) => {
            Err(SpecError::unsupported(FIELD, "user namespaces of pods: not yet; set hostUsers: true"))
        }
        Ok(v1::NamespaceMode::Container | v1::NamespaceMode::Target) => {
            Err(SpecError::invalid(FIELD, "a user namespace is the pod's or the node's"))
        }
        Err(_) => Err(SpecError::invalid(FIELD, format!("unknown mode {}", options.mode))),
    }
}

/// Without SELinux on the node the options mean nothing, and are ignored as everywhere.
fn selinux(input: &SpecInput<'_>) -> Result<(), SpecError> {
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
