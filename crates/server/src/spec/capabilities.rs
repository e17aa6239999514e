// SPDX-License-Identifier: Apache-2.0
//! Capabilities: names, and what a container gets.
//!
//! ```text
//!   ALL added?  everything held : defaults + added
//!   ALL dropped?  only what is added by name : without what is dropped
//!   then cut to what the daemon holds, because a runtime cannot give more than that
//! ```
//!
//! The result goes to the bounding, effective and permitted sets. Inheritable and ambient hold the
//! ambient adds alone: a file's inheritable bits must not give a process back what it stepped down from.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use super::facts::both;
use super::{SpecError, SpecInput, security_context};

/// All capabilities, by the kernel's number (`linux/capability.h`).
pub const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// A capability by name: with or without `CAP_`, in any case.
pub fn parse(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().ok()
}

/// The capabilities in a mask such as `CapPrm` of `/proc/self/status`.
pub fn from_mask(mask: u64) -> Capabilities {
    ALL.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, it)| *it).collect()
}

/// What a container asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// Before adds and drops.
    pub defaults: &'a [Capability],
    /// Names to add.
    pub add: &'a [String],
    /// Names to drop; wins over an add, but `ALL` does not win over an add by name.
    pub drop: &'a [String],
    /// Names to add and to make ambient: a process of another user than root keeps them too.
    pub ambient: &'a [String],
}

/// Computes the sets, all of them within `held`. An unknown name is an error.
pub fn compute(request: &Request<'_>, held: &Capabilities) -> Result<LinuxCapabilities, SpecError> {
    let add = names("add_capabilities", request.add)?;
    let drop = names("drop_capabilities", request.drop)?;
    let ambient = names("add_ambient_capabilities", request.ambient)?;

    let mut base: Capabilities = if drop.all {
        add.named.clone()
    } else {
        let start = if add.all { held.clone() } else { request.defaults.iter().copied().collect() };
        let all: Capabilities = start.union(&add.named).copied().collect();
        all.difference(&drop.named).copied().collect()
    };
    let ambient = both(if ambient.all { held } else { &ambient.named }, held);
    base = both(&base, held).union(&ambient).copied().collect();
    Ok(sets(base, ambient))
}

/// The container's capabilities. A privileged one has all that the daemon holds.
pub(super) fn of_container(input: &SpecInput<'_>, privileged: bool) -> Result<LinuxCapabilities, SpecError> {
    // In a namespace of its own the kernel gives all of them, which hold inside alone.
    let all;
    let held = match input.namespaces.user {
        Some(_) => {
            all = ALL.iter().copied().collect();
            &all
        }
        None => &input.facts.capabilities,
    };
    if privileged {
        return Ok(sets(held.clone(), Capabilities::new()));
    }
    let wanted = security_context(input.container).and_then(|it| it.capabilities.as_ref());
    let request = match wanted {
        None => Request { defaults: input.default_capabilities, ..Request::default() },
        Some(it) => Request {
            defaults: input.default_capabilities,
            add: &it.add_capabilities,
            drop: &it.drop_capabilities,
            ambient: &it.add_ambient_capabilities,
        },
    };
    compute(&request, held)
}

/// No capability at all.
pub(super) fn none() -> LinuxCapabilities {
    sets(Capabilities::new(), Capabilities::new())
}

/// Whether the container can ever come to hold it.
pub(super) fn holds(capabilities: &LinuxCapabilities, capability: Capability) -> bool {
    capabilities.bounding().as_ref().is_some_and(|set| set.contains(&capability))
}

fn sets(base: Capabilities, ambient: Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(base.clone()))
        .set_effective(Some(base.clone()))
        .set_permitted(Some(base))
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    sets
}

struct Names {
    all: bool,
    named: Capabilities,
}

