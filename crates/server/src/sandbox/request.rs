// SPDX-License-Identifier: Apache-2.0
//! What a RunPodSandbox request must be, and when two of them ask for the same pod. Pure.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use hull_cri_api::v1;
use hull_pod_network::{DnsConfig, PortMapping, Protocol};
use sha2::{Digest, Sha256};

use crate::cgroup;
use crate::config::CgroupDriver;
use crate::error::{Error, Result};
use crate::limits;
use crate::model::SandboxKey;
use crate::spec;

const OPERATION: &str = "RunPodSandbox";

/// The longest name, namespace, uid or hostname taken; the kubelet's own are at most 253.
const MAX_NAME: usize = 253;
/// The most labels, and the most annotations.
const MAX_PAIRS: usize = 16 << 10;

/// The most bytes of servers, searches and options together: the pod's files have little room.
const MAX_DNS: usize = 64 * 1024;

pub(crate) fn invalid(operation: &'static str, field: &str, problem: impl Into<String>) -> Error {
    Error::InvalidArgument { operation, field: field.to_owned(), problem: problem.into() }
}

/// Checks a pod's configuration and returns its key.
pub(crate) fn validate(config: &v1::PodSandboxConfig, driver: CgroupDriver) -> Result<SandboxKey> {
    let metadata =
        config.metadata.as_ref().ok_or_else(|| invalid(OPERATION, "config.metadata", "is missing"))?;
    for (field, value) in [
        ("config.metadata.name", &metadata.name),
        ("config.metadata.namespace", &metadata.namespace),
        ("config.metadata.uid", &metadata.uid),
    ] {
        name(OPERATION, field, value)?;
    }
    if config.hostname.len() > 64 {
        return Err(invalid(OPERATION, "config.hostname", "is longer than the kernel's 64 bytes"));
    }
    if !config.hostname.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        return Err(invalid(OPERATION, "config.hostname", "may hold letters, digits, '-', '.' and '_' only"));
    }
    if !config.log_directory.is_empty() {
        clean_absolute(OPERATION, "config.log_directory", &config.log_directory)?;
    }
    limits::message(OPERATION, "config", config, limits::CONFIG)?;
    pairs(OPERATION, "config.labels", &config.labels)?;
    pairs(OPERATION, "config.annotations", &config.annotations)?;
    port_mappings(config)?;
    dns(config)?;
    if let Some(linux) = &config.linux {
        sysctls(linux)?;
        namespaced_sysctls(linux)?;
        if !linux.cgroup_parent.is_empty() {
            cgroup::parent(OPERATION, driver, &linux.cgroup_parent)?;
        }
        namespaces(linux)?;
    }
    spec::unsupported::refuse_in_pod(config)?;
    Ok(SandboxKey {
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        attempt: metadata.attempt,
    })
}

/// A name that may stand in messages, files and annotations.
pub(crate) fn name(operation: &'static str, field: &str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(invalid(operation, field, "must not be empty"));
    }
    if value.len() > MAX_NAME {
        return Err(invalid(
            operation,
            field,
            format!("is {} bytes long; at most {MAX_NAME} are taken", value.len()),
        ));
    }
    if value.contains(|c: char| c.is_control() || c == '/') {
        return Err(invalid(operation, field, "must not contain control characters or '/'"));
    }
    Ok(())
}

pub(crate) fn pairs(
    operation: &'static str,
    field: &str,
    map: &std::collections::HashMap<String, String>,
) -> Result<()> {
    if map.len() > MAX_PAIRS {
        let problem = format!("has {} entries; at most {MAX_PAIRS} are taken", map.len());
        return Err(invalid(operation, field, problem));
    }
    if map.contains_key("") {
        return Err(invalid(operation, field, "a key is empty"));
    }
    Ok(())
}

/// An absolute path without `..` or NUL, at most `PATH_MAX` long.
pub(crate) fn clean_absolute(operation: &'static str, field: &str, path: &str) -> Result<PathBuf> {
    if path.contains('\0') {
        return Err(invalid(operation, field, "contains a NUL byte"));
    }
    if path.len() >= 4096 {
        return Err(invalid(operation, field, "is longer than the kernel's 4095 bytes"));
    }
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(invalid(operation, field, format!("{} is not absolute", path.display())));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(invalid(operation, field, format!("{} leaves its directory by '..'", path.display())));
    }
    Ok(path.components().collect())
}

