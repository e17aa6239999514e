// SPDX-License-Identifier: Apache-2.0
//! Images on disk: references, records, layers by diff id, overlay roots for containers.
//!
//! ```text
//! <root>/images/<image id>.json     image records: names, digests, config, layers
//! <root>/leases/                    which layers containers' roots lie on
//! <root>/blobs/sha256/<hex>         manifests and configs
//! <root>/layers/<diff id hex>/      one unpacked layer each; `tmp/` beside it while being made
//! <container dir>/{upper,work,merged}   a container's root: overlay over its image's layers
//! ```
//! Everything becomes visible by a rename after an fsync; what a crash leaves lies under `tmp/`.

mod catalog;
#[cfg(feature = "contract")]
pub mod contract;
pub mod digest;
mod error;
pub mod import;
pub mod layer;
pub mod local;
pub mod mock;
pub mod overlay;
pub mod reference;
mod retry;
mod tar_stream;
#[cfg(feature = "contract")]
pub mod testing;
mod tree;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use digest::Digest;
pub use error::{Error, PullError, Result};
pub use hull_registry as registry;
pub use local::{LocalConfig, LocalImageStore};
pub use mock::MockImageStore;
pub use reference::Reference;

/// Keeps images and gives containers their roots.
#[async_trait]
pub trait ImageStore: Debug + Send + Sync {
    /// Every image, one entry per image id. Served from a snapshot; never blocks.
    fn list(&self) -> Vec<Arc<Image>>;

    /// The image that a name, digest, id, or unambiguous id prefix of at least 4 digits means. Never blocks.
    /// [`Error::InvalidReference`], [`Error::Ambiguous`].
    fn find(&self, reference: &str) -> Result<Option<Arc<Image>>>;

    /// Brings an image here from its registry. A tag is always asked for there; a digest that is present is not.
    ///
    /// Callers of the same image with the same credentials share one pull, which ends when none of them waits any more.
    async fn pull(&self, request: &PullRequest) -> Result<Arc<Image>>;

    /// Takes the images of an OCI layout (directory or archive) or a docker archive.
    async fn import(&self, path: &Path) -> Result<Vec<Arc<Image>>>;

    /// Removes an image with all its names. A missing one is a success. Layers that a root uses stay until it goes.
    async fn remove(&self, reference: &str) -> Result<()>;

    /// Makes a container's root. What it makes derives from the request, so `remove_root` undoes a half-made one.
    async fn prepare_root(&self, request: &RootRequest) -> Result<PathBuf>;

    /// Whether roots can be made for a user namespace, by path: makes one, and takes it away again.
    async fn check_mapped_roots(&self, userns: &Path) -> Result<()>;

    /// Unmounts and deletes a container's root. Idempotent.
    async fn remove_root(&self, dir: &Path) -> Result<()>;

    /// Space and inodes used by a container's writable layer.
    async fn root_usage(&self, dir: &Path) -> Result<Usage>;

    /// Where images are kept, and the space they use.
    async fn usage(&self) -> Result<(PathBuf, Usage)>;

    /// The directories of containers that have a root here, also of those that a crash left half made. Never blocks.
    fn roots(&self) -> Vec<PathBuf>;

    /// What lies in the store and no image, root or pull needs: layers and blobs that could not be deleted.
    async fn unused(&self) -> Result<Vec<PathBuf>>;

    /// Deletes it. What cannot be deleted stays, and is an error after all was tried.
    async fn collect_unused(&self) -> Result<()>;
}

/// What to pull.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullRequest {
    /// The image, in any form.
    pub reference: String,
    /// Credentials from the caller.
    pub auth: Option<Auth>,
}

/// Credentials for one registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// base64 of `user:password`; wins over the two.
    pub auth: String,
    /// The registry they are for.
    pub server_address: String,
    /// OAuth2 refresh token.
    pub identity_token: String,
    /// Bearer token.
    pub registry_token: String,
}

/// A container that wants a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRequest {
    /// The image's id.
    pub image_id: String,
    /// A directory of this container alone, on the store's file system; need not exist. `upper`, `work` and `merged` are made in it.
    pub dir: PathBuf,
    /// The path of the user namespace whose ids own the root: root inside is root in the image. `None`: the host's.
    pub userns: Option<PathBuf>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// sha256 of the config blob: 64 hex digits.
    pub id: String,
    /// Full names with tag (`docker.io/library/busybox:latest`).
    pub repo_tags: Vec<String>,
    /// Full names with digest (`docker.io/library/busybox@sha256:...`).
    pub repo_digests: Vec<String>,
    /// Bytes of all layers, uncompressed, with manifest and config: never 0.
    pub size: u64,
    /// Diff ids of the layers, lowest first (`sha256:...`).
    pub layers: Vec<String>,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Never collected by the kubelet.
    pub pinned: bool,
}

/// What an image says about running it (image-spec, "config"). Keys may be null in the file: empty here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `user[:group]`, names or numbers.
    pub user: String,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// The program.
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    pub cmd: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// Paths that should be volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name or number; empty: SIGTERM.
    pub stop_signal: String,
    /// GOARCH.
    pub architecture: String,
    /// GOOS.
    pub os: String,
}

/// Space and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

// === impl Auth ===

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs.
        f.debug_struct("Auth")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}