fn names(field: &str, given: &[String]) -> Result<Names, SpecError> {
    let mut names = Names { all: false, named: Capabilities::new() };
    for name in given {
        if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
            names.all = true;
        } else {
            let unknown = || {
                let field = format!("linux.security_context.capabilities.{field}");
                SpecError::invalid(field, format!("unknown capability {name:?}"))
            };
            names.named.insert(parse(name).ok_or_else(unknown)?);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use Capability::{Chown, Kill, NetRaw, SysAdmin, SysResource};
    use proptest::prelude::*;

    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn result(add: &[&str], drop: &[&str], held: &Capabilities) -> Capabilities {
        let (add, drop) = (strings(add), strings(drop));
        let request = Request { defaults: &[Chown, Kill], add: &add, drop: &drop, ambient: &[] };
        compute(&request, held).unwrap().effective().clone().unwrap()
    }

    #[test]
    fn adds_and_drops() {
        let all = from_mask(u64::MAX);
        let without_resource = from_mask(!(1 << 24));
        let set = |caps: &[Capability]| caps.iter().copied().collect::<Capabilities>();
        assert_eq!(all.len(), 41);
        assert_eq!(result(&[], &[], &all), set(&[Chown, Kill]));
        assert_eq!(result(&["NET_RAW"], &["CHOWN"], &all), set(&[Kill, NetRaw]));
        assert_eq!(result(&["cap_net_raw"], &["Cap_Kill"], &all), set(&[Chown, NetRaw]));
        assert_eq!(result(&["NET_RAW"], &["NET_RAW"], &all), set(&[Chown, Kill]));
        assert_eq!(result(&["ALL"], &[], &all), all);
        assert_eq!(result(&["ALL"], &["KILL"], &all), from_mask(!(1 << 5)));
        assert_eq!(result(&["SYS_ADMIN"], &["all"], &all), set(&[SysAdmin]));
        assert_eq!(result(&["ALL", "SYS_ADMIN"], &["ALL"], &all), set(&[SysAdmin]));
        assert_eq!(result(&[], &["ALL"], &all), set(&[]));
        assert_eq!(result(&["ALL"], &[], &without_resource), without_resource);
        assert!(!result(&["SYS_RESOURCE"], &[], &without_resource).contains(&SysResource));
    }

    #[test]
    fn an_unknown_name_is_named() {
        let add = strings(&["NET_RAWW"]);
        let error = compute(&Request { add: &add, ..Request::default() }, &from_mask(u64::MAX)).unwrap_err();
        let expected =
            "linux.security_context.capabilities.add_capabilities: unknown capability \"NET_RAWW\"";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn ambient_goes_to_every_set() {
        let ambient = strings(&["NET_RAW"]);
        let request = Request { ambient: &ambient, ..Request::default() };
        let sets = compute(&request, &from_mask(u64::MAX)).unwrap();
        for set in [sets.ambient(), sets.inheritable(), sets.permitted(), sets.effective(), sets.bounding()] {
            assert_eq!(set.clone().unwrap(), Capabilities::from([NetRaw]));
        }
    }

    #[test]
    fn every_name_is_parsed() {
        for capability in ALL {
            let name = capability.to_string();
            assert_eq!(parse(&name), Some(capability));
            assert_eq!(parse(&format!("cap_{}", name.to_lowercase())), Some(capability));
        }
        assert_eq!(parse("ALL"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("CAP_CAP_KILL"), None);
    }

    fn some_capabilities() -> impl Strategy<Value = Vec<Capability>> {
        proptest::collection::vec(proptest::sample::select(ALL.to_vec()), 0..6)
    }

    proptest! {
        #[test]
        fn laws(add in some_capabilities(), drop in some_capabilities(), all_added: bool, held: u64) {
            let held = from_mask(held);
            let name = |caps: &[Capability]| caps.iter().map(ToString::to_string).collect::<Vec<_>>();
            let mut add_names = name(&add);
            if all_added {
                add_names.push("ALL".to_owned());
            }
            let drop_names = name(&drop);
            let defaults = [Chown, Kill];

            // Nothing that the daemon does not hold, nothing that was dropped.
            let request = Request { defaults: &defaults, add: &add_names, drop: &drop_names, ambient: &[] };
            let got = compute(&request, &held).unwrap().permitted().clone().unwrap();
            prop_assert!(got.is_subset(&held));
            prop_assert!(drop.iter().all(|it| !got.contains(it)));

            // drop ALL, add X: X.
            let all = vec!["ALL".to_owned()];
            let request = Request { defaults: &defaults, add: &add_names, drop: &all, ambient: &[] };
            let got = compute(&request, &held).unwrap().permitted().clone().unwrap();
            let wanted: Capabilities = add.iter().copied().collect();
            prop_assert_eq!(got, both(&wanted, &held));
        }
    }
}