/// Each becomes a word of `/etc/resolv.conf`: with white space in it, it would be more than that.
fn dns(config: &v1::PodSandboxConfig) -> Result<()> {
    let Some(dns) = &config.dns_config else { return Ok(()) };
    let bytes: usize =
        [&dns.servers, &dns.searches, &dns.options].into_iter().flatten().map(String::len).sum();
    if bytes > MAX_DNS {
        let problem = format!("has {bytes} bytes of names; at most {MAX_DNS} are taken");
        return Err(invalid(OPERATION, "config.dns_config", problem));
    }
    for (field, words) in [("servers", &dns.servers), ("searches", &dns.searches), ("options", &dns.options)]
    {
        let odd =
            |word: &&String| word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control());
        if let Some(word) = words.iter().find(odd) {
            let problem = format!("{word:?} is empty or has white space in it");
            return Err(invalid(OPERATION, &format!("config.dns_config.{field}"), problem));
        }
    }
    Ok(())
}

/// A name is one of a file below `/proc/sys`, with dots or slashes.
fn sysctls(linux: &v1::LinuxPodSandboxConfig) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    for (name, value) in &linux.sysctls {
        let field = format!("config.linux.sysctls[{name:.60}]");
        let parts: Vec<&str> = name.split(['.', '/']).collect();
        if parts.len() < 2 || parts.iter().any(|part| part.is_empty()) || !name.chars().all(fine) {
            return Err(invalid(OPERATION, &field, "is not a sysctl such as net.core.somaxconn"));
        }
        if value.contains('\0') || value.len() > 4096 {
            return Err(invalid(
                OPERATION,
                &field,
                "the value is longer than a page, or has a NUL byte in it",
            ));
        }
    }
    Ok(())
}

/// A sysctl of the node, or of a namespace that the pod shares with it, would change what is not the pod's.
fn namespaced_sysctls(linux: &v1::LinuxPodSandboxConfig) -> Result<()> {
    let options = linux.security_context.as_ref().and_then(|it| it.namespace_options.as_ref());
    let own = |mode: fn(&v1::NamespaceOption) -> i32| {
        options.is_none_or(|options| mode(options) != v1::NamespaceMode::Node as i32)
    };
    let (network, ipc) = (own(|it| it.network), own(|it| it.ipc));
    let sysctls = linux.sysctls.clone().into_iter().collect();
    let request = hull_netns::CreateRequest { network, ipc, uts: network, sysctls, ..Default::default() };
    match hull_netns::refused_sysctl(&request) {
        Some((name, problem)) => {
            Err(invalid(OPERATION, &format!("config.linux.sysctls[{name:.60}]"), problem))
        }
        None => Ok(()),
    }
}

fn namespaces(linux: &v1::LinuxPodSandboxConfig) -> Result<()> {
    let Some(options) =
        linux.security_context.as_ref().and_then(|context| context.namespace_options.as_ref())
    else {
        return Ok(());
    };
    let field = "config.linux.security_context.namespace_options";
    let mode = |name: &str, value: i32| {
        v1::NamespaceMode::try_from(value)
            .map_err(|_| invalid(OPERATION, &format!("{field}.{name}"), format!("unknown mode {value}")))
    };
    for (name, value) in [("network", options.network), ("ipc", options.ipc)] {
        if !matches!(mode(name, value)?, v1::NamespaceMode::Pod | v1::NamespaceMode::Node) {
            return Err(invalid(
                OPERATION,
                &format!("{field}.{name}"),
                "must be POD or NODE for a pod sandbox",
            ));
        }
    }
    if mode("pid", options.pid)? == v1::NamespaceMode::Target {
        return Err(invalid(OPERATION, &format!("{field}.pid"), "TARGET is for containers"));
    }
    let Some(user) = &options.userns_options else { return Ok(()) };
    if !has_user_namespace(user, mode("userns_options.mode", user.mode)?)? {
        return Ok(());
    }
    // On the host's network is fine: what the pod may do there is what anybody may.
    for (name, value) in [("pid", options.pid), ("ipc", options.ipc)] {
        if value == v1::NamespaceMode::Node as i32 {
            let problem = "must not be NODE for a pod with a user namespace of its own";
            return Err(invalid(OPERATION, &format!("{field}.{name}"), problem));
        }
    }
    if linux.security_context.as_ref().is_some_and(|context| context.privileged) {
        let problem = "a pod with a user namespace of its own cannot be privileged";
        return Err(invalid(OPERATION, "config.linux.security_context.privileged", problem));
    }
    Ok(())
}

