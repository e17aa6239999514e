// SPDX-License-Identifier: Apache-2.0
//! What may be asked for: ids, host names and sysctls. Pure; every backend refuses the same things.

use std::io;
use std::path::PathBuf;

use crate::{CreateRequest, Error, Result, UserMappings};

/// The longest id: it becomes a file name with a prefix.
const MAX_ID: usize = 128;

/// The longest host name that the kernel takes (`__NEW_UTS_LEN`).
const MAX_HOSTNAME: usize = 64;

/// A kind of namespace that a pod may have of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Net,
    Ipc,
    Uts,
}

/// A sysctl that is safe to set inside the pod's own namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sysctl {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Below `/proc/sys`.
    pub(crate) path: PathBuf,
}

/// Checks the whole request and returns its sysctls, before anything is made.
pub(crate) fn validate(request: &CreateRequest) -> Result<Vec<Sysctl>> {
    validate_id(&request.id)?;
    validate_hostname(request)?;
    request.user.as_ref().map_or(Ok(()), UserMappings::validate)?;
    request.sysctls.iter().map(|(name, value)| sysctl(request, name, value)).collect()
}

/// Checks that an id can be a file name and nothing but one.
pub(crate) fn validate_id(id: &str) -> Result<()> {
    let problem = if id.is_empty() {
        "it is empty"
    } else if id.len() > MAX_ID {
        "it is longer than 128 characters"
    } else if !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        "allowed are letters, digits, `_`, `.` and `-`"
    } else if id.bytes().all(|b| b == b'.') {
        "it consists of dots alone"
    } else {
        return Ok(());
    };
    Err(Error::InvalidId { id: id.to_owned(), problem })
}

fn validate_hostname(request: &CreateRequest) -> Result<()> {
    let problem = if !request.uts {
        return Ok(());
    } else if request.hostname.len() > MAX_HOSTNAME {
        "it is longer than 64 bytes"
    } else if request.hostname.contains(['\0', '\n', '/']) {
        "it contains a NUL, a line break or a slash"
    } else {
        return Ok(());
    };
    Err(Error::InvalidHostname { hostname: request.hostname.clone(), problem })
}

/// Why a pod with these namespaces cannot have its sysctls, with the name of the first that it cannot have.
pub fn refused_sysctl(request: &CreateRequest) -> Option<(String, String)> {
    request.sysctls.iter().find_map(|(name, value)| match sysctl(request, name, value) {
        Err(Error::Sysctl { source, .. }) => Some((name.clone(), source.to_string())),
        _ => None,
    })
}

fn sysctl(request: &CreateRequest, name: &str, value: &str) -> Result<Sysctl> {
    let refuse = |problem: String| Error::Sysctl {
        name: name.to_owned(),
        value: value.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, problem),
    };
    let components = components(name).ok_or_else(|| {
        refuse("not a sysctl name: expected `net.ipv4.ip_forward` or `net/ipv4/ip_forward`".to_owned())
    })?;
    let kind = namespace_of(&components).ok_or_else(|| {
        refuse("it belongs to the whole node, not to a namespace; set it on the node".to_owned())
    })?;
    if !kind.asked(request) {
        let kind = kind.name();
        return Err(refuse(format!(
            "the pod shares the host's {kind} namespace, so it would change the node; set it on the node, or give the pod a \
             {kind} namespace of its own"
        )));
    }
    if value.contains(['\0', '\n']) {
        return Err(refuse("the value contains a NUL or a line break".to_owned()));
    }
    Ok(Sysctl { name: name.to_owned(), value: value.to_owned(), path: components.iter().collect() })
}

/// Splits a name as sysctl.d(5) does: the first separator decides which of `.` and `/` separates;
/// in the dotted form a slash stands for a dot (`net.ipv4.conf.eth0/100.forwarding`).
fn components(name: &str) -> Option<Vec<String>> {
    let separator = name.chars().find(|c| matches!(c, '.' | '/'))?;
    let components: Vec<String> = name
        .split(separator)
        .map(|part| if separator == '.' { part.replace('/', ".") } else { part.to_owned() })
        .collect();
    let good = |part: &String| !part.is_empty() && part != "." && part != ".." && !part.contains(['\0', '/']);
    components.iter().all(good).then_some(components)
}

