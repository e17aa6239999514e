// SPDX-License-Identifier: Apache-2.0
//! Masked and read-only paths: what of the kernel's files is hidden or may not be written.
//!
//! The kubelet sends the lists; an empty one means none (procMount: Unmasked). To a list that is not
//! empty we add what leaks or steers the node and is newer than the kubelet's list.

use hull_cri_api::v1;

/// Masked beyond the kubelet's list: the counts of interrupts tell what other tenants type, and the
/// SELinux files steer the node. What does not exist is skipped by the runtime.
const ALSO_MASKED: [&str; 2] = ["/proc/interrupts", "/sys/fs/selinux"];

/// `linux.maskedPaths`.
pub(super) fn masked(
    security: Option<&v1::LinuxContainerSecurityContext>,
    privileged: bool,
) -> Option<Vec<String>> {
    let mut paths = list(&security?.masked_paths, privileged)?;
    for path in ALSO_MASKED {
        if !paths.iter().any(|it| it == path) {
            paths.push(path.to_owned());
        }
    }
    Some(paths)
}

/// `linux.readonlyPaths`.
pub(super) fn readonly(
    security: Option<&v1::LinuxContainerSecurityContext>,
    privileged: bool,
) -> Option<Vec<String>> {
    list(&security?.readonly_paths, privileged)
}

fn list(paths: &[String], privileged: bool) -> Option<Vec<String>> {
    (!privileged && !paths.is_empty()).then(|| paths.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let paths = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let security = v1::LinuxContainerSecurityContext {
            masked_paths: paths(&["/proc/kcore", "/proc/interrupts"]),
            readonly_paths: paths(&["/proc/sys"]),
            ..Default::default()
        };
        let expected = paths(&["/proc/kcore", "/proc/interrupts", "/sys/fs/selinux"]);
        assert_eq!(masked(Some(&security), false), Some(expected));
        assert_eq!(readonly(Some(&security), false), Some(paths(&["/proc/sys"])));
        assert_eq!(masked(Some(&security), true), None);
        assert_eq!(readonly(Some(&security), true), None);
        assert_eq!(masked(Some(&Default::default()), false), None);
        assert_eq!(masked(None, false), None);
    }
}
