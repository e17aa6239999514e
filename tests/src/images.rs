// SPDX-License-Identifier: Apache-2.0
//! Images for the suites.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// An archive of a busybox image named [`crate::IMAGE`], made once for all tests of this process.
///
/// # Panics
/// When it cannot be made: /bin/busybox must be static (Debian: busybox-static).
pub fn busybox() -> &'static Path {
    static ARCHIVE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = ARCHIVE.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("hull-image-").tempdir().expect("a directory");
        let path = make(dir.path(), crate::IMAGE);
        (dir, path)
    });
    path
}

/// Writes a busybox image with this name into a directory and returns the archive.
///
/// # Panics
/// When it cannot be made.
pub fn make(dir: &Path, name: &str) -> PathBuf {
    hull_image_store::testing::busybox_image(dir, name)
}
