// SPDX-License-Identifier: Apache-2.0
//! Pod and container configurations as the kubelet writes them: labels, annotations, log paths, a
//! termination log at a random path, service variables in the environment.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use hull_cri_api::v1::*;

use crate::{Daemon, unique};

/// The image of every container here. Real daemons import it, mocks pull it.
pub const IMAGE: &str = "docker.io/library/busybox:latest";

/// A pod to be run.
#[derive(Debug, Clone)]
pub struct Pod {
    /// What RunPodSandbox gets.
    pub config: PodSandboxConfig,
    dir: PathBuf,
}

/// A container to be created.
#[derive(Debug, Clone)]
pub struct Container {
    /// What CreateContainer gets.
    pub config: ContainerConfig,
    dir: PathBuf,
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

impl Pod {
    /// A pod named `name` in namespace `default`, attempt 0, with a uid of its own.
    pub fn new(daemon: &Daemon, name: &str) -> Self {
        let uid = format!("uid-{}", unique());
        let namespaces = NamespaceOption {
            network: NamespaceMode::Pod as i32,
            pid: NamespaceMode::Container as i32,
            ipc: NamespaceMode::Pod as i32,
            ..NamespaceOption::default()
        };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.clone(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: text(&daemon.dir().join(format!("logs/default_{name}_{uid}"))),
            labels: map([
                ("app", name),
                ("io.kubernetes.pod.name", name),
                ("io.kubernetes.pod.namespace", "default"),
                ("io.kubernetes.pod.uid", &uid),
            ]),
            annotations: map([
                ("kubernetes.io/config.seen", "2026-01-02T03:04:05.678901234Z"),
                ("kubernetes.io/config.source", "api"),
            ]),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".to_owned()],
                searches: vec!["default.svc.cluster.local".to_owned(), "cluster.local".to_owned()],
                options: vec!["ndots:5".to_owned()],
            }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: crate::cgroups::pod(daemon.cgroup_parent(), &format!("pod{uid}")),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        Self { config, dir: daemon.dir().to_owned() }
    }

    /// With the attempt that the kubelet sends after a former sandbox of this pod has gone.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.config.metadata.as_mut().expect("metadata").attempt = attempt;
        self
    }

    /// A container of this pod that runs `words`.
    pub fn container(&self, name: &str, words: &[&str]) -> Container {
        let metadata = self.config.metadata.as_ref().expect("metadata");
        let kubelet_dir = self.dir.join(format!("kubelet/{}/{name}", metadata.uid));
        fs::create_dir_all(&kubelet_dir).expect("make the kubelet's directory of a container");
        let hosts = self.dir.join(format!("kubelet/{}/etc-hosts", metadata.uid));
        fs::write(&hosts, "127.0.0.1\tlocalhost\n").expect("write etc-hosts");
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.to_owned(), ..ImageSpec::default() }),
            command: words.iter().map(|&word| word.to_owned()).collect(),
            envs: [
                ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
                ("KUBERNETES_SERVICE_PORT", "443"),
                ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
                ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
            ]
            .into_iter()
            .map(|(key, value)| KeyValue { key: key.to_owned(), value: value.into() })
            .collect(),
            mounts: vec![Mount {
                container_path: "/etc/hosts".to_owned(),
                host_path: text(&hosts),
                ..Mount::default()
            }],
            labels: map([
                ("io.kubernetes.container.name", name),
                ("io.kubernetes.pod.name", &metadata.name),
                ("io.kubernetes.pod.namespace", &metadata.namespace),
                ("io.kubernetes.pod.uid", &metadata.uid),
            ]),
            annotations: map([
                ("io.kubernetes.container.hash", "8c1f2a77"),
                ("io.kubernetes.container.restartCount", "0"),
                ("io.kubernetes.container.terminationMessagePath", "/dev/termination-log"),
                ("io.kubernetes.container.terminationMessagePolicy", "File"),
                ("io.kubernetes.pod.terminationGracePeriod", "30"),
            ]),
            log_path: format!("{name}/0.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources {
                    cpu_shares: 102,
                    // Lower than our own needs a capability that test machines may lack.
                    oom_score_adj: 1000,
                    ..LinuxContainerResources::default()
                }),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: self
                        .config
                        .linux
                        .as_ref()
                        .and_then(|linux| linux.security_context.as_ref())
                        .and_then(|context| context.namespace_options.clone()),
                    ..LinuxContainerSecurityContext::default()
                }),
            }),
            ..ContainerConfig::default()
        };
        Container { config, dir: kubelet_dir }.retried()
    }
}

impl Container {
    /// The same container as the kubelet asks for it again after a timeout: another file for the
    /// termination log, and the service variables in another order.
    #[must_use]
    pub fn retried(mut self) -> Self {
        let path = self.dir.join(unique());
        fs::write(&path, "").expect("write the termination log");
        let mounts = &mut self.config.mounts;
        mounts.retain(|mount| mount.container_path != "/dev/termination-log");
        mounts.push(Mount {
            container_path: "/dev/termination-log".to_owned(),
            host_path: text(&path),
            ..Mount::default()
        });
        self.config.envs.rotate_left(1);
        self
    }

    /// With the attempt that the kubelet sends when it restarts the container.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.config.metadata.as_mut().expect("metadata").attempt = attempt;
        let name = &self.config.metadata.as_ref().expect("metadata").name;
        self.config.log_path = format!("{name}/{attempt}.log");
        self
    }

    /// With an annotation; the mock runtime is steered by `io.hull.mock.*`.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.config.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a memory limit in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: i64) -> Self {
        let linux = self.config.linux.get_or_insert_default();
        linux.resources.get_or_insert_default().memory_limit_in_bytes = bytes;
        self
    }
}

fn text(path: &std::path::Path) -> String {
    path.to_str().expect("a private path is UTF-8").to_owned()
}