/// The namespace that a sysctl belongs to; `None` for those of the node. The list is the kubelet's
/// (Kubernetes documentation, "Using sysctls in a Kubernetes Cluster") plus the uts names.
fn namespace_of(components: &[String]) -> Option<Kind> {
    let components: Vec<&str> = components.iter().map(String::as_str).collect();
    match components.as_slice() {
        ["net", _, ..] => Some(Kind::Net),
        ["kernel", "sem"] | ["fs", "mqueue", _, ..] => Some(Kind::Ipc),
        ["kernel", name] if name.starts_with("shm") || name.starts_with("msg") => Some(Kind::Ipc),
        ["kernel", "hostname" | "domainname"] => Some(Kind::Uts),
        _ => None,
    }
}

// === impl Kind ===

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::User, Self::Net, Self::Ipc, Self::Uts];

    /// The name of its file in `/proc/PID/ns`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
        }
    }

    /// What the kernel's `NS_GET_NSTYPE` answers for it.
    pub(crate) fn clone_flag(self) -> libc::c_int {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Net => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
        }
    }

    pub(crate) fn asked(self, request: &CreateRequest) -> bool {
        match self {
            Self::User => request.user.is_some(),
            Self::Net => request.network,
            Self::Ipc => request.ipc,
            Self::Uts => request.uts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> CreateRequest {
        CreateRequest { id: "a".to_owned(), network: true, ipc: true, uts: true, ..Default::default() }
    }

    fn path(name: &str) -> std::result::Result<String, String> {
        sysctl(&all(), name, "1").map(|s| s.path.display().to_string()).map_err(|e| match e {
            Error::Sysctl { source, .. } => source.to_string(),
            other => other.to_string(),
        })
    }

    #[test]
    fn names_are_read_in_both_forms() {
        for (name, expected) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
            ("kernel/msgmax", "kernel/msgmax"),
            ("kernel.sem", "kernel/sem"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
            ("kernel.domainname", "kernel/domainname"),
        ] {
            assert_eq!(path(name).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn names_of_the_node_and_ways_out_are_refused() {
        for name in [
            "kernel.panic",
            "kernel.core_pattern",
            "kernel.semaphore",
            "kernel.shm/../core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "fs.mqueue",
            "net",
            "",
            ".",
            "net/../kernel/core_pattern",
            "net.ipv4.//.forwarding",
            "net..ipv4",
            "/net/ipv4/ip_forward",
            "net.ipv4.",
        ] {
            assert!(path(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_sysctl_of_a_shared_namespace_is_refused_and_says_why() {
        let shared = CreateRequest { id: "a".to_owned(), ..Default::default() };
        for (name, kind) in
            [("net.ipv4.ip_forward", "net"), ("kernel.shmmax", "ipc"), ("kernel.hostname", "uts")]
        {
            let error = sysctl(&shared, name, "1").unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(&format!("the host's {kind} namespace")), "{cause}");
        }
    }

    #[test]
    fn ids_are_file_names() {
        for id in ["a", "A-1_b.c", ".a", &"x".repeat(128)] {
            assert!(validate_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(validate_id(id).is_err(), "{id}");
        }
    }

    proptest! {
        #[test]
        fn no_sysctl_leaves_its_folder(name in "(net|kernel|fs)?[./a-z0-9]{0,30}") {
            if let Ok(sysctl) = sysctl(&all(), &name, "1") {
                use std::path::Component;
                prop_assert!(sysctl.path.components().all(|c| matches!(c, Component::Normal(_))));
                prop_assert!(["net", "kernel", "fs"].iter().any(|top| sysctl.path.starts_with(top)));
                prop_assert!(sysctl.path.components().count() >= 2);
            }
        }
    }
}
