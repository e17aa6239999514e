// SPDX-License-Identifier: Apache-2.0
//! Values for what is not written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_pod_network::bridge;
use oci_spec::runtime::Capability;

use super::{
    BridgeSettings, CgroupDriver, Config, ContainersConfig, HandlerConfig, ImagesBackend, ImagesConfig,
    LogLevel, NetworkBackend, NetworkConfig, RuntimeConfig, RuntimeKind, StreamingConfig, Timeouts,
};
use crate::spec::HandlerPolicy;

/// What a container may do unless it asks for more or less: enough for programs that start as root
/// and step down, nothing that reaches beyond the container (no raw sockets, no device nodes).
pub(super) const CAPABILITIES: [Capability; 9] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::Kill,
];

impl Config {
    /// This configuration with every backend replaced by its mock; paths and timeouts stay.
    pub fn on_mocks(mut self) -> Self {
        for handler in self.runtime.handlers.values_mut() {
            handler.kind = RuntimeKind::Mock;
            handler.policy = policy_of(RuntimeKind::Mock);
        }
        self.network.backend = NetworkBackend::Mock;
        self.images.backend = ImagesBackend::Mock;
        self
    }

    /// A whole configuration on mock backends with every path below `dir`: runs without root and
    /// touches nothing else. One handler, `mock`, which is the default.
    pub fn mock(dir: &Path) -> Self {
        let run_root = dir.join("run");
        let root = run_root.join("runtime/mock");
        let policy = policy_of(RuntimeKind::Mock);
        let handler = HandlerConfig { kind: RuntimeKind::Mock, path: PathBuf::new(), root, policy };
        Self {
            root: dir.join("lib"),
            listen: run_root.join("hull.sock"),
            log_level: LogLevel::Info,
            failpoints: None,
            runtime: RuntimeConfig {
                default: "mock".to_owned(),
                cgroup_driver: CgroupDriver::Cgroupfs,
                conmon: PathBuf::from(CONMON),
                handlers: BTreeMap::from([("mock".to_owned(), handler)]),
            },
            network: NetworkConfig {
                backend: NetworkBackend::Mock,
                cni_conf_dir: dir.join("cni/net.d"),
                cni_conf_template: None,
                cni_bin_dirs: vec![dir.join("cni/bin")],
                netns_dir: run_root.join("netns"),
                exclusive: false,
                bridge: BridgeSettings::default(),
            },
            images: ImagesConfig {
                backend: ImagesBackend::Mock,
                certs_dir: dir.join("certs.d"),
                pinned: Vec::new(),
            },
            run_root,
            streaming: StreamingConfig::default(),
            timeouts: Timeouts::default(),
            containers: ContainersConfig::default(),
        }
    }
}

/// What the containers of a handler may do unless the configuration says otherwise: those of a real runtime, nothing; a
/// mock reads its own annotations alone, and runs nothing.
pub(super) fn policy_of(kind: RuntimeKind) -> HandlerPolicy {
    let mock = (kind == RuntimeKind::Mock).then(|| "io.hull.mock.*".parse().ok()).flatten();
    HandlerPolicy { allowed_annotations: mock.into_iter().collect(), ..HandlerPolicy::default() }
}

/// The monitor, where PATH does not have it.
pub(super) const CONMON: &str = "/usr/bin/conmon";

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            backend: NetworkBackend::Cni,
            cni_conf_dir: PathBuf::from("/etc/cni/net.d"),
            cni_conf_template: None,
            cni_bin_dirs: vec![PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")],
            netns_dir: PathBuf::from("/run/netns"),
            exclusive: false,
            bridge: BridgeSettings::default(),
        }
    }
}

impl Default for BridgeSettings {
    fn default() -> Self {
        Self { name: bridge::DEFAULT_NAME.to_owned(), subnets: bridge::default_subnets(), mtu: None }
    }
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            backend: ImagesBackend::Local,
            certs_dir: PathBuf::from("/etc/hull/certs.d"),
            pinned: Vec::new(),
        }
    }
}

impl Default for StreamingConfig {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            base_url: None,
            tls: None,
            idle_timeout: Duration::from_secs(4 * 3600),
            exec_linger: Duration::from_secs(10),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            // The kubelet waits 2 minutes for CreateContainer and then asks again: a slow creation
            // has the time of two such calls before it is given up.
            create: Duration::from_secs(4 * MINUTE),
            start: Duration::from_secs(MINUTE),
            stop_extra: Duration::from_secs(MINUTE),
            network: Duration::from_secs(2 * MINUTE),
            release: Duration::from_secs(MINUTE),
            exec_extra: Duration::from_secs(10),
            runtime: Duration::from_secs(30),
            pull_idle: Duration::from_secs(MINUTE),
            volume: Duration::from_secs(30),
            unclaimed: Duration::from_secs(5 * MINUTE),
            shutdown: Duration::from_secs(10),
        }
    }
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self {
            default_capabilities: CAPABILITIES.to_vec(),
            pids_limit: None,
            log_size_max: None,
            apparmor_profile: None,
            ulimits: Vec::new(),
            shm_size: 64 << 20,
            cdi_spec_dirs: vec![PathBuf::from("/etc/cdi"), PathBuf::from("/var/run/cdi")],
            host_paths_not_made: Vec::new(),
        }
    }
}
