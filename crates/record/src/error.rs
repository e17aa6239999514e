// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with records.

use std::path::PathBuf;

/// The result of a record operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a record operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be written, read or removed.
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
    /// The record's file does not hold what it should.
    #[error("record {}: {problem}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The value cannot be written as JSON.
    #[error("cannot encode record {id}")]
    Encode {
        /// The record's id.
        id: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}
