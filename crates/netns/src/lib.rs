// SPDX-License-Identifier: Apache-2.0
//! Persistent namespaces that exist before the pod and outlive every process in it.
//!
//! A namespace is kept by bind-mounting its `/proc/.../ns/KIND` file on an empty file. The network
//! namespace of pod ID is pinned at `<netns dir>/hull.ID` (other programs look there), the pod's user, ipc
//! and uts namespaces at `<ns dir>/ID/{user,ipc,uts}`. All names derive from the id, so a daemon that died
//! in the middle knows what to remove. A pod with a user namespace has its other namespaces made inside of it,
//! so that they belong to its root ([`helper`]).
//!
//! ```text
//!            create                    remove, close
//! absent ------------> pinned ------------------------> absent
//!    ^                    |                                ^
//!    |   leftover file    | unmounted behind our back      | remove: any number of times,
//!    +---- (no mount) <---+ -------------------------------+ in any order, also after a restart
//! ```
//!
//! Only this crate calls `unshare` and `setns`, always on a fresh thread, or in a process, that ends afterwards.

#[cfg(feature = "contract")]
pub mod contract;
mod dial;
mod error;
pub mod helper;
mod linux;
mod mapping;
pub mod mock;
mod request;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use dial::{Connection, DialRequest};
pub use error::{Error, Result};
pub use linux::{FORMER_PREFIX, Helper, LinuxConfig, LinuxNetNs, PREFIX, enter};
pub use mapping::{IdMapping, UserMappings};
pub use request::refused_sysctl;

/// Makes, verifies and removes pinned namespaces, and connects to what listens in them.
#[async_trait]
pub trait NetNsManager: Debug + Send + Sync {
    /// Makes and pins the namespaces of a pod. A leftover of the same id that is no namespace is
    /// cleaned first; a living one is [`Error::AlreadyExists`]. On error nothing is left.
    async fn create(&self, request: &CreateRequest) -> Result<PodNamespaces>;

    /// Verifies that what is pinned for `id` really are namespaces and returns them.
    /// [`Error::NotFound`] if nothing is there, [`Error::NotANamespace`] if something else is.
    async fn open(&self, id: &str) -> Result<PodNamespaces>;

    /// Makes a user namespace that nobody pins: it lives as long as the file is open.
    async fn user_namespace(&self, mappings: &UserMappings) -> Result<File>;

    /// Verifies that `path` is a network namespace: a pinned one, or `/proc/PID/ns/net` where nothing is pinned.
    async fn open_path(&self, path: &Path) -> Result<NetNsPath>;

    /// Unpins and removes everything of `id`. Idempotent.
    async fn remove(&self, id: &str) -> Result<()>;

    /// Waits until pins may have been lost since the call before; the first call answers at once, and what was lost
    /// before it counts. Coarse: [`Self::open`] tells whether one was. One caller at a time.
    async fn changed(&self) -> Result<()>;

    /// The ids that have something pinned, or a leftover of it that [`Self::remove`] would clean; sorted. In a folder that is
    /// shared they may be another daemon's.
    async fn list(&self) -> Result<Vec<String>>;

    /// Connects to a TCP port of localhost as a process in the namespace would: 127.0.0.1, and where that does not
    /// answer ::1. Cancel-safe; nothing is left of a call that was dropped.
    ///
    /// [`Error::NotConnected`] if neither answers, [`Error::TimedOut`] after the request's deadline,
    /// [`Error::NotFound`] if the namespace is gone.
    async fn dial(&self, request: &DialRequest) -> Result<Connection>;
}

/// Which namespaces to pin for a pod, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateRequest {
    /// The pod sandbox's id: `[A-Za-z0-9_.-]`, at most 128 characters.
    pub id: String,
    /// A user namespace of its own with these ids, to which the other namespaces belong; without: the host's.
    pub user: Option<UserMappings>,
    /// A network namespace of its own; without: the host's.
    pub network: bool,
    /// An ipc namespace of its own.
    pub ipc: bool,
    /// A uts namespace of its own.
    pub uts: bool,
    /// For the uts namespace: at most 64 bytes. Empty: as the host. Ignored without `uts`.
    pub hostname: String,
    /// Dotted or slashed names under `/proc/sys` with values, set inside the namespaces. One of a
    /// namespace that the pod shares with the host is [`Error::Sysctl`].
    pub sysctls: BTreeMap<String, String>,
}

/// A pod's pinned namespaces; `None` where the pod uses the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNamespaces {
    /// The user namespace.
    #[serde(default)]
    pub user: Option<PathBuf>,
    /// The network namespace.
    pub network: Option<NetNsPath>,
    /// The ipc namespace.
    pub ipc: Option<PathBuf>,
    /// The uts namespace.
    pub uts: Option<PathBuf>,
}

/// The path of a verified network namespace. The type that `hull-pod-network` takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetNsPath(PathBuf);

// === impl NetNsPath ===

impl NetNsPath {
    /// Takes a path on trust: for records and mocks. [`NetNsManager::open_path`] verifies.
    pub fn unverified(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}
