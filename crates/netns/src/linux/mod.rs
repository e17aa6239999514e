// SPDX-License-Identifier: Apache-2.0
//! Namespaces of the kernel, kept by bind mounts.
//!
//! ```text
//! async fn create ── spawn_blocking ── fresh thread: unshare, hostname, sysctls, bind mounts; ends
//!        │                                 with a user namespace: enter what the helper made, instead
//!        └ future dropped? the result is dropped on the other side, and its Drop unpins
//! ```
//! Calls for one id wait for each other inside one instance, so a remove that follows a cancelled
//! create finds what that create is still making. Calls of different instances (two daemons on the
//! same directories) are kept apart by `O_EXCL` alone.

mod busy;
mod dial;
mod enter;
mod pin;
mod share;
mod unpin;
mod userns;
mod verify;
mod watch;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::request::{Kind, validate, validate_id};
use crate::{
    Connection, CreateRequest, DialRequest, Error, NetNsManager, NetNsPath, PodNamespaces, Result,
    UserMappings,
};
use busy::Busy;
pub use enter::enter;

/// What the name of a pinned network namespace begins with: `hull.ID`.
pub const PREFIX: &str = "hull.";
/// What it began with in a former version: `hull-ID`. `hull check` of that version takes whatever is named so for its own,
/// and unpins it.
pub const FORMER_PREFIX: &str = "hull-";

/// Where [`LinuxNetNs`] keeps things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxConfig {
    /// The folder of network namespaces, made a shared mount of its own as `ip netns` does.
    pub netns_dir: PathBuf,
    /// What the names in `netns_dir` begin with. Others use the same folder, another Hull too: a name alone does not prove
    /// who made it.
    pub prefix: String,
    /// What they began with before; pins of this name are opened and removed, and none is made.
    pub former_prefix: Option<String>,
    /// The folder of user, ipc and uts namespaces.
    pub ns_dir: PathBuf,
    /// Who makes user namespaces.
    pub helper: Helper,
}

/// A program that calls [`crate::helper::run_if_asked`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// Its path.
    pub program: PathBuf,
    /// What it needs to hear; the kinds of namespaces come after that.
    pub args: Vec<OsString>,
}

/// Pins namespaces of the kernel. Needs CAP_SYS_ADMIN.
#[derive(Debug, Clone)]
pub struct LinuxNetNs {
    layout: Arc<LinuxConfig>,
    busy: Arc<Busy>,
    dialer: dial::Dialer,
    mounts: Arc<watch::Mounts>,
}

// === impl LinuxConfig ===

impl Default for LinuxConfig {
    fn default() -> Self {
        Self {
            netns_dir: PathBuf::from("/run/netns"),
            prefix: PREFIX.to_owned(),
            former_prefix: Some(FORMER_PREFIX.to_owned()),
            ns_dir: PathBuf::from("/run/hull/ns"),
            helper: Helper::default(),
        }
    }
}

impl Default for Helper {
    /// This very program, also where its file has been replaced meanwhile.
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), args: vec![OsString::from(crate::helper::ARGUMENT)] }
    }
}

impl LinuxConfig {
    /// Where a namespace is pinned.
    fn path(&self, kind: Kind, id: &str) -> PathBuf {
        match kind {
            Kind::Net => self.netns_dir.join(format!("{}{id}", self.prefix)),
            Kind::User | Kind::Ipc | Kind::Uts => self.folder(id).join(kind.name()),
        }
    }

    /// Where a former version pinned it, if that was elsewhere.
    fn former_path(&self, kind: Kind, id: &str) -> Option<PathBuf> {
        let prefix = self.former_prefix.as_ref().filter(|_| kind == Kind::Net)?;
        Some(self.netns_dir.join(format!("{prefix}{id}")))
    }

    /// Where it is pinned now: a pod of a former version keeps its name.
    fn pinned(&self, kind: Kind, id: &str) -> PathBuf {
        let there = |path: &PathBuf| path.symlink_metadata().is_ok();
        self.former_path(kind, id).filter(there).unwrap_or_else(|| self.path(kind, id))
    }

    /// The prefixes of names, the present one first.
    fn prefixes(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.prefix.as_str()).chain(self.former_prefix.as_deref())
    }

    /// The folder of a pod's user, ipc and uts namespaces.
    fn folder(&self, id: &str) -> PathBuf {
        self.ns_dir.join(id)
    }
}

// === impl LinuxNetNs ===

impl LinuxNetNs {
    /// Takes the folders; nothing is made before the first [`NetNsManager::create`].
    pub fn new(config: LinuxConfig) -> Self {
        Self {
            layout: Arc::new(config),
            busy: Arc::default(),
            dialer: dial::Dialer::default(),
            mounts: Arc::default(),
        }
    }

    /// Runs kernel work off the async threads, alone among the calls of its id.
    async fn alone<T: Send + 'static>(
        &self,
        id: &str,
        step: &'static str,
        work: impl FnOnce(&LinuxConfig, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        validate_id(id)?;
        let (layout, busy, id) = (Arc::clone(&self.layout), Arc::clone(&self.busy), id.to_owned());
        let path = layout.path(Kind::Net, &id);
        blocking(step, path, move || {
            let _alone = busy.enter(&id);
            work(&layout, &id)
        })
        .await
    }
}

#[async_trait]
impl NetNsManager for LinuxNetNs {
    async fn create(&self, request: &CreateRequest) -> Result<PodNamespaces> {
        let sysctls = validate(request)?;
        let asked = request.clone();
        let pinned = self
            .alone(&request.id, "create namespaces", move |layout, _| pin::create(layout, asked, sysctls))
            .await?;
        Ok(pinned.keep())
    }

    async fn open(&self, id: &str) -> Result<PodNamespaces> {
        self.alone(id, "open namespaces", verify::open_all).await
    }

    async fn user_namespace(&self, mappings: &UserMappings) -> Result<File> {
        mappings.validate()?;
        let (layout, mappings) = (Arc::clone(&self.layout), mappings.clone());
        let made = blocking("make a user namespace by", layout.helper.program.clone(), move || {
            userns::make(&layout.helper, &mappings, &[Kind::User])
        });
        made.await?.into_user().ok_or_else(|| Error::NotFound { path: PathBuf::from("/proc/self/ns/user") })
    }

    async fn open_path(&self, path: &Path) -> Result<NetNsPath> {
        let path = path.to_owned();
        blocking("open network namespace", path.clone(), move || {
            verify::is_namespace(&path, Kind::Net)?;
            Ok(NetNsPath::unverified(path))
        })
        .await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.alone(id, "remove namespaces", unpin::remove).await
    }

    async fn changed(&self) -> Result<()> {
        self.mounts.changed().await
    }

    async fn list(&self) -> Result<Vec<String>> {
        let layout = Arc::clone(&self.layout);
        blocking("list", self.layout.netns_dir.clone(), move || unpin::list(&layout)).await
    }

    async fn dial(&self, request: &DialRequest) -> Result<Connection> {
        self.dialer.dial(request).await
    }
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    path: PathBuf,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Io { step, path, source: std::io::Error::other(error) }),
    }
}

/// Turns a system call's error into [`Error::Io`].
fn io_error<E: Into<std::io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { step, path, source: source.into() }
}
