// SPDX-License-Identifier: Apache-2.0
//! Images in memory: the same names, ids and errors as the real store, and no layers.
//!
//! A root is a plain directory `merged` with `etc/passwd` and `etc/group`, so that a server can look up users in it
//! without privileges. Operations for [`fail_next`](MockImageStore::fail_next) and
//! [`delay_next`](MockImageStore::delay_next) have the names of the trait's methods: `pull`, `import`, `remove`,
//! `prepare_root`, `check_mapped_roots`, `remove_root`, `root_usage`, `usage`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hull_record::RecordStore;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Pins, Stored};
use crate::digest::Digest;
use crate::import::{self, Platform, Source};
use crate::reference::{Query, Reference};
use crate::{
    Error, Image, ImageConfig, ImageStore, PullError, PullRequest, Result, RootRequest, Usage, overlay, tree,
};

/// Names of files that hold an uncompressed archive for a moment.
static NEXT_SCRATCH: AtomicU64 = AtomicU64::new(0);

/// Requests that are kept for [`MockImageStore::pulled`].
pub const KEPT_PULLS: usize = 100;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";

/// Images in memory.
#[derive(Debug, Default)]
pub struct MockImageStore {
    state: Mutex<State>,
    records: Option<RecordStore>,
}

#[derive(Debug, Default)]
struct State {
    catalog: Catalog,
    /// Image of each root.
    roots: HashMap<PathBuf, String>,
    pull_any: bool,
    pinned: Vec<String>,
    failures: HashMap<String, VecDeque<Error>>,
    delays: HashMap<String, VecDeque<Duration>>,
    /// The oldest first.
    pulled: VecDeque<PullRequest>,
}

// === impl MockImageStore ===

impl MockImageStore {
    /// A store without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that keeps its image records in a directory, so that they survive a restart of the daemon. Blocks.
    ///
    /// # Errors
    /// [`Error::Record`] when the directory cannot be used.
    pub fn persistent(path: &Path) -> Result<Self> {
        let records = RecordStore::open(path.join("images"), path.join("quarantine"), "image", 1)?;
        let mut state = State::default();
        for (_, stored) in records.load_all::<Stored>()?.records {
            state.catalog.insert(stored);
        }
        Ok(Self { state: Mutex::new(state), records: Some(records) })
    }

    /// Adds `docker.io/library/busybox:latest`.
    ///
    /// # Errors
    /// Those of [`add_image`](Self::add_image).
    pub fn with_busybox(self) -> Result<Self> {
        let config = ImageConfig {
            cmd: vec!["sh".to_owned()],
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            ..host_config()
        };
        self.add_image("docker.io/library/busybox:latest", config)?;
        Ok(self)
    }

    /// Registers an image; its id is the sha256 of the full name. One of the same name is replaced.
    ///
    /// # Errors
    /// [`Error::InvalidReference`]; [`Error::Record`] when it cannot be kept.
    pub fn add_image(&self, name: &str, config: ImageConfig) -> Result<Arc<Image>> {
        let name = Reference::parse(name)?;
        let full = name.to_string();
        let id = Digest::of(full.as_bytes());
        let manifest =
            name.digest().map_or_else(|| Digest::of(id.hex().as_bytes()).to_string(), str::to_owned);
        let image = Image {
            id: id.hex().to_owned(),
            repo_tags: if name.tag().is_some() { vec![full] } else { Vec::new() },
            repo_digests: vec![name.at_digest(&manifest).to_string()],
            size: 1024,
            layers: Vec::new(),
            config,
            annotations: BTreeMap::new(),
            pinned: false,
        };
        self.put(image, vec![manifest])
    }

    /// Whether a pull of an unknown image makes one up (with an empty config) or fails.
    pub fn set_pull_any(&self, any: bool) {
        self.lock().pull_any = any;
    }

