// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with control groups.

use std::path::PathBuf;
use std::time::Duration;

/// The result of a cgroup operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No cgroup file system is mounted where it should be.
    #[error("no control groups at {}", root.display())]
    Missing {
        /// Where.
        root: PathBuf,
    },
    /// There is no such cgroup.
    #[error("no cgroup {}", path.display())]
    NotFound {
        /// The cgroup.
        path: PathBuf,
    },
    /// The path leaves the hierarchy or is not absolute.
    #[error("invalid cgroup path {}: {problem}", path.display())]
    InvalidPath {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Processes still live in it.
    #[error("cgroup {} still has processes after {after:?}: {pids:?}", path.display())]
    Populated {
        /// The cgroup.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
        /// The processes.
        pids: Vec<i32>,
    },
    /// A file could not be read or written.
    #[error("{step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
