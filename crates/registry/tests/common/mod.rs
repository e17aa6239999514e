// SPDX-License-Identifier: Apache-2.0
//! A client that waits for nothing, and images for it.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "shared test support")]

use std::path::Path;
use std::time::Duration;

use hull_registry::testing::TestRegistry;
use hull_registry::{Config, Credentials, Proxy, Registry, Repository, Result, Session, Wanted};

pub const IMAGE_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const IMAGE: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

/// Short pauses; deadlines that a busy machine keeps.
pub fn config() -> Config {
    Config {
        proxy: Proxy::Direct,
        resume_wait: Duration::from_millis(1),
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_secs(2),
        ..Config::default()
    }
}

pub fn with_hosts(dir: &Path) -> Config {
    Config { certs_dir: Some(dir.to_owned()), ..config() }
}

pub async fn open(config: Config, registry: &str, credentials: Option<&Credentials>) -> Session {
    Registry::new(config).open(Repository::new(registry, "team/app"), credentials).await.unwrap()
}

pub fn password(name: &str, password: &str) -> Credentials {
    Credentials::Password { username: name.to_owned(), password: password.to_owned() }
}

pub fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect()
}

/// A blob, whole.
pub async fn read(session: &Session, digest: &str, size: usize) -> Result<Vec<u8>> {
    let mut blob = session.blob(&Wanted { digest, size: size as u64, urls: &[] }).await?;
    let mut all = Vec::new();
    while let Some(data) = blob.chunk().await? {
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// A registry with the image `team/app:1`.
pub async fn with_image() -> TestRegistry {
    let registry = TestRegistry::start().await;
    registry.put_manifest("team/app", "1", IMAGE_TYPE, IMAGE.as_bytes());
    registry
}
