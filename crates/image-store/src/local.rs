// SPDX-License-Identifier: Apache-2.0
//! The store on disk.
//!
//! ```text
//! <root>/images/<image id>.json       image records
//! <root>/leases/<hash of dir>.json    which layers a container's root lies on
//! <root>/layer-records/<hex>.json     size and space of a layer
//! <root>/blobs/sha256/<hex>           manifests and configs
//! <root>/layers/<diff id hex>/        one unpacked layer each
//! <root>/tmp/                         what is being made or deleted; emptied at open
//! ```
//! Invariants:
//! - What is under `layers/` is whole: it was synced and then renamed there.
//! - A layer is deleted only when no image record, no lease, no running import and no overlay mount that the
//!   kernel knows names it. A lease is durable before the mount and deleted after the unmount.
//! - A name belongs to one image. A record is written before the record that loses the name; if the
//!   daemon dies between, the newer one wins at the next open.
//! - [`list`](crate::ImageStore::list) and [`find`](crate::ImageStore::find) read a published catalog and wait for nothing.
//! - One layer is worked on by one thread at a time ([`flight`]); the others wait for that layer alone.
//! - A pull belongs to the store and ends when nobody waits for it; what it half made goes with it ([`pull`]).
//!
//! One store has one directory to itself: the daemon locks it.

mod flight;
mod ingest;
mod layers;
mod open;
mod pull;
mod roots;
mod store;
mod unused;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use hull_record::{Quarantined, RecordStore};
use hull_registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::import::Platform;
use crate::layer::{Limits, Privileges};
use crate::reference::Query;
use crate::{Error, Image, ImageStore, PullRequest, Result, RootRequest, Usage};

use crate::catalog::Catalog;
use flight::Flights;
use layers::LayerTable;
use pull::Pulls;
use roots::Lease;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The store's directory, made if it is missing. Everything in it is the store's.
    pub root: PathBuf,
    /// Where records go that cannot be read.
    pub quarantine: PathBuf,
    /// Names of images that the kubelet must not collect: a reference, or a text with `*` at its beginning,
    /// its end or both.
    pub pinned: Vec<String>,
    /// What images are chosen for.
    pub platform: Platform,
    /// What one layer may cost.
    pub limits: Limits,
    /// Whose rights there are. Without root's, roots cannot be mounted.
    pub privileges: Privileges,
    /// How registries are asked.
    pub registry: hull_registry::Config,
    /// How many layers of one image are pulled side by side. 3.
    pub parallel_layers: usize,
}

/// The store on disk.
#[derive(Debug, Clone)]
pub struct LocalImageStore {
    inner: Arc<Inner>,
    pulls: Arc<Pulls>,
}

#[derive(Debug)]
struct Inner {
    config: LocalConfig,
    images: RecordStore,
    leases: RecordStore,
    layer_records: RecordStore,
    quarantined: Vec<Quarantined>,
    /// What readers see.
    catalog: RwLock<Arc<Catalog>>,
    /// One change of records at a time; held by threads that may block, never across an await.
    writer: Mutex<()>,
    table: Mutex<LayerTable>,
    held: Mutex<HashMap<PathBuf, Lease>>,
    flights: Flights,
    registry: Registry,
    next_temporary: AtomicU64,
}

// === impl LocalConfig ===

impl LocalConfig {
    /// The usual store in a directory; bad records go to `quarantine` in it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            quarantine: root.join("quarantine"),
            root,
            pinned: Vec::new(),
            platform: Platform::host(),
            limits: Limits::default(),
            privileges: Privileges::default(),
            registry: hull_registry::Config::default(),
            parallel_layers: 3,
        }
    }
}

// === impl LocalImageStore ===

impl LocalImageStore {
    /// Opens a store, making it if it is missing; clears up what a crash left. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Record`] when the directory itself cannot be used. A bad record is not an error: see
    /// [`quarantined`](Self::quarantined).
    pub fn open(config: LocalConfig) -> Result<Self> {
        Ok(Self { inner: Arc::new(open::open(config)?), pulls: Arc::default() })
    }

    /// Cancels every pull, waits until what they half made is gone, and takes no more. Idempotent.
    pub async fn shutdown(&self) {
        self.pulls.shutdown().await;
    }

    /// Records that could not be read at open.
    pub fn quarantined(&self) -> &[Quarantined] {
        &self.inner.quarantined
    }

    /// Runs blocking work. The token is cancelled when the caller gives up.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, CancellationToken) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        let cancel = CancellationToken::new();
        let _guard = cancel.clone().drop_guard();
        match tokio::task::spawn_blocking(move || work(&inner, cancel)).await {
            Ok(result) => result,
            Err(error) => Err(Error::Io {
                step: "finish work on",
                path: self.inner.config.root.clone(),
                source: std::io::Error::other(error),
            }),
        }
    }
}

#[async_trait]
impl ImageStore for LocalImageStore {
    fn list(&self) -> Vec<Arc<Image>> {
        self.inner.catalog().list()
    }

    fn find(&self, reference: &str) -> Result<Option<Arc<Image>>> {
        let query = Query::parse(reference)?;
        self.inner.catalog().find(&query)
    }

    async fn pull(&self, request: &PullRequest) -> Result<Arc<Image>> {
        pull::pull(&self.inner, &self.pulls, request).await
    }

    async fn import(&self, path: &Path) -> Result<Vec<Arc<Image>>> {
        let path = path.to_owned();
        self.run(move |inner, cancel| inner.import(&path, cancel)).await
    }

    async fn remove(&self, reference: &str) -> Result<()> {
        let query = Query::parse(reference)?;
        self.run(move |inner, _| inner.remove(&query)).await
    }

    async fn prepare_root(&self, request: &RootRequest) -> Result<PathBuf> {
        let request = request.clone();
        self.run(move |inner, _| inner.prepare_root(&request)).await
    }

    async fn check_mapped_roots(&self, userns: &Path) -> Result<()> {
        let userns = userns.to_owned();
        self.run(move |inner, _| inner.check_mapped_roots(&userns)).await
    }

    async fn remove_root(&self, dir: &Path) -> Result<()> {
        let dir = dir.to_owned();
        self.run(move |inner, _| inner.remove_root(&dir)).await
    }

    async fn root_usage(&self, dir: &Path) -> Result<Usage> {
        let upper = dir.join(crate::overlay::UPPER);
        self.run(move |_, _| crate::tree::disk_usage(&upper)).await
    }

    async fn usage(&self) -> Result<(PathBuf, Usage)> {
        let inner = &self.inner;
        let mut usage = lock(&inner.table).usage();
        let blobs = inner.catalog().blob_usage();
        usage.bytes += blobs.bytes;
        usage.inodes += blobs.inodes;
        Ok((inner.config.root.clone(), usage))
    }

    fn roots(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<_> = lock(&self.inner.held).keys().cloned().collect();
        dirs.sort();
        dirs
    }

    async fn unused(&self) -> Result<Vec<PathBuf>> {
        self.run(|inner, _| inner.unused()).await
    }

    async fn collect_unused(&self) -> Result<()> {
        self.run(|inner, _| inner.collect_unused()).await
    }
}

// === impl Inner ===

impl Inner {
    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, catalog: Catalog) {
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
    }

    /// A path under `tmp/` that nothing has yet.
    fn temporary(&self, what: &str) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.config.root.join("tmp").join(format!("{what}-{number}"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left is still consistent: every section is one insertion or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { step, path, source }
}
