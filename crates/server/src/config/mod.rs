// SPDX-License-Identifier: Apache-2.0
//! The daemon's configuration: TOML files, checked whole before anything starts.
//!
//! ```text
//! /etc/hull/hull.toml            read first (or the file given on the command line)
//! /etc/hull/conf.d/*.toml        beside it, in order of file name; a later value wins
//!        |
//!      parse      text to a tree whose values know file, line and column     (tree)
//!      shape      every file by itself: known keys, right types, usable values  (section, raw)
//!      merge      table by table; an array is replaced, not appended to
//!      resolve    defaults, programs found in PATH, values checked against each other
//!        |
//!      Config     plain values; nothing downstream reads TOML
//! ```
//!
//! A wrong key, type or value is refused with its place and what to write instead. Nothing is
//! ignored: a setting that silently does not apply is an outage that happens later.

mod containers;
mod defaults;
mod duration;
mod error;
mod load;
mod nearest;
mod programs;
mod raw;
mod resolve;
mod section;
mod streaming;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hull_pod_network::bridge::Subnet;
use oci_spec::runtime::Capability;

use crate::spec::HandlerPolicy;
use crate::spec::rlimits::Rlimit;

pub use error::ConfigError;
pub use load::DEFAULT_FILE;
pub use programs::Programs;
pub use tree::Place;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What must survive a reboot: records, images, container roots. `/var/lib/hull`.
    pub root: PathBuf,
    /// What need not: sockets, mounts, exit files. `/run/hull`.
    pub run_root: PathBuf,
    /// The unix socket of the CRI. `/run/hull/hull.sock`; `unix://` is taken off.
    pub listen: PathBuf,
    /// What is logged. `info`.
    pub log_level: LogLevel,
    /// Faults to inject, in the language of `hull_failpoint`; only in builds for tests. They are the process's: they
    /// outlive a server inside a test. Not set.
    pub failpoints: Option<String>,
    /// `[runtime]`.
    pub runtime: RuntimeConfig,
    /// `[network]`.
    pub network: NetworkConfig,
    /// `[images]`.
    pub images: ImagesConfig,
    /// `[streaming]`.
    pub streaming: StreamingConfig,
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// `[containers]`.
    pub containers: ContainersConfig,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed for good.
    Error,
    /// What an operator should look at.
    Warn,
    /// One line per operation.
    Info,
    /// Every step.
    Debug,
    /// Everything.
    Trace,
}

/// `[runtime]`: who runs containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The handler for pods that ask for none; always a key of `handlers`. `runc`.
    pub default: String,
    /// Who makes cgroups. `cgroupfs`.
    pub cgroup_driver: CgroupDriver,
    /// The monitor. Found in PATH, or `/usr/bin/conmon`. Verified to be a program unless every handler is a mock.
    pub conmon: PathBuf,
    /// `[runtime.handlers.NAME]`. Without any: runc and crun, where they are found.
    pub handlers: BTreeMap<String, HandlerConfig>,
}

/// Who makes cgroups; told to the kubelet by RuntimeConfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The daemon and the OCI runtime, by themselves.
    Cgroupfs,
    /// systemd, asked by the daemon and by the OCI runtime. Needs cgroup version 2 alone.
    Systemd,
}

impl CgroupDriver {
    /// The word for it in the configuration and in the kubelet's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

/// One OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerConfig {
    /// How to talk to it.
    pub kind: RuntimeKind,
    /// The program. Found in PATH by the kind's name. Empty for a mock.
    pub path: PathBuf,
    /// Where the runtime keeps its state; no two handlers may share it. `<run_root>/runtime/NAME`.
    pub root: PathBuf,
    /// `allowed_annotations` and `seccomp_allow_socketcall`: what its containers may do beyond the safe default.
    pub policy: HandlerPolicy,
}

/// Which backend drives a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// runc, or something with exactly its command line.
    Runc,
    /// crun.
    Crun,
    /// youki.
    Youki,
    /// In memory; runs nothing.
    Mock,
}

/// `[network]`: who wires pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// How. `cni`. With `mock`, namespaces are not made either.
    pub backend: NetworkBackend,
    /// Where network configurations are. `/etc/cni/net.d`.
    pub cni_conf_dir: PathBuf,
    /// A CNI configuration with places for the node's pod addresses, written into `cni_conf_dir` when the kubelet tells
    /// them; `None`: another program writes it. Not set.
    pub cni_conf_template: Option<PathBuf>,
    /// Where plugins are, searched in order. `/opt/cni/bin`, `/usr/lib/cni`.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Where network namespaces are pinned. `/run/netns`.
    pub netns_dir: PathBuf,
    /// Whether no other program attaches to these networks: only then is CNI's GC verb used. `false`.
    pub exclusive: bool,
    /// `[network.bridge]`.
    pub bridge: BridgeSettings,
}

