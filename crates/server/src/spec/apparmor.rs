// SPDX-License-Identifier: Apache-2.0
//! `process.apparmorProfile`: which of the profiles that are loaded on the node confines the container.
//!
//! | asked for        | AppArmor enabled                                | not enabled |
//! |------------------|-------------------------------------------------|-------------|
//! | nothing          | `containers.apparmor_profile`, or none          | none        |
//! | RuntimeDefault   | `containers.apparmor_profile`; without: refused | none        |
//! | Unconfined       | none                                            | none        |
//! | Localhost        | the one named                                   | refused     |
//!
//! The privileged have none. Where AppArmor is not enabled runtimes fail on a name, so there none is given.

use hull_cri_api::v1;
use v1::security_profile::ProfileType;

use super::{SpecError, SpecInput, security_context};

const FIELD: &str = "linux.security_context.apparmor";

#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Nothing,
    RuntimeDefault,
    Unconfined,
    Localhost(&'a str),
}

/// The profile's name.
pub(super) fn profile(input: &SpecInput<'_>) -> Result<Option<String>, SpecError> {
    let security = security_context(input.container);
    let wanted = security.map_or(Ok(Wanted::Nothing), wanted)?;
    if security.is_some_and(|it| it.privileged) {
        return Ok(None);
    }
    let enabled = input.facts.apparmor;
    match wanted {
        Wanted::Nothing | Wanted::RuntimeDefault if !enabled => Ok(None),
        Wanted::Unconfined => Ok(None),
        Wanted::Nothing => Ok(input.apparmor_default.map(str::to_owned)),
        Wanted::RuntimeDefault => input.apparmor_default.map(|name| Some(name.to_owned())).ok_or_else(|| {
            let reason = "RuntimeDefault: Hull brings no profile of its own; load one and name it in \
                          containers.apparmor_profile";
            SpecError::unsupported(FIELD, reason)
        }),
        Wanted::Localhost(name) if !enabled => {
            Err(SpecError::unsupported(FIELD, format!("{name:?}: AppArmor is not enabled on this node")))
        }
        Wanted::Localhost("") => Err(SpecError::invalid(FIELD, "type Localhost needs a profile's name")),
        Wanted::Localhost(name) => Ok(Some(name.to_owned())),
    }
}

fn wanted(security: &v1::LinuxContainerSecurityContext) -> Result<Wanted<'_>, SpecError> {
    fn name(reference: &str) -> Wanted<'_> {
        Wanted::Localhost(reference.strip_prefix("localhost/").unwrap_or(reference))
    }
    let Some(profile) = &security.apparmor else {
        // The string that older callers send.
        return Ok(match security.apparmor_profile.as_str() {
            "" => Wanted::Nothing,
            "unconfined" => Wanted::Unconfined,
            "runtime/default" => Wanted::RuntimeDefault,
            other => name(other),
        });
    };
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(Wanted::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(Wanted::Unconfined),
        Ok(ProfileType::Localhost) => Ok(name(&profile.localhost_ref)),
        Ok(ProfileType::Oci) => Err(SpecError::invalid(FIELD, "type OCI is for seccomp alone")),
        Err(_) => Err(SpecError::invalid(FIELD, format!("unknown profile type {}", profile.profile_type))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::Fixture;

    #[test]
    fn the_table() {
        let told = |kind: Option<i32>, old: &str, enabled: bool, default: Option<&str>| {
            let mut fixture = Fixture::new();
            fixture.facts.apparmor = enabled;
            let security = fixture.security();
            security.apparmor = kind.map(|profile_type| v1::SecurityProfile {
                profile_type,
                localhost_ref: "localhost/mine".into(),
                ..Default::default()
            });
            security.apparmor_profile = old.to_owned();
            let input = SpecInput { apparmor_default: default, ..fixture.input() };
            profile(&input).map_err(|error| error.to_string())
        };
        let (node, some) = (Some("node"), |name: &str| Ok(Some(name.to_owned())));
        assert_eq!(told(None, "", true, node), some("node"));
        assert_eq!(told(None, "", true, None), Ok(None));
        assert_eq!(told(None, "", false, node), Ok(None));
        assert_eq!(told(Some(0), "", true, node), some("node"));
        assert!(told(Some(0), "", true, None).unwrap_err().contains("containers.apparmor_profile"));
        assert_eq!(told(Some(0), "", false, node), Ok(None));
        assert_eq!(told(Some(1), "", true, node), Ok(None));
        assert_eq!(told(Some(2), "", true, node), some("mine"));
        assert!(told(Some(2), "", false, node).unwrap_err().contains("not enabled"));
        assert_eq!(told(None, "runtime/default", true, node), some("node"));
        assert_eq!(told(None, "unconfined", true, node), Ok(None));
        assert_eq!(told(None, "localhost/other", true, node), some("other"));
        assert!(told(None, "localhost/", true, node).unwrap_err().contains("needs a profile's name"));
        assert!(told(Some(9), "", true, node).unwrap_err().contains("unknown profile type 9"));

        let mut fixture = Fixture::new();
        fixture.facts.apparmor = true;
        fixture.make_privileged();
        assert_eq!(profile(&SpecInput { apparmor_default: node, ..fixture.input() }).unwrap(), None);
    }
}
