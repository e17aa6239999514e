// SPDX-License-Identifier: Apache-2.0
//! Where things lie on disk (DESIGN.md, section 5). Every path derives from an id.

use std::path::{Path, PathBuf};

use hull_files::{PRIVATE_DIR, SHARED_PARENT};

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

    /// The files of a pod that its containers may write: on a small file system of their own, so that no container fills
    /// `run_root` through them.
    pub(crate) fn pod_files(&self, id: &str) -> PathBuf {
        self.sandbox_dir(id).join("etc")
    }

    pub(crate) fn resolv_conf(&self, id: &str) -> PathBuf {
        self.pod_files(id).join("resolv.conf")
    }

    pub(crate) fn hostname(&self, id: &str) -> PathBuf {
        self.pod_files(id).join("hostname")
    }

    pub(crate) fn hosts(&self, id: &str) -> PathBuf {
        self.pod_files(id).join("hosts")
    }

    /// Where earlier versions kept a file of a pod that is in [`Layout::pod_files`] today: their running pods are adopted.
    pub(crate) fn former_pod_file(&self, id: &str, name: &str) -> PathBuf {
        self.sandbox_dir(id).join(name)
    }

    /// The bundle and state directory of a pod's pause container.
    pub(crate) fn pause_dir(&self, id: &str) -> PathBuf {
        self.sandbox_dir(id).join("pause")
    }

    /// The root of a pod's pause container.
    pub(crate) fn pause_root(&self, id: &str) -> PathBuf {
        self.pause_dir(id).join("root")
    }

    /// Bundle and root of a container.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// Roots of images that are the container's mounts.
    pub(crate) fn image_mounts(&self, id: &str) -> PathBuf {
        self.container_dir(id).join("volumes")
    }

    /// The root of an image that is the container's mount of this number.
    pub(crate) fn image_mount(&self, id: &str, index: usize) -> PathBuf {
        self.image_mounts(id).join(index.to_string())
    }

    /// Sockets, fifos, pid files, exit files of containers.
    pub(crate) fn container_run_dirs(&self) -> PathBuf {
        self.run_root.join("containers")
    }

    /// Those of one.
    pub(crate) fn container_run_dir(&self, id: &str) -> PathBuf {
        self.container_run_dirs().join(id)
    }

    /// Pod logs when the request names no directory.
    pub(crate) fn default_log_dir(&self, sandbox_id: &str) -> PathBuf {
        self.root.join("logs").join(sandbox_id)
    }

    /// Makes the fixed directories, or gives those of a former version the modes that they have today: parents of
    /// gates (ADR 0027) may be passed and not be listed, nobody comes into the others.
    pub(crate) fn make(&self) -> std::io::Result<()> {
        for dir in [self.root.clone(), self.run_root.clone()].into_iter().chain(self.parents_of_gates()) {
            own_dir(&dir, SHARED_PARENT)?;
        }
        for dir in ["records", "quarantine", "logs"] {
            own_dir(&self.root.join(dir), PRIVATE_DIR)?;
        }
        for dir in ["exec", "ns", "runtime"] {
            own_dir(&self.run_root.join(dir), PRIVATE_DIR)?;
        }
        Ok(())
    }

    /// The directories in which each pod or container has its own.
    pub(crate) fn parents_of_gates(&self) -> [PathBuf; 3] {
        [self.root.join("containers"), self.run_root.join("sandboxes"), self.container_run_dirs()]
    }

    pub(crate) fn exec_dir(&self) -> PathBuf {
        self.run_root.join("exec")
    }
}

/// Makes a directory with its parents. An existing one may be somebody else's and keeps its mode.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> std::io::Result<()> {
    hull_failpoint::failpoint!("server.dir.make")?;
    hull_files::make_dir(dir, mode)
}

/// Makes a directory of the daemon's own with exactly this mode, which an existing one gets too.
pub(crate) fn own_dir(dir: &Path, mode: u32) -> std::io::Result<()> {
    hull_failpoint::failpoint!("server.dir.make")?;
    hull_files::own_dir(dir, mode)
}

/// Makes the directory of one pod or container, which only the daemon passes, and the group of the pod's root where the
/// pod has a user namespace: the OCI runtime sets the container up as that one.
pub(crate) fn gate(dir: &Path, group: u32) -> std::io::Result<()> {
    hull_failpoint::failpoint!("server.dir.make")?;
    hull_files::gate(dir, group)
}
