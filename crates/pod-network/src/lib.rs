// SPDX-License-Identifier: Apache-2.0
//! A pod's network: who gives it interfaces and addresses, and takes them back.
//!
//! [`PodNetwork`] has the backends [`cni`] (plugins run as programs), [`bridge`] (built in) and [`mock`].
//!
//! Attaching has two steps, so that a daemon that dies in between knows what to release:
//! [`PodNetwork::plan`] decides everything, the exact configuration bytes included, and the caller
//! makes that [`Attachment`] durable; only then does [`PodNetwork::attach`] do anything. `detach`
//! replays the same bytes, whatever the configuration directory says by then.

pub mod bridge;
pub mod cni;
#[cfg(feature = "contract")]
pub mod contract;
mod error;
mod keyed;
pub mod loopback;
pub mod mock;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use error::{Error, Result};

/// Gives pods their network.
///
/// Calls for one pod never overlap (the caller's part); calls for different pods may. Each plugin
/// process has its own deadline and process group; dropping a future kills what it started.
#[async_trait]
pub trait PodNetwork: Debug + Send + Sync {
    /// Whether pods can be attached now. Answers from what is known: never runs a plugin, never blocks.
    fn status(&self) -> NetworkStatus;

    /// Decides how a pod will be attached. [`Error::NotReady`] while no network is configured.
    async fn plan(&self, request: &AttachRequest) -> Result<Attachment>;

    /// Does it. On error everything that was half done has been released as far as the plugins let
    /// us ([`Error::Attach`] tells both); the caller keeps the attachment for another detach if
    /// that failed too.
    async fn attach(&self, attachment: &Attachment) -> Result<Attached>;

    /// Takes it back. Idempotent, also when the namespace is gone, attach never finished, or the
    /// configuration was removed meanwhile. Stops at the first failing plugin of the chain.
    async fn detach(&self, attachment: &Attachment) -> Result<()>;

    /// Verifies that a pod's network still is as attached (where the plugins can tell).
    async fn check(&self, attachment: &Attachment) -> Result<()>;

    /// Makes a pod's link again that another program has removed, with the addresses it had, where the backend can: tells
    /// whether it had to. A link that is there is left alone, and so is a pod whose namespace is gone.
    async fn restore(&self, attachment: &Attachment) -> Result<bool>;

    /// Releases what the backend holds for us beyond `valid`. Only ever touches attachments that this
    /// daemon's cache knows.
    async fn gc(&self, valid: &[Attachment]) -> Result<()>;

    /// What the backend holds for pods of this daemon now, as far as it can tell; for somebody who looks for what
    /// nobody knows. What is being given back already is left out.
    async fn held(&self) -> Result<Vec<Held>>;
}

/// Something that is held for a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The pod sandbox's id.
    pub sandbox_id: String,
    /// In words: `lease of 10.85.0.2`, `link hv0123456789ab`.
    pub what: String,
}

/// A pod that wants a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// The pod sandbox's id.
    pub sandbox_id: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// The pod's cgroup parent, if any.
    pub cgroup_parent: Option<String>,
    /// The pod's annotations (bandwidth is read from them).
    pub annotations: BTreeMap<String, String>,
    /// Ports of the host that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// The pod's DNS configuration.
    pub dns: Option<DnsConfig>,
}

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Address of the host; `None`: all.
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Name resolution for a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// Everything that attach and detach need; durable before attach begins, deleted last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The pod sandbox's id.
    pub sandbox_id: String,
    /// The network's name.
    pub network: String,
    /// The interface's name inside the pod.
    pub interface: String,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// Ports of the host that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// The backend's own data (for CNI: configuration bytes, arguments, capability arguments).
    pub data: serde_json::Value,
}

/// What a pod got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The backend's full result, for `info`.
    pub result: serde_json::Value,
}

/// Whether pods can be attached now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkStatus {
    /// Yes.
    Ready,
    /// No.
    NotReady {
        /// One word in camel case (`NetworkPluginNotReady`).
        reason: String,
        /// For people: what is missing and what to do.
        message: String,
    },
}
