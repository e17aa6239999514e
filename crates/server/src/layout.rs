// SPDX-License-Identifier: Apache-2.0
//! Where things lie on disk (DESIGN.md, section 5). Every path derives from an id.

use std::path::{Path, PathBuf};

/// The daemon's directories.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// What survives a reboot.
    pub(crate) root: PathBuf,
    /// What does not need to.
    pub(crate) run_root: PathBuf,
}

// === impl Layout ===

impl Layout {
    /// Volatile files of a pod sandbox.
    pub(crate) fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.run_root.join("sandboxes").join(id)
    }

    pub(crate) fn shm(&self, id: &str) -> PathBuf {
        self.sandbox_dir(id).join("shm")
    }

    pub(crate) fn resolv_conf(&self, id: &str) -> PathBuf {
        self.sandbox_dir(id).join("resolv.conf")
    }

    pub(crate) fn hostname(&self, id: &str) -> PathBuf {
        self.sandbox_dir(id).join("hostname")
    }

    /// The bundle and state directory of a pod's pause container.
    pub(crate) fn pause_dir(&self, id: &str) -> PathBuf {
        self.sandbox_dir(id).join("pause")
    }

    /// Bundle and root of a container.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// The root of an image that is the container's mount of this number.
    pub(crate) fn image_mount(&self, id: &str, index: usize) -> PathBuf {
        self.container_dir(id).join("volumes").join(index.to_string())
    }

    /// Sockets, fifos, pid files, exit files of a container.
    pub(crate) fn container_run_dir(&self, id: &str) -> PathBuf {
        self.run_root.join("containers").join(id)
    }

    /// Pod logs when the request names no directory.
    pub(crate) fn default_log_dir(&self, sandbox_id: &str) -> PathBuf {
        self.root.join("logs").join(sandbox_id)
    }

    /// Makes the fixed directories. Directories above container roots are 0711.
    pub(crate) fn make(&self) -> std::io::Result<()> {
        for dir in [&self.root, &self.root.join("containers")] {
            make_dir(dir, 0o711)?;
        }
        for dir in [&self.run_root, &self.run_root.join("sandboxes"), &self.run_root.join("containers")] {
            make_dir(dir, 0o711)?;
        }
        make_dir(&self.run_root.join("exec"), 0o700)
    }

    pub(crate) fn exec_dir(&self) -> PathBuf {
        self.run_root.join("exec")
    }
}

/// Makes a directory with its parents. An existing one keeps its mode.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    hull_failpoint::failpoint!("server.dir.make")?;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir)
}
