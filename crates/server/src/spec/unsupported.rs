// SPDX-License-Identifier: Apache-2.0
//! What Hull does not do yet, refused by name before anything is built.

use hull_cri_api::v1;

use super::{SpecError, SpecInput, sandbox_security_context, security_context};

/// Refuses what would otherwise be ignored: SELinux's labels. Without SELinux on the node they mean nothing, and are
/// ignored as everywhere.
pub(super) fn refuse(input: &SpecInput<'_>) -> Result<(), SpecError> {
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
