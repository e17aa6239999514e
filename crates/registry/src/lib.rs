// SPDX-License-Identifier: Apache-2.0
//! Client of the OCI distribution API: manifests and blobs from registries and their mirrors. It knows nothing
//! of what images are on disk.
//!
//! ```no_run
//! # async fn example() -> hull_registry::Result<()> {
//! use hull_registry::{Config, Registry, Repository, Version, Wanted};
//! let registry = Registry::new(Config::default());
//! let session = registry.open(Repository::new("docker.io", "library/busybox"), None).await?;
//! let manifest = session.manifest(Version::Tag("latest")).await?;
//! # let (digest, size) = ("sha256:", 0);
//! let mut layer = session.blob(&Wanted { digest, size, urls: &[] }).await?;
//! while let Some(bytes) = layer.chunk().await? {}
//! # Ok(())
//! # }
//! ```
//! ```text
//! hosts.toml -> endpoints (mirrors, then the registry)
//!   endpoint: authorization -> redirects -> retries -> HTTP/1.1 -> TLS -> proxy -> TCP
//!     manifest: at most 4 MiB, digest and kind checked
//!     blob:     a stream that is taken up again where it broke; size and digest checked at its end
//! ```
//! What never gives way: whatever a digest names is checked against it before its end is told; every wait has a
//! deadline and every retry a bound; credentials are for the registry itself and are in no log, error or `Debug`.

mod auth;
mod blob;
mod challenge;
mod config;
mod connect;
mod credentials;
mod date;
mod digest;
mod endpoint;
mod error;
mod hosts;
pub mod json;
mod manifest;
mod range;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod transport;
mod url;

use std::fmt;

pub use blob::Blob;
pub use config::{Config, Proxy};
pub use credentials::Credentials;
pub use error::{Error, Result};
pub use manifest::{Kind, MAX_MANIFEST, Manifest, Version};
pub use session::{MAX_DOCUMENT, Registry, Session, Wanted};

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `docker.io`, `localhost:5000`: as it stands in image names.
    pub registry: String,
    /// `library/busybox`.
    pub path: String,
}

// === impl Repository ===

impl Repository {
    /// The repository at a path.
    pub fn new(registry: impl Into<String>, path: impl Into<String>) -> Self {
        Self { registry: registry.into(), path: path.into() }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}
