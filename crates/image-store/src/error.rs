// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with images.

use std::path::PathBuf;
use std::sync::Arc;

/// The result of an image operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an image operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no image reference.
    #[error("invalid image reference {reference:?}: {problem}")]
    InvalidReference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An id prefix that several images have.
    #[error("image id {prefix} is ambiguous: {matches} images begin with it")]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// How many.
        matches: usize,
    },
    /// It is not here.
    #[error("image {reference} is not present")]
    NotPresent {
        /// The reference.
        reference: String,
    },
    /// It cannot be had from its registry.
    #[error("cannot pull {reference}")]
    Pull {
        /// The reference.
        reference: String,
        /// Why.
        #[source]
        source: PullError,
    },
    /// What was given is not an image, or a broken or a hostile one.
    #[error("{origin}: {problem}")]
    Invalid {
        /// The file, blob or tar entry.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be made, read or mounted.
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
    /// A record could not be written or read.
    #[error("image record")]
    Record(#[from] hull_record::Error),
    /// What all callers of one pull are told: match on [`root`](Self::root).
    #[error(transparent)]
    Shared(Arc<Error>),
}

/// Why an image cannot be had from its registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The registry does not have it.
    #[error("it is not there")]
    NotFound(#[source] hull_registry::Error),
    /// The registry has the image, but for other platforms than this machine's.
    #[error("{0}")]
    NoPlatform(String),
    /// The registry wants other credentials, or any.
    #[error("unauthorized")]
    Unauthorized(#[source] hull_registry::Error),
    /// The credentials are good, but not for this image.
    #[error("denied")]
    Denied(#[source] hull_registry::Error),
    /// Asked too often.
    #[error("the registry asks for patience")]
    TooManyRequests(#[source] hull_registry::Error),
    /// No server can be reached, or it fails. The error names each that was asked.
    #[error("the registry is not available")]
    Unavailable(#[source] hull_registry::Error),
    /// The operator's configuration of the registry cannot be used.
    #[error("the configuration of its registry is wrong")]
    Configuration(#[source] hull_registry::Error),
    /// The registry sends what it must not.
    #[error("the registry sends what cannot be right")]
    Content(#[source] hull_registry::Error),
    /// The caller's credentials cannot be read.
    #[error("the credentials cannot be used: {0}")]
    Credentials(String),
    /// This store has no registry behind it.
    #[error("{0}")]
    NoRegistry(String),
    /// Nobody waits for it any more.
    #[error("cancelled")]
    Cancelled,
    /// The store is being closed.
    #[error("the image store is closing")]
    Closing,
}

// === impl Error ===

impl Error {
    /// The error itself, of one that several callers share.
    pub fn root(&self) -> &Self {
        match self {
            Self::Shared(error) => error.root(),
            error => error,
        }
    }
}

// === impl PullError ===

impl From<hull_registry::Error> for PullError {
    fn from(error: hull_registry::Error) -> Self {
        use hull_registry::Error as E;
        match error.cause() {
            E::NotFound { .. } => Self::NotFound(error),
            E::Unauthorized { .. } => Self::Unauthorized(error),
            E::Denied { .. } => Self::Denied(error),
            E::TooManyRequests { .. } => Self::TooManyRequests(error),
            E::Server { .. } | E::Connect { .. } | E::Broken { .. } | E::TimedOut { .. } => {
                Self::Unavailable(error)
            }
            E::Hosts { .. } | E::File { .. } => Self::Configuration(error),
            _ => Self::Content(error),
        }
    }
}
