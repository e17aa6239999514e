// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with the configuration.

use std::path::PathBuf;

use super::Place;

/// Why the configuration was refused. The daemon does not start with half of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or the drop-in directory cannot be read.
    #[error("cannot read configuration {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{at}: not valid TOML: {problem}")]
    Syntax {
        /// Where the parser gave up.
        at: Place,
        /// What the parser says.
        problem: String,
    },
    /// A key that means nothing.
    #[error("{at}: unknown key {key:?} in {section}; {hint}")]
    UnknownKey {
        /// Where the key is.
        at: Place,
        /// The key.
        key: String,
        /// The table it stands in, as a user would write it (`[network]`), or `the top level`.
        section: String,
        /// The nearest right key, or all of them.
        hint: String,
    },
    /// A value of the wrong type.
    #[error("{at}: {key} must be {expected}, not {found}")]
    WrongType {
        /// Where the value is.
        at: Place,
        /// The key with its sections, dotted.
        key: String,
        /// What was expected.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A value that cannot be used.
    #[error("{at}: {key} {problem}")]
    BadValue {
        /// Where the value is.
        at: Place,
        /// The key with its sections, dotted.
        key: String,
        /// What is wrong and what to do, in words that follow the key.
        problem: String,
    },
    /// A key that must be given is not.
    #[error("{at}: {key} is missing: {problem}")]
    Missing {
        /// Where the table is that lacks it.
        at: Place,
        /// The key with its sections, dotted.
        key: String,
        /// What to write.
        problem: String,
    },
    /// No value was written, and the default does not fit this machine.
    #[error("{key} is not set and {problem}")]
    NoDefault {
        /// The key with its sections, dotted.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },
}
