// SPDX-License-Identifier: Apache-2.0
//! Masked and read-only paths: what of the kernel's files is hidden or may not be written.
//!
//! The kubelet sends the lists; an empty one means none (procMount: Unmasked). To a list that is not
//! empty we add what leaks or steers the node and is newer than the kubelet's list.

use hull_cri_api::v1;

use super::SpecError;

/// Masked beyond the kubelet's list: the counts of interrupts tell what other tenants type, and the
/// SELinux files steer the node. What does not exist is skipped by the runtime.
const ALSO_MASKED: [&str; 2] = ["/proc/interrupts", "/sys/fs/selinux"];

/// `linux.maskedPaths`.
pub(super) fn masked(
    security: Option<&v1::LinuxContainerSecurityContext>,
    privileged: bool,
) -> Result<Option<Vec<String>>, SpecError> {
    let given = security.map_or(&[][..], |it| &it.masked_paths);
    let Some(mut paths) = list("masked_paths", given, privileged)? else { return Ok(None) };
    for path in ALSO_MASKED {
        if !paths.iter().any(|it| it == path) {
            paths.push(path.to_owned());
        }
    }
    Ok(Some(paths))
}

/// `linux.readonlyPaths`.
pub(super) fn readonly(
    security: Option<&v1::LinuxContainerSecurityContext>,
    privileged: bool,
) -> Result<Option<Vec<String>>, SpecError> {
    list("readonly_paths", security.map_or(&[][..], |it| &it.readonly_paths), privileged)
}

/// Understood even where it is not applied.
fn list(name: &str, paths: &[String], privileged: bool) -> Result<Option<Vec<String>>, SpecError> {
    if let Some(bad) = paths.iter().find(|path| !path.starts_with('/') || path.contains('\0')) {
        let field = format!("linux.security_context.{name}");
        return Err(SpecError::invalid(field, format!("{bad:?} is not an absolute path")));
    }
    Ok((!privileged && !paths.is_empty()).then(|| paths.to_vec()))
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
        assert_eq!(masked(Some(&security), false).unwrap(), Some(expected));
        assert_eq!(readonly(Some(&security), false).unwrap(), Some(paths(&["/proc/sys"])));
        assert_eq!(masked(Some(&security), true).unwrap(), None);
        assert_eq!(readonly(Some(&security), true).unwrap(), None);
        assert_eq!(masked(Some(&Default::default()), false).unwrap(), None);
        assert_eq!(masked(None, false).unwrap(), None);
        for bad in ["proc/sys", "", "/a\0b"] {
            let security = v1::LinuxContainerSecurityContext {
                masked_paths: paths(&[bad]),
                readonly_paths: paths(&[bad]),
                ..Default::default()
            };
            for error in [masked(Some(&security), true), readonly(Some(&security), false)] {
                assert!(error.unwrap_err().to_string().contains("_paths: "), "{bad:?}");
            }
        }
    }
}
