// SPDX-License-Identifier: Apache-2.0
//! Where programs are on this machine.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where to look for programs that are not named by a whole path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    dirs: Vec<PathBuf>,
}

impl Programs {
    /// The directories of `PATH`, then the usual ones: services are often started with a short `PATH`.
    pub fn from_env() -> Self {
        const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).chain(std::env::split_paths(OsStr::new(USUAL)));
        Self::new(dirs)
    }

    /// Looks in these directories. Relative ones are left out: what they mean changes with the working directory.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { dirs: dirs.into_iter().filter(|dir| dir.is_absolute()).collect() }
    }

    /// The first program of this name.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.dirs.iter().map(|dir| dir.join(name)).find(|path| Self::is_program(path))
    }

    /// Whether this is a file that somebody may execute.
    pub fn is_program(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    }
}