    /// Patterns of images that are pinned, as in [`LocalConfig::pinned`](crate::LocalConfig::pinned); for images added later.
    pub fn set_pinned(&self, patterns: &[&str]) {
        self.lock().pinned = patterns.iter().map(|&p| p.to_owned()).collect();
    }

    /// Lets the next call of an operation fail. Several wait in line.
    pub fn fail_next(&self, op: &str, error: Error) {
        self.lock().failures.entry(op.to_owned()).or_default().push_back(error);
    }

    /// Lets the next call of an operation take this long first. Several wait in line.
    pub fn delay_next(&self, op: &str, delay: Duration) {
        self.lock().delays.entry(op.to_owned()).or_default().push_back(delay);
    }

    /// What was asked of `pull`, oldest first: the last [`KEPT_PULLS`] of the requests.
    pub fn pulled(&self) -> Vec<PullRequest> {
        self.lock().pulled.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self, op: &str) -> Result<()> {
        let (delay, failure) = {
            let mut state = self.lock();
            let delay = state.delays.get_mut(op).and_then(VecDeque::pop_front);
            (delay, state.failures.get_mut(op).and_then(VecDeque::pop_front))
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Adds names and digests to an image that is there, or a new image; takes its names from others.
    fn put(&self, mut image: Image, manifests: Vec<String>) -> Result<Arc<Image>> {
        let mut state = self.lock();
        let sequence = state.catalog.next_sequence();
        let mut stored_manifests = manifests;
        if let Some(former) = state.catalog.get(&image.id) {
            merge(&mut image.repo_tags, &former.image.repo_tags);
            merge(&mut image.repo_digests, &former.image.repo_digests);
            merge(&mut stored_manifests, &former.manifests);
        }
        image.pinned = Pins::new(&state.pinned).pin(&image);
        let image = Arc::new(image);
        let stored = Stored { image: image.clone(), sequence, manifests: stored_manifests, blob_bytes: 1024 };
        let losers = state.catalog.losers(&stored);
        for stored in std::iter::once(stored).chain(losers) {
            if let Some(records) = &self.records {
                records.put(&stored.image.id, &stored)?;
            }
            state.catalog.insert(stored);
        }
        Ok(image)
    }
}

fn merge(into: &mut Vec<String>, former: &[String]) {
    let new: Vec<String> = former.iter().filter(|name| !into.contains(name)).cloned().collect();
    into.splice(0..0, new);
}

fn host_config() -> ImageConfig {
    ImageConfig {
        architecture: Platform::host().architecture,
        os: "linux".to_owned(),
        ..ImageConfig::default()
    }
}

#[async_trait]
impl ImageStore for MockImageStore {
    fn list(&self) -> Vec<Arc<Image>> {
        self.lock().catalog.list()
    }

    fn find(&self, reference: &str) -> Result<Option<Arc<Image>>> {
        self.lock().catalog.find(&Query::parse(reference)?)
    }

    async fn pull(&self, request: &PullRequest) -> Result<Arc<Image>> {
        // What is no reference is refused before it is kept.
        let query = Query::parse(&request.reference)?;
        {
            let mut state = self.lock();
            state.pulled.push_back(request.clone());
            if state.pulled.len() > KEPT_PULLS {
                state.pulled.pop_front();
            }
        }
        self.enter("pull").await?;
        if let Some(image) = self.lock().catalog.find(&query)? {
            return Ok(image);
        }
        if !self.lock().pull_any {
            let source = PullError::NoRegistry("this store is a mock and does not have it".to_owned());
            return Err(Error::Pull { reference: request.reference.clone(), source });
        }
        self.add_image(&request.reference, host_config())
    }

    async fn import(&self, path: &Path) -> Result<Vec<Arc<Image>>> {
        self.enter("import").await?;
        let number = NEXT_SCRATCH.fetch_add(1, Ordering::Relaxed);
        let scratch = std::env::temp_dir().join(format!("hull-mock-{}-{number}", std::process::id()));
        let source = Source::open(path, &scratch, 1 << 34, CancellationToken::new())?;
        let mut images = Vec::new();
        for mut found in import::read(&source, &Platform::host())? {
            let sizes: Vec<u64> = found
                .layers
                .iter()
                .map(|layer| layer.blob.as_ref().map_or(1024, |(_, size)| *size))
                .collect();
            let (_, manifest) = found.manifest.take().unwrap_or_else(|| import::manifest_for(&found, &sizes));
            let manifest = manifest.to_string();
            let image = Image {
                id: found.id.hex().to_owned(),
                repo_tags: found
                    .names
                    .iter()
                    .filter(|n| n.tag().is_some())
                    .map(Reference::to_string)
                    .collect(),
                repo_digests: found.names.iter().map(|n| n.at_digest(&manifest).to_string()).collect(),
                size: sizes.iter().sum::<u64>() + found.config_bytes.len() as u64,
                layers: found.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
                config: found.config,
                annotations: found.annotations,
                pinned: false,
            };
            images.push(self.put(image, vec![manifest])?);
        }
        Ok(images)
    }

    async fn remove(&self, reference: &str) -> Result<()> {
        self.enter("remove").await?;
        let query = Query::parse(reference)?;
        let mut state = self.lock();
        if let Some(image) = state.catalog.find(&query)? {
            if let Some(records) = &self.records {
                records.delete(&image.id)?;
            }
            state.catalog.remove(&image.id);
        }
        Ok(())
    }

    async fn prepare_root(&self, request: &RootRequest) -> Result<PathBuf> {
        self.enter("prepare_root").await?;
        let image = self
            .find(&request.image_id)?
            .ok_or_else(|| Error::NotPresent { reference: request.image_id.clone() })?;
        let former = self.lock().roots.get(&request.dir).cloned();
        if former.is_some_and(|former| former != image.id) {
            let problem = "it already has a root of another image; remove that first";
            let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, problem);
            return Err(Error::Io { step: "prepare root in", path: request.dir.clone(), source });
        }
        let merged = request.dir.join(overlay::MERGED);
        let etc = merged.join("etc");
        let made = [request.dir.join(overlay::UPPER), request.dir.join(overlay::WORK), etc.clone()]
            .iter()
            .try_for_each(|dir| hull_files::make_dir(dir, 0o755))
            .and_then(|()| hull_files::write(&etc.join("passwd"), PASSWD.as_bytes(), 0o644))
            .and_then(|()| hull_files::write(&etc.join("group"), GROUP.as_bytes(), 0o644));
        made.map_err(|source| Error::Io { step: "make root in", path: request.dir.clone(), source })?;
        self.lock().roots.insert(request.dir.clone(), image.id.clone());
        Ok(merged)
    }

    async fn check_mapped_roots(&self, _userns: &Path) -> Result<()> {
        self.enter("check_mapped_roots").await
    }

    async fn remove_root(&self, dir: &Path) -> Result<()> {
        self.enter("remove_root").await?;
        overlay::delete(dir)?;
        self.lock().roots.remove(dir);
        Ok(())
    }

    async fn root_usage(&self, dir: &Path) -> Result<Usage> {
        self.enter("root_usage").await?;
        tree::disk_usage(&dir.join(overlay::UPPER))
    }

    async fn usage(&self) -> Result<(PathBuf, Usage)> {
        self.enter("usage").await?;
        let images = self.list();
        let usage = Usage { bytes: images.iter().map(|image| image.size).sum(), inodes: images.len() as u64 };
        Ok((PathBuf::from("/"), usage))
    }

    fn roots(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<_> = self.lock().roots.keys().cloned().collect();
        dirs.sort();
        dirs
    }

    async fn unused(&self) -> Result<Vec<PathBuf>> {
        self.enter("unused").await?;
        Ok(Vec::new())
    }

    async fn collect_unused(&self) -> Result<()> {
        self.enter("collect_unused").await
    }
}
