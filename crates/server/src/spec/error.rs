// SPDX-License-Identifier: Apache-2.0
//! Why a spec cannot be made.

use std::path::PathBuf;
use std::time::Duration;

/// Why a spec cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The request can never work. The caller's mistake.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as the CRI names it.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The request is fine, but Hull, the runtime handler or the node cannot do it.
    #[error("{field} is not supported: {reason}")]
    Unsupported {
        /// The field, as the CRI names it.
        field: String,
        /// Why, and what would help.
        reason: String,
    },
    /// Neither the container nor its image names a program.
    #[error(
        "no command specified: the container has neither command nor args, and its image no entrypoint or cmd"
    )]
    NoCommand,
    /// The user is not in the image's `/etc/passwd`.
    #[error("{asked_by}: user {name:?} is not in the image's /etc/passwd")]
    UnknownUser {
        /// The field that names it.
        asked_by: &'static str,
        /// The name.
        name: String,
    },
    /// The group is not in the image's `/etc/group`.
    #[error("{asked_by}: group {name:?} is not in the image's /etc/group")]
    UnknownGroup {
        /// The field that names it.
        asked_by: &'static str,
        /// The name.
        name: String,
    },
    /// A mount's source does not propagate mounts the way the container wants.
    #[error(
        "mount of {} at {}: the file system mounted at {} is not {needed}; `mount --make-rshared {}` on the host makes it so",
        source_path.display(), destination.display(), mount_point.display(), mount_point.display()
    )]
    NotShared {
        /// The path on the host.
        source_path: PathBuf,
        /// The path in the container.
        destination: PathBuf,
        /// Where the file system that holds it is mounted.
        mount_point: PathBuf,
        /// `a shared mount`, or `a shared or slave mount`.
        needed: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file system of a path is silent.
    #[error(
        "{} does not answer: the {kind} file system mounted at {} was silent for {after:?}; mend or unmount it",
        path.display(), mount.display()
    )]
    NoAnswer {
        /// What was looked at.
        path: PathBuf,
        /// Where its file system is mounted.
        mount: PathBuf,
        /// The type of the file system.
        kind: String,
        /// How long was waited.
        after: Duration,
    },
    /// What the volume helper tells instead of an answer.
    #[error("{words}")]
    Helper {
        /// Its words: those of the other errors.
        words: String,
        /// The kernel's number of the cause.
        errno: Option<i32>,
        /// The request can never work.
        invalid: bool,
    },
}

impl SpecError {
    /// The table of mounts cannot be read.
    pub(crate) fn mounts(source: std::io::Error) -> Self {
        Self::Io { step: "read", path: PathBuf::from(crate::mountinfo::TABLE), source }
    }

    /// A field that can never work.
    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }

    /// A field that is not done here.
    pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), reason: reason.into() }
    }
}
