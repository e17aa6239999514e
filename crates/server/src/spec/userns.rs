// SPDX-License-Identifier: Apache-2.0
//! The user namespace of a pod: its root is nobody on the host. Pure.
//!
//! | what a container has            | in a pod with a user namespace                                            |
//! |---------------------------------|---------------------------------------------------------------------------|
//! | user and groups                 | must exist there; those of its root and of mapped mounts are translated   |
//! | capabilities                    | hold inside alone, so that what the daemon lacks can be given             |
//! | /sys                            | the host's, read-only, where the pod is on the host's network: a sysfs    |
//! |                                 | can be mounted by the owner of the network namespace alone                |
//! | devices                         | the host's nodes, bound by the runtime                                    |
//! | privileged, host's pid, ipc     | refused: they are about the host, and this root is not the host's         |

use hull_cri_api::v1;
use hull_netns::{IdMapping, UserMappings};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use super::{SpecError, SpecInput, sandbox_security_context, security_context};

const FIELD: &str = "linux.security_context.namespace_options.userns_options";

/// The ids of the pod's own user namespace; `None`: it is in the host's.
pub fn of_pod(sandbox: &v1::PodSandboxConfig) -> Option<UserMappings> {
    let options = sandbox_security_context(sandbox)?.namespace_options.as_ref()?.userns_options.as_ref()?;
    (options.mode == v1::NamespaceMode::Pod as i32).then(|| mappings(&options.uids, &options.gids))
}

/// Both maps of a message.
pub(super) fn mappings(uids: &[v1::IdMapping], gids: &[v1::IdMapping]) -> UserMappings {
    let ids = |list: &[v1::IdMapping]| {
        list.iter()
            .map(|it| IdMapping { container_id: it.container_id, host_id: it.host_id, length: it.length })
            .collect()
    };
    UserMappings { uids: ids(uids), gids: ids(gids) }
}

/// As the OCI writes them.
pub(super) fn oci(mappings: &[IdMapping]) -> Result<Vec<LinuxIdMapping>, SpecError> {
    let one = |it: &IdMapping| {
        LinuxIdMappingBuilder::default()
            .container_id(it.container_id)
            .host_id(it.host_id)
            .size(it.length)
            .build()
            .map_err(|error| SpecError::invalid(FIELD, error.to_string()))
    };
    mappings.iter().map(one).collect()
}

/// Refuses what cannot be together.
pub(super) fn check(input: &SpecInput<'_>, users: Option<&UserMappings>) -> Result<(), SpecError> {
    agree(input, users)?;
    let Some(users) = users else { return Ok(()) };
    if input.namespaces.user.is_none() {
        return Err(SpecError::invalid(FIELD, "the pod has lost its user namespace"));
    }
    if security_context(input.container).is_some_and(|it| it.privileged) {
        let problem = "cannot be in a pod with a user namespace of its own";
        return Err(SpecError::invalid("linux.security_context.privileged", problem));
    }
    let user = input.user;
    if users.host_uid(user.uid).is_none() {
        return Err(unknown("run_as_user", "user", user.uid));
    }
    let groups = std::iter::once(&user.gid).chain(&user.groups);
    match groups.into_iter().find(|gid| users.host_gid(**gid).is_none()) {
        Some(gid) => Err(unknown("run_as_group", "group", *gid)),
        None => Ok(()),
    }
}

fn unknown(field: &str, kind: &str, id: u32) -> SpecError {
    let problem =
        format!("{kind} {id} of the container or its image does not exist in the pod's user namespace");
    SpecError::invalid(format!("linux.security_context.{field}"), problem)
}

