// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with images.

use std::path::PathBuf;

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
    #[error("cannot pull {reference}: {problem}")]
    Pull {
        /// The reference.
        reference: String,
        /// Why, and what to do.
        problem: String,
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
}