/// `[network.bridge]`: the built-in network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSettings {
    /// The bridge's name; several daemons on one node need one each. `hull0`.
    pub name: String,
    /// One subnet, or one of each family; the first is the primary one. `10.85.0.0/16` and an IPv6 /64.
    pub subnets: Vec<Subnet>,
    /// The MTU of bridge and pods; `None`: that of the default route's link, or 1500. Not set.
    pub mtu: Option<u32>,
}

/// How pods are wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkBackend {
    /// CNI plugins.
    Cni,
    /// A bridge of our own.
    Bridge,
    /// In memory.
    Mock,
}

/// `[images]`: where images come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesConfig {
    /// Where they are kept. `local`.
    pub backend: ImagesBackend,
    /// Certificates and mirrors, one directory per registry. `/etc/hull/certs.d`.
    pub certs_dir: PathBuf,
    /// Names that the kubelet must not collect; `*` at the end stands for anything. Empty.
    pub pinned: Vec<String>,
}

/// Where images are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagesBackend {
    /// Under `root`.
    Local,
    /// In memory.
    Mock,
}

/// `[streaming]`: where exec, attach and port-forward are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamingConfig {
    /// The address to listen on. `127.0.0.1`.
    pub address: IpAddr,
    /// The TCP port; 0 takes a free one. `0`.
    pub port: u16,
    /// What URLs begin with, where clients reach the daemon by another name: `https://node-7:10010`. `None`: made from the
    /// address and the port. Not set.
    pub base_url: Option<String>,
    /// The daemon's certificate; `None`: plain HTTP. Read again when it changes. Not set.
    pub tls: Option<StreamingTls>,
    /// A session in which nothing moves is ended after this. `4h`.
    pub idle_timeout: Duration,
    /// How long a process whose client has left may take to end by itself before it is killed. `10s`.
    pub exec_linger: Duration,
}

/// `tls_cert`, `tls_key` and `tls_client_ca` of `[streaming]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamingTls {
    /// The certificate chain, the daemon's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities whose clients are let in; `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// `[timeouts]`: after how long a step that hangs has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Making a container: monitor and runtime together. `4m`.
    pub create: Duration,
    /// The runtime's `start`. `1m`.
    pub start: Duration,
    /// How long, after its grace period and SIGKILL, a container may take to die. `1m`.
    pub stop_extra: Duration,
    /// Attaching one pod to the network. `2m`.
    pub network: Duration,
    /// Releasing one pod's network, before it goes to the ledger and the pod counts as stopped. As `network`, at most `1m`.
    pub release: Duration,
    /// How long, beyond its own timeout, an exec may take to be cleaned up. `10s`.
    pub exec_extra: Duration,
    /// Any other single call of the runtime (`state`, `kill`, `delete`, `update`). `30s`.
    pub runtime: Duration,
    /// A registry that sends nothing. `1m`.
    pub pull_idle: Duration,
    /// Mounting and looking at volumes: a hung file server shows here. `30s`.
    pub volume: Duration,
    /// How long a result that its caller did not wait for is kept for the next call. `5m`.
    pub unclaimed: Duration,
    /// How long the daemon's own end may take. `10s`.
    pub shutdown: Duration,
}

/// `[containers]`: what containers get unless they ask for something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainersConfig {
    /// Capabilities before a container's own adds and drops.
    pub default_capabilities: Vec<Capability>,
    /// The most processes of one container; `None`: no limit of its own (the kubelet limits the pod). Not set.
    pub pids_limit: Option<u32>,
    /// Bytes after which the monitor starts a log file anew; `None`: never, the kubelet rotates. Not set.
    pub log_size_max: Option<u64>,
    /// The AppArmor profile, loaded on the node, of containers that ask for RuntimeDefault or for nothing; `None`:
    /// the first are refused where AppArmor is enabled, the others unconfined. Not set.
    pub apparmor_profile: Option<String>,
    /// Limits of every process, cut to what the daemon may set. Empty: those the daemon was started with.
    pub ulimits: Vec<Rlimit>,
    /// Bytes of a pod's `/dev/shm`. 64 MiB.
    pub shm_size: u64,
    /// Where files about vendors' devices (CDI) are; a later directory wins. `/etc/cdi`, `/var/run/cdi`; empty: none.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// Host paths of mounts that are refused where they are missing, instead of made as directories: a directory in the
    /// place of a file such as `/etc/hostname` breaks the node at its next start. Empty.
    pub host_paths_not_made: Vec<PathBuf>,
}

// === impl LogLevel ===

impl LogLevel {
    /// The word for a log filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

// === impl RuntimeKind ===

impl RuntimeKind {
    /// The word in the file, and the program's usual name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Youki => "youki",
            Self::Mock => "mock",
        }
    }
}