/// A container has its pod's user namespace; what it says of one must be the same.
fn agree(input: &SpecInput<'_>, users: Option<&UserMappings>) -> Result<(), SpecError> {
    let own = security_context(input.container).and_then(|it| it.namespace_options.as_ref());
    let Some(own) = own.and_then(|it| it.userns_options.as_ref()) else { return Ok(()) };
    match (v1::NamespaceMode::try_from(own.mode), users) {
        (Ok(v1::NamespaceMode::Node), None) => Ok(()),
        (Ok(v1::NamespaceMode::Node), Some(_)) => {
            Err(SpecError::invalid(FIELD, "NODE, but the pod has its own user namespace"))
        }
        (Ok(v1::NamespaceMode::Pod), None) => {
            Err(SpecError::invalid(FIELD, "POD, but the pod has no user namespace of its own"))
        }
        (Ok(v1::NamespaceMode::Pod), Some(pods)) if mappings(&own.uids, &own.gids) == *pods => Ok(()),
        (Ok(v1::NamespaceMode::Pod), Some(_)) => {
            Err(SpecError::invalid(FIELD, "the mappings are not those of the pod"))
        }
        (Ok(v1::NamespaceMode::Container | v1::NamespaceMode::Target), _) => {
            Err(SpecError::invalid(FIELD, "a user namespace is the pod's or the node's"))
        }
        (Err(_), _) => Err(SpecError::invalid(FIELD, format!("unknown mode {}", own.mode))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::Fixture;
    use crate::spec::{Spec, generate};

    fn options(mode: i32, host_id: u32) -> v1::NamespaceOption {
        let ids = vec![v1::IdMapping { host_id, container_id: 0, length: 65536 }];
        let uids = if mode == 0 { ids } else { Vec::new() };
        let userns_options = Some(v1::UserNamespace { mode, gids: uids.clone(), uids });
        v1::NamespaceOption { pid: 1, userns_options, ..Default::default() }
    }

    fn generated(change: impl FnOnce(&mut Fixture)) -> Result<Spec, String> {
        let mut fixture = Fixture::new();
        fixture.make_user_namespace();
        change(&mut fixture);
        generate(&fixture.input()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_container_says_is_what_its_pod_has() {
        let with = |own: v1::NamespaceOption| generated(|it| it.security().namespace_options = Some(own));
        assert!(with(options(0, 100_000)).is_ok());
        assert!(generated(|_| ()).is_ok(), "nothing said is as the pod");
        for (own, problem) in [
            (options(0, 200_000), "the mappings are not those of the pod"),
            (options(2, 0), "NODE, but the pod has its own user namespace"),
            (options(1, 0), "a user namespace is the pod's or the node's"),
            (options(3, 0), "a user namespace is the pod's or the node's"),
            (options(9, 0), "unknown mode 9"),
        ] {
            assert_eq!(with(own).unwrap_err(), format!("{FIELD}: {problem}"));
        }
        let mut fixture = Fixture::new();
        fixture.security().namespace_options = Some(options(0, 100_000));
        assert!(fixture.error().ends_with("POD, but the pod has no user namespace of its own"));
        fixture.security().namespace_options = Some(options(2, 0));
        assert!(generate(&fixture.input()).is_ok());
    }

    #[test]
    fn who_does_not_exist_inside_is_refused() {
        for (uid, gid, groups, problem) in [
            (65536, 0, vec![], Some("run_as_user: user 65536 of the container")),
            (0, 65536, vec![], Some("run_as_group: group 65536 of the container")),
            (0, 0, vec![0, 70_000], Some("run_as_group: group 70000 of the container")),
            (65535, 65535, vec![65535], None),
        ] {
            let result = generated(|it| (it.user.uid, it.user.gid, it.user.groups) = (uid, gid, groups));
            match problem {
                Some(problem) => assert!(result.unwrap_err().contains(problem)),
                None => assert!(result.is_ok()),
            }
        }
        assert!(generated(Fixture::make_privileged).unwrap_err().contains("privileged: cannot be in a pod"));
        assert!(generated(|it| it.namespaces.user = None).unwrap_err().contains("lost its user namespace"));
    }

    #[test]
    fn the_runtime_joins_and_reads_the_ids_itself() {
        let spec = generated(|_| ()).unwrap();
        let linux = spec.linux().clone().unwrap();
        assert!(linux.uid_mappings().is_none() && linux.gid_mappings().is_none());
        let user = linux.namespaces().clone().unwrap().into_iter().next().unwrap();
        assert_eq!(user.typ(), oci_spec::runtime::LinuxNamespaceType::User);
        assert_eq!(user.path().as_deref(), Some(std::path::Path::new("/run/hull/ns/pod/user")));
    }

    #[test]
    fn capabilities_of_the_namespace_are_not_the_daemons_to_lack() {
        use oci_spec::runtime::Capability;
        let spec = generated(|it| {
            it.facts.capabilities.remove(&Capability::SysResource);
            let capabilities = it.security().capabilities.get_or_insert_default();
            capabilities.add_capabilities = vec!["ALL".into()];
        });
        let process = spec.unwrap().process().clone().unwrap();
        let capabilities = process.capabilities().clone().unwrap();
        assert_eq!(capabilities.bounding().as_ref().unwrap().len(), super::super::capabilities::ALL.len());
    }
}
