// SPDX-License-Identifier: Apache-2.0
//! What is looked at, and what is found. Both go over the pipes of the helper.

use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use serde::{Deserialize, Serialize};

use crate::spec::{self, ResolvedDevice, SpecError};

/// A path that a request names, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lookup {
    /// The source of a mount, without symlinks. A missing one is made as a directory, or is an error.
    HostPath { path: PathBuf, make: bool },
    /// A device, or every device below a directory.
    Device { host: PathBuf, container: String, permissions: String },
    /// The text of a seccomp profile.
    Profile(PathBuf),
    /// A directory, made where it is missing.
    Directory(PathBuf),
    /// A container's log file: missing, or a regular file.
    LogFile(PathBuf),
    /// Nothing but an answer, whatever it is.
    Touch(PathBuf),
}

/// What a lookup found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Found {
    Path(PathBuf),
    Devices(Vec<ResolvedDevice>),
    Text(String),
    Directory,
    LogFile,
    Answer,
}

// === impl Lookup ===

impl Lookup {
    pub(crate) fn device(device: &v1::Device) -> Self {
        Self::Device {
            host: PathBuf::from(&device.host_path),
            container: device.container_path.clone(),
            permissions: device.permissions.clone(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::HostPath { path, .. }
            | Self::Profile(path)
            | Self::Directory(path)
            | Self::LogFile(path)
            | Self::Touch(path) => path,
            Self::Device { host, .. } => host,
        }
    }

    /// Whether what lies below is looked at, too.
    pub(super) fn is_tree(&self) -> bool {
        matches!(self, Self::Device { .. })
    }

    /// Looks. Blocks, on a dead file system for ever.
    pub(super) fn look(&self) -> Result<Found, SpecError> {
        match self {
            Self::HostPath { path, make } => spec::mounts::find_host_path(path, *make).map(Found::Path),
            Self::Device { host, container, permissions } => {
                let device = v1::Device {
                    host_path: host.to_string_lossy().into_owned(),
                    container_path: container.clone(),
                    permissions: permissions.clone(),
                };
                spec::devices::find_devices(&device).map(Found::Devices)
            }
            Self::Touch(path) => {
                let _ = std::fs::metadata(path);
                Ok(Found::Answer)
            }
            Self::Profile(path) => spec::seccomp::read_profile(path).map(Found::Text),
            Self::Directory(path) => hull_files::make_foreign_dir(path)
                .map(|()| Found::Directory)
                .map_err(|source| SpecError::Io { step: "make directory", path: path.clone(), source }),
            Self::LogFile(path) => check_log_file(path).map(|()| Found::LogFile),
        }
    }
}

/// The monitor opens the file for writing and follows links: a FIFO would keep it waiting for a reader, and a link would have
/// it write elsewhere.
fn check_log_file(path: &Path) -> Result<(), SpecError> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(_) => {
            let problem = format!("{} exists and is not a regular file; remove it", path.display());
            Err(SpecError::invalid("config.log_path", problem))
        }
        Err(source) => Err(SpecError::Io { step: "examine log file", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_missing_or_regular() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["file", "missing"] {
            assert_eq!(Lookup::LogFile(at(name)).look().unwrap(), Found::LogFile, "{name}");
        }
        for name in ["link", "fifo", "."] {
            let error = Lookup::LogFile(at(name)).look().unwrap_err();
            assert!(matches!(error, SpecError::Invalid { .. }), "{name}: {error}");
        }
    }
}
