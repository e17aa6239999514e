// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a monitor.

use std::path::PathBuf;
use std::time::Duration;

use hull_oci_runtime::ProgramFault;

/// The result of a monitor operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a monitor operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The runtime refused to create the container; its words are in the error.
    #[error("the OCI runtime could not create container {id}: {message}")]
    Runtime {
        /// The container.
        id: String,
        /// The runtime's last error line.
        message: String,
    },
    /// The runtime could not run the container's program: its image or its author is to blame, not the node.
    #[error("cannot run container {id}: {fault}: {message}")]
    Program {
        /// The container.
        id: String,
        /// What is wrong with the program.
        fault: ProgramFault,
        /// The runtime's last error line.
        message: String,
    },
    /// The monitor did not do its part: it ended early, said nothing, or said what cannot be read.
    #[error("monitor of container {id}: {detail}")]
    Monitor {
        /// The container.
        id: String,
        /// What happened, with the monitor's own words if it had any.
        detail: String,
    },
    /// Create took longer than allowed; the monitor and the runtime were killed.
    #[error("creating container {id} timed out after {after:?} while {stage}")]
    TimedOut {
        /// The container.
        id: String,
        /// The limit.
        after: Duration,
        /// What was being waited for.
        stage: &'static str,
    },
    /// The monitor is gone, so it cannot be told anything.
    #[error("container {id} has no living monitor")]
    NoMonitor {
        /// The container.
        id: String,
    },
    /// A path in the request cannot be used.
    #[error("{what} {}: {problem}", path.display())]
    InvalidPath {
        /// Which one.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// The backend cannot do that.
    #[error("this monitor cannot {operation}")]
    Unsupported {
        /// The verb.
        operation: &'static str,
    },
    /// A file or a process could not be made or read.
    #[error("{context}")]
    Io {
        /// What was being done, with the path.
        context: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: the cause with what was being done, the path included.
    pub(crate) fn io(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }

    /// A program that could not be run or watched. `context` tells what for.
    pub(crate) fn process(context: impl Into<String>) -> impl FnOnce(hull_process::Error) -> Self {
        let context = context.into();
        move |error| match error {
            hull_process::Error::Spawn { program, source } => {
                Self::Io { context: format!("{context}: cannot start {}", program.display()), source }
            }
            hull_process::Error::Io { step, source } => {
                Self::Io { context: format!("{context}: {step}"), source }
            }
            other => Self::Io { context, source: std::io::Error::other(other) },
        }
    }
}
