// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a runtime, in terms a caller can match.

use std::time::Duration;

/// The result of a runtime operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a runtime operation failed. The runtime's own words are read once, where its process ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The runtime knows no such container.
    #[error("container {id} does not exist")]
    NotFound {
        /// The container.
        id: String,
    },
    /// The id is taken.
    #[error("container {id} already exists")]
    AlreadyExists {
        /// The container.
        id: String,
    },
    /// The container's state does not allow the operation.
    #[error("cannot {operation} container {id}: {detail}")]
    InvalidState {
        /// The container.
        id: String,
        /// The verb.
        operation: &'static str,
        /// The runtime's words.
        detail: String,
    },
    /// The runtime cannot do that at all.
    #[error("{runtime} cannot {operation}: {detail}")]
    Unsupported {
        /// The handler.
        runtime: String,
        /// The verb.
        operation: &'static str,
        /// Why, and what to do.
        detail: String,
    },
    /// It took longer than allowed and was killed.
    #[error("{operation} timed out after {after:?}")]
    TimedOut {
        /// The verb.
        operation: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The program of a container cannot be run: its image or its author is to blame, not the node.
    #[error("cannot create container {id}: {fault}: {detail}")]
    Program {
        /// The container.
        id: String,
        /// What is wrong with it.
        fault: ProgramFault,
        /// The runtime's words.
        detail: String,
    },
    /// The runtime said no for another reason.
    #[error("{runtime} {operation} failed ({status}): {stderr}")]
    Failed {
        /// The handler.
        runtime: String,
        /// The verb.
        operation: &'static str,
        /// The exit status in words.
        status: String,
        /// The last error line the runtime wrote.
        stderr: String,
    },
    /// The runtime said something that cannot be read.
    #[error("{runtime} {operation} answered what cannot be read: {detail}")]
    Garbled {
        /// The handler.
        runtime: String,
        /// The verb.
        operation: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The request itself cannot be carried out, by any runtime.
    #[error("cannot {operation}: {problem}")]
    InvalidRequest {
        /// The verb.
        operation: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The program could not be run, or a file not be written.
    #[error("{operation}: {context}")]
    Io {
        /// The verb.
        operation: &'static str,
        /// What was being done, with the path.
        context: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// What keeps a runtime from running the program of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramFault {
    /// There is no such file in the container.
    NotFound,
    /// The file cannot be executed.
    NotExecutable,
    /// The process cannot begin in its working directory.
    WorkingDirectory,
}

impl std::fmt::Display for ProgramFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "the program was not found in the container",
            Self::NotExecutable => "the program cannot be executed",
            Self::WorkingDirectory => "the working directory cannot be used",
        })
    }
}
