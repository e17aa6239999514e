// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a foreign program.

use std::path::PathBuf;
use std::time::Duration;

/// The result of running a program.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a program could not be run, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It could not be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It did not end in time; its process group was killed.
    #[error("{} timed out after {after:?}", program.display())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// The limit.
        after: Duration,
    },
    /// A pipe, pidfd or wait failed.
    #[error("{step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
