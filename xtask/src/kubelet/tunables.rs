// SPDX-License-Identifier: Apache-2.0
//! The kernel's tunables that a kubelet sets (`setupKernelTunables`), remembered and put back.

use std::fs;
use std::path::PathBuf;

const PATHS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Values to be restored when dropped.
#[derive(Debug)]
pub(super) struct Tunables(Vec<(PathBuf, String)>);

// === impl Tunables ===

impl Tunables {
    /// Reads the values of now.
    pub(super) fn remember() -> Self {
        let value = |path: &&str| {
            let path = PathBuf::from("/proc/sys").join(path);
            let value = fs::read_to_string(&path).ok()?;
            Some((path, value))
        };
        Self(PATHS.iter().filter_map(value).collect())
    }
}

impl Drop for Tunables {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            if let Err(error) = fs::write(path, value) {
                eprintln!("xtask: restore {}: {error}", path.display());
            }
        }
    }
}