/// Whether the pod has one of its own, as it says well.
fn has_user_namespace(user: &v1::UserNamespace, mode: v1::NamespaceMode) -> Result<bool> {
    let field = "config.linux.security_context.namespace_options.userns_options";
    match mode {
        v1::NamespaceMode::Node if user.uids.is_empty() && user.gids.is_empty() => return Ok(false),
        v1::NamespaceMode::Node => {
            return Err(invalid(OPERATION, field, "NODE is the host's user namespace and takes no mappings"));
        }
        v1::NamespaceMode::Container | v1::NamespaceMode::Target => {
            return Err(invalid(OPERATION, &format!("{field}.mode"), "must be POD or NODE"));
        }
        v1::NamespaceMode::Pod => {}
    }
    for (name, mappings) in [("uids", &user.uids), ("gids", &user.gids)] {
        let field = format!("{field}.{name}");
        let [mapping] = mappings.as_slice() else {
            let problem = format!("has {} mappings; exactly one is taken", mappings.len());
            return Err(invalid(OPERATION, &field, problem));
        };
        if mapping.container_id != 0 || mapping.length == 0 {
            return Err(invalid(OPERATION, &field, "must map the container's id 0"));
        }
        if mapping.host_id.checked_add(mapping.length).is_none() {
            return Err(invalid(OPERATION, &field, "goes beyond the largest id of the host"));
        }
    }
    Ok(true)
}

fn port_mappings(config: &v1::PodSandboxConfig) -> Result<Vec<PortMapping>> {
    config
        .port_mappings
        .iter()
        .enumerate()
        .filter(|(_, mapping)| mapping.host_port != 0)
        .map(|(index, mapping)| {
            let field = |name: &str| format!("config.port_mappings[{index}].{name}");
            let port = |name: &str, value: i32| {
                u16::try_from(value).ok().filter(|port| *port > 0).ok_or_else(|| {
                    invalid(OPERATION, &field(name), format!("{value} is not a port (1 to 65535)"))
                })
            };
            let protocol = match v1::Protocol::try_from(mapping.protocol) {
                Ok(v1::Protocol::Tcp) => Protocol::Tcp,
                Ok(v1::Protocol::Udp) => Protocol::Udp,
                Ok(v1::Protocol::Sctp) => Protocol::Sctp,
                Err(_) => return Err(invalid(OPERATION, &field("protocol"), "unknown protocol")),
            };
            let host_ip = match mapping.host_ip.as_str() {
                "" => None,
                text => Some(text.parse::<IpAddr>().map_err(|_| {
                    invalid(OPERATION, &field("host_ip"), format!("{text:?} is not an IP address"))
                })?),
            };
            Ok(PortMapping {
                protocol,
                container_port: port("container_port", mapping.container_port)?,
                host_port: port("host_port", mapping.host_port)?,
                host_ip,
            })
        })
        .collect()
}

