// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with pinned namespaces.

use std::path::PathBuf;

/// The result of a namespace operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a namespace operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A living namespace is pinned for this id.
    #[error("namespaces of {id} already exist")]
    AlreadyExists {
        /// The id.
        id: String,
    },
    /// Nothing is there.
    #[error("no namespace at {}", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is not a {kind} namespace", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
        /// What was expected.
        kind: &'static str,
    },
    /// The id cannot be a file name.
    #[error("invalid id {id:?}: {problem}")]
    InvalidId {
        /// The id.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The kernel would not take this host name.
    #[error("invalid host name {hostname:?}: {problem}")]
    InvalidHostname {
        /// The name.
        hostname: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The kernel would not take these ids of a user namespace.
    #[error("invalid mapping of {which}: {problem}")]
    InvalidMapping {
        /// `uids` or `gids`.
        which: &'static str,
        /// What is wrong with them.
        problem: String,
    },
    /// A sysctl cannot be set.
    #[error("sysctl {name}={value}")]
    Sysctl {
        /// Its name.
        name: String,
        /// The wanted value.
        value: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A system call failed.
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
