// SPDX-License-Identifier: Apache-2.0
//! Makes images out of nothing, for tests and demonstrations: OCI layouts (directory or archive) and
//! docker archives, from a list of entries and a config.
//!
//! ```no_run
//! # use hull_image_store::testing::{ImageBuilder, Layer};
//! # let dir = std::path::Path::new("/tmp/x");
//! let image = ImageBuilder::new("example.com/app:1")
//!     .layer(Layer::new().dir("etc", 0o755).file("etc/motd", b"hello\n", 0o644).gzip())
//!     .layer(Layer::new().whiteout("etc/motd"))
//!     .cmd(&["/bin/app"]);
//! let archive = image.write_archive(&dir.join("app.tar"));
//! ```
//! What is built is deterministic: the same calls give the same digests. Like every test helper, these
//! functions panic when a file cannot be written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod busybox;
mod layer;
mod write;

pub use busybox::{busybox_builder, busybox_image};
pub use layer::{Compression, Entry, Kind, Layer};
pub use write::{Encoded, write_archive_of, write_docker_archive_of, write_layout_of};

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::ImageConfig;

/// Mounts an overlay the way kernels before 6.8 need it, at `dir/merged`: on newer ones nothing else would try it.
///
/// # Errors
/// Those of the kernel; too many layers for one page of options.
pub fn mount_overlay_by_options(lowers: &[PathBuf], dir: &Path) -> std::io::Result<()> {
    crate::overlay::mount::with_mount(lowers, dir)
}

/// An image being put together.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    /// Full or short reference written as the image's name; `None`: unnamed.
    pub name: Option<String>,
    /// Layers, lowest first.
    pub layers: Vec<Layer>,
    /// What the config blob says.
    pub config: ImageConfig,
}

// === impl ImageBuilder ===

impl ImageBuilder {
    /// An image with this name (`busybox`, `example.com/a/b:tag`), no layers, for this machine's platform.
    pub fn new(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::unnamed() }
    }

    /// An image without a name.
    pub fn unnamed() -> Self {
        let config = ImageConfig {
            architecture: crate::import::Platform::host().architecture,
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        Self { name: None, layers: Vec::new(), config }
    }

    /// Puts a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Replaces the whole config (keep `os` and `architecture` in mind).
    #[must_use]
    pub fn config(mut self, config: ImageConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets `Cmd`.
    #[must_use]
    pub fn cmd(mut self, words: &[&str]) -> Self {
        self.config.cmd = words.iter().map(|&w| w.to_owned()).collect();
        self
    }

    /// Sets `Entrypoint`.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.config.entrypoint = words.iter().map(|&w| w.to_owned()).collect();
        self
    }

    /// Adds to `Env`: `KEY=value`.
    #[must_use]
    pub fn env(mut self, assignment: &str) -> Self {
        self.config.env.push(assignment.to_owned());
        self
    }

    /// Sets `User`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.config.user = user.to_owned();
        self
    }

    /// Sets `WorkingDir`.
    #[must_use]
    pub fn working_dir(mut self, dir: &str) -> Self {
        self.config.working_dir = dir.to_owned();
        self
    }

    /// Sets `StopSignal`.
    #[must_use]
    pub fn stop_signal(mut self, signal: &str) -> Self {
        self.config.stop_signal = signal.to_owned();
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.config.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds to `Volumes`.
    #[must_use]
    pub fn volume(mut self, path: &str) -> Self {
        self.config.volumes.push(path.to_owned());
        self
    }

    /// The image id: the sha256 of the config, 64 hex digits.
    pub fn id(&self) -> String {
        self.encode().config_digest().trim_start_matches("sha256:").to_owned()
    }

    /// Writes an OCI layout directory at `dir` and returns it.
    pub fn write_layout(&self, dir: &Path) -> PathBuf {
        write_layout_of(&[self], dir)
    }

    /// Writes a tar of an OCI layout at `path` and returns it.
    pub fn write_archive(&self, path: &Path) -> PathBuf {
        write_archive_of(&[self], path)
    }

    /// Writes what `docker save` writes at `path` and returns it.
    pub fn write_docker_archive(&self, path: &Path) -> PathBuf {
        write_docker_archive_of(&[self], path)
    }

    /// The blobs of this image.
    pub fn encode(&self) -> Encoded {
        Encoded::of(self)
    }

    /// The config blob's JSON for these diff ids.
    pub(crate) fn config_json(&self, diff_ids: &[String]) -> Vec<u8> {
        let c = &self.config;
        let volumes: serde_json::Map<_, _> = c.volumes.iter().map(|v| (v.clone(), json!({}))).collect();
        let document = json!({
            "architecture": c.architecture,
            "os": c.os,
            "config": {
                "User": c.user, "Env": c.env, "Entrypoint": c.entrypoint, "Cmd": c.cmd,
                "WorkingDir": c.working_dir, "Volumes": volumes, "Labels": c.labels,
                "StopSignal": c.stop_signal,
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [],
        });
        serde_json::to_vec(&document).unwrap()
    }
}