/// What the network is asked for; the configuration has been validated.
pub(crate) fn attach_request(
    id: &str,
    config: &v1::PodSandboxConfig,
    netns: &Path,
) -> Result<hull_pod_network::AttachRequest> {
    let metadata = config.metadata.clone().unwrap_or_default();
    Ok(hull_pod_network::AttachRequest {
        sandbox_id: id.to_owned(),
        pod_name: metadata.name,
        pod_namespace: metadata.namespace,
        pod_uid: metadata.uid,
        netns: netns.to_owned(),
        cgroup_parent: config
            .linux
            .as_ref()
            .map(|linux| linux.cgroup_parent.clone())
            .filter(|p| !p.is_empty()),
        annotations: config.annotations.clone().into_iter().collect(),
        port_mappings: port_mappings(config)?,
        dns: config.dns_config.clone().map(|dns| DnsConfig {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
    })
}

/// Whether two requests with one key ask for the same pod: what changes the pod, and nothing that
/// the kubelet may send differently in a retry.
pub(crate) fn fingerprint(config: &v1::PodSandboxConfig, handler: &str) -> String {
    use prost::Message;
    let linux = config.linux.clone().unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(handler.as_bytes());
    add(config.hostname.as_bytes());
    add(config.log_directory.as_bytes());
    add(linux.cgroup_parent.as_bytes());
    add(&context.namespace_options.unwrap_or_default().encode_to_vec());
    add(&[u8::from(context.privileged)]);
    for mapping in &config.port_mappings {
        add(&mapping.encode_to_vec());
    }
    add(config.annotations.get("io.kubernetes.container.hash").map_or("", String::as_str).as_bytes());
    crate::id::hex(&hash.finalize())
}

/// `/etc/resolv.conf` as the pod wants it; `None`: as the node's.
pub(crate) fn resolv_conf(dns: Option<&v1::DnsConfig>) -> Option<String> {
    let dns = dns?;
    if dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
        return None;
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "web".into(),
                uid: "u-1".into(),
                namespace: "default".into(),
                attempt: 0,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_minimal_pod_is_fine() {
        assert_eq!(validate(&config(), CgroupDriver::Cgroupfs).unwrap().name, "web");
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Break = fn(&mut v1::PodSandboxConfig);
        let rows: [(Break, &str); 9] = [
            (|c| c.metadata = None, "config.metadata: is missing"),
            (|c| c.metadata.as_mut().unwrap().name.clear(), "config.metadata.name: must not be empty"),
            (
                |c| c.metadata.as_mut().unwrap().uid = "x".repeat(5000),
                "config.metadata.uid: is 5000 bytes long",
            ),
            (
                |c| c.metadata.as_mut().unwrap().namespace = "../x".into(),
                "must not contain control characters or '/'",
            ),
            (|c| c.log_directory = "logs".into(), "config.log_directory: logs is not absolute"),
            (|c| c.log_directory = "/a/../../etc".into(), "leaves its directory by '..'"),
            (|c| c.hostname = "h".repeat(65), "config.hostname: is longer than the kernel's 64 bytes"),
            (
                |c| {
                    c.port_mappings =
                        vec![v1::PortMapping { container_port: 80, host_port: 70000, ..Default::default() }]
                },
                "config.port_mappings[0].host_port: 70000 is not a port",
            ),
            (
                |c| {
                    c.linux = Some(v1::LinuxPodSandboxConfig {
                        cgroup_parent: "a.slice".into(),
                        ..Default::default()
                    })
                },
                "is a systemd slice",
            ),
        ];
        for (break_it, expected) in rows {
            let mut config = config();
            break_it(&mut config);
            let error = validate(&config, CgroupDriver::Cgroupfs).unwrap_err().to_string();
            assert!(error.starts_with("RunPodSandbox: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn resolv_conf_has_a_line_per_server() {
        let dns = v1::DnsConfig {
            servers: vec!["10.0.0.10".into(), "1.1.1.1".into()],
            searches: vec!["a.local".into(), "b.local".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(Some(&dns)).unwrap(),
            "search a.local b.local\nnameserver 10.0.0.10\nnameserver 1.1.1.1\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(Some(&v1::DnsConfig::default())), None);
    }

    #[test]
    fn sysctls_of_the_node_are_refused_by_name() {
        let check = |network, ipc, name: &str| {
            let options = v1::NamespaceOption { network, ipc, ..Default::default() };
            let security_context = Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            });
            let sysctls = [(name.to_owned(), "1".to_owned())].into();
            let linux = Some(v1::LinuxPodSandboxConfig { security_context, sysctls, ..Default::default() });
            validate(&v1::PodSandboxConfig { linux, ..config() }, CgroupDriver::Cgroupfs)
        };
        let (pod, node) = (v1::NamespaceMode::Pod as i32, v1::NamespaceMode::Node as i32);
        for name in ["net.core.somaxconn", "net/ipv4/ip_forward", "kernel.hostname", "kernel/domainname"] {
            assert!(check(pod, node, name).is_ok(), "{name}");
            let error = check(node, pod, name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("config.linux.sysctls[{name}]: the pod shares the host's")),
                "{error}"
            );
        }
        for name in
            ["kernel.shm_rmid_forced", "kernel.msgmax", "kernel.sem", "fs.mqueue.msg_max", "kernel/shmall"]
        {
            assert!(check(node, pod, name).is_ok(), "{name}");
            let error = check(pod, node, name).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
            assert!(error.to_string().contains("the host's ipc namespace"), "{error}");
        }
        for name in ["vm.swappiness", "kernel.pid_max", "kernel.core_pattern", "fs.file-max"] {
            let error = check(pod, pod, name).unwrap_err().to_string();
            assert!(error.contains("it belongs to the whole node"), "{error}");
        }
    }

    #[test]
    fn user_namespaces_that_cannot_be_are_refused_by_name() {
        let mapping = |container_id, length| v1::IdMapping { host_id: 100_000, container_id, length };
        let options = |mode, uids: &[v1::IdMapping], gids: &[v1::IdMapping]| {
            let userns_options = Some(v1::UserNamespace { mode, uids: uids.to_vec(), gids: gids.to_vec() });
            let options = v1::NamespaceOption { userns_options, ..Default::default() };
            let security_context = Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            });
            let linux = Some(v1::LinuxPodSandboxConfig { security_context, ..Default::default() });
            validate(&v1::PodSandboxConfig { linux, ..config() }, CgroupDriver::Cgroupfs)
        };
        let good = [mapping(0, 65536)];
        assert!(options(2, &[], &[]).is_ok());
        assert!(options(0, &good, &good).is_ok());
        // Users and groups need not be the same.
        assert!(options(0, &good, &[mapping(0, 10)]).is_ok());
        let odd = v1::IdMapping { host_id: u32::MAX, container_id: 0, length: 2 };
        for (result, problem) in [
            (options(1, &good, &good), "mode: must be POD or NODE"),
            (options(3, &good, &good), "mode: must be POD or NODE"),
            (options(9, &good, &good), "mode: unknown mode 9"),
            (options(2, &good, &good), "takes no mappings"),
            (options(0, &good, &[]), "gids: has 0 mappings"),
            (options(0, &[mapping(0, 1), mapping(1, 1)], &good), "uids: has 2 mappings"),
            (options(0, &[mapping(1, 65536)], &good), "uids: must map the container's id 0"),
            (options(0, &good, &[mapping(0, 0)]), "gids: must map the container's id 0"),
            (options(0, &[odd], &good), "uids: goes beyond"),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[test]
    fn a_user_namespace_is_not_with_what_is_the_hosts() {
        let check = |change: fn(&mut v1::LinuxSandboxSecurityContext)| {
            let ids = vec![v1::IdMapping { host_id: 100_000, container_id: 0, length: 65536 }];
            let user = v1::UserNamespace { mode: 0, uids: ids.clone(), gids: ids };
            let options = v1::NamespaceOption { userns_options: Some(user), ..Default::default() };
            let mut security =
                v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
            change(&mut security);
            let linux = v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
            validate(&v1::PodSandboxConfig { linux: Some(linux), ..config() }, CgroupDriver::Cgroupfs)
        };
        assert!(check(|it| it.namespace_options.as_mut().unwrap().network = 2).is_ok());
        for (result, field) in [
            (
                check(|it| it.namespace_options.as_mut().unwrap().pid = 2),
                "namespace_options.pid: must not be NODE",
            ),
            (
                check(|it| it.namespace_options.as_mut().unwrap().ipc = 2),
                "namespace_options.ipc: must not be NODE",
            ),
            (check(|it| it.privileged = true), "privileged: a pod with a user namespace"),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_names_are_taken_or_refused(name in ".*", log in ".*", parent in ".*") {
            let mut config = config();
            config.metadata.as_mut().unwrap().name = name;
            config.log_directory = log;
            config.linux = Some(v1::LinuxPodSandboxConfig { cgroup_parent: parent, ..Default::default() });
            let _ = validate(&config, CgroupDriver::Cgroupfs);
            let _ = validate(&config, CgroupDriver::Systemd);
        }
    }
}
