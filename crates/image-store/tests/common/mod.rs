// SPDX-License-Identifier: Apache-2.0
//! A private directory for one test, on the real disk, and the check that nothing is left in it.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "shared test support")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_image_store::layer::Privileges;
use hull_image_store::registry::testing::TestRegistry;
use hull_image_store::registry::{self, Proxy};
use hull_image_store::testing::{Encoded, ImageBuilder};
use hull_image_store::{LocalConfig, LocalImageStore};

/// Whether tests that need root shall run. Panics when they shall and cannot.
pub fn root_tests_enabled() -> bool {
    if std::env::var("HULL_ROOT_TESTS").as_deref() != Ok("1") {
        return false;
    }
    assert!(rustix::process::geteuid().is_root(), "HULL_ROOT_TESTS=1, but this is not root");
    true
}

/// A store's directory.
#[derive(Debug)]
pub struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        // Not /tmp: it may be a tmpfs.
        let dir = tempfile::Builder::new().prefix("hull-image-store-").tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        // Nobody listens there: what a test does not set up is not asked for in the world.
        TestRegistry::write_hosts(
            &dir.path().join("certs.d"),
            "docker.io",
            "server = \"http://127.0.0.1:1\"",
        );
        Self { dir }
    }

    pub fn config(&self) -> LocalConfig {
        let registry = registry::Config {
            certs_dir: Some(self.path("certs.d")),
            proxy: Proxy::Direct,
            resume_wait: Duration::from_millis(1),
            first_wait: Duration::from_millis(1),
            ..registry::Config::default()
        };
        LocalConfig { registry, ..LocalConfig::new(self.dir.path().join("images")) }
    }

    /// A store that can do everything but mount.
    pub fn open_unprivileged(&self) -> LocalImageStore {
        let config = LocalConfig { privileges: Privileges::Unprivileged, ..self.config() };
        LocalImageStore::open(config).unwrap()
    }

    pub fn open(&self) -> LocalImageStore {
        LocalImageStore::open(self.config()).unwrap()
    }

    /// For archives and containers.
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Names in a directory of the store.
    pub fn names(&self, relative: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("images").join(relative)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// No mount, no layer, no blob, no record, no leftover. Every image and root must have been removed.
    pub fn assert_clean(&self) {
        self.assert_no_mounts();
        for dir in ["images", "leases", "layer-records", "blobs/sha256", "layers", "tmp", "quarantine"] {
            assert_eq!(self.names(dir), [""; 0], "left in {dir}");
        }
    }

    pub fn assert_no_mounts(&self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = self.dir.path().to_str().unwrap();
        assert!(!table.contains(path), "left mounted: {table}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A failed test must not leave mounts behind either.
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in table.lines().rev() {
            if let Some(point) =
                line.split(' ').nth(4).filter(|point| Path::new(point).starts_with(self.dir.path()))
            {
                let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

/// An image in a test registry.
#[derive(Debug)]
pub struct Published {
    pub encoded: Encoded,
    /// The manifest's.
    pub digest: String,
    pub id: String,
}

impl Published {
    pub fn put(registry: &TestRegistry, repository: &str, tag: &str, image: &ImageBuilder) -> Self {
        let encoded = image.encode();
        for (_, blob) in &encoded.layers {
            registry.put_blob(blob);
        }
        registry.put_blob(&encoded.config);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let digest = registry.put_manifest(repository, tag, media_type, &encoded.manifest);
        Self { id: image.id(), encoded, digest }
    }
}
