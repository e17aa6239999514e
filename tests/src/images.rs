// SPDX-License-Identifier: Apache-2.0
//! Images for the suites.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

/// Raised when the same busybox becomes another archive: one of an earlier build is then not taken.
const FORM: u32 = 2;

/// An archive of a busybox image named [`crate::IMAGE`]: kept beside the build, made anew when the machine's
/// busybox changes.
///
/// # Panics
/// When it cannot be made: /bin/busybox must be static (Debian: busybox-static).
pub fn busybox() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let busybox = std::fs::metadata("/bin/busybox").expect("/bin/busybox (Debian: busybox-static)");
        let changed = busybox.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let version = format!("{FORM}-{}-{}", busybox.len(), changed.unwrap_or_default().as_secs());
        let dir = crate::programs::build_dir();
        let archive = dir.join(format!("hull-test-busybox-{version}.tar"));
        if !archive.is_file() {
            // Several suites may be at it: each makes its own, the last rename wins, all are the same.
            let private =
                tempfile::Builder::new().prefix("hull-image-").tempdir_in(&dir).expect("a directory");
            std::fs::rename(make(private.path(), crate::IMAGE), &archive).expect("keep the image");
        }
        archive
    })
}

/// Writes a busybox image with this name into a directory and returns the archive.
///
/// # Panics
/// When it cannot be made.
pub fn make(dir: &Path, name: &str) -> PathBuf {
    hull_image_store::testing::busybox_image(dir, name)
}
