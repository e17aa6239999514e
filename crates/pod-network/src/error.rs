// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a pod's network.

use std::time::Duration;

use crate::Protocol;

/// The result of a network operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a network operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No network is configured, or it says that it cannot take pods.
    #[error("{message}")]
    NotReady {
        /// One word in camel case.
        reason: String,
        /// For people.
        message: String,
    },
    /// A plugin failed.
    #[error("network {network}: plugin {plugin} failed at {command}: {message}")]
    Plugin {
        /// The network's name.
        network: String,
        /// The plugin's type.
        plugin: String,
        /// ADD, DEL, ...
        command: &'static str,
        /// The plugin's error code, if it told one (CNI spec, "Error").
        code: Option<u32>,
        /// The plugin's words, or what was wrong with its answer.
        message: String,
    },
    /// A plugin took too long and was killed with its process group.
    #[error("network {network}: plugin {plugin} timed out at {command} after {after:?}")]
    TimedOut {
        /// The network's name.
        network: String,
        /// The plugin's type.
        plugin: String,
        /// ADD, DEL, ...
        command: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Attaching failed; `released` tells whether the half-done was taken back.
    #[error("{source}{}", released.as_ref().map_or_else(String::new, |e| format!(" (and releasing what was half done failed: {e})")))]
    Attach {
        /// Why attaching failed.
        source: Box<Error>,
        /// Why releasing failed; `None`: nothing is left.
        released: Option<Box<Error>>,
    },
    /// Collecting garbage did not get to its end in time: other operations or hanging plugins used it up.
    #[error(
        "network {network}: garbage was not all collected within {after:?}; it is tried again at the next occasion"
    )]
    Busy {
        /// The network's name.
        network: String,
        /// How long it was waited.
        after: Duration,
    },
    /// A configuration cannot be used.
    #[error("network configuration {path}: {problem}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Another pod has a host port that is asked for.
    #[error("host port {port} ({protocol}) is taken by pod sandbox {holder}")]
    PortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The pod sandbox's id.
        holder: String,
    },
    /// Every address is given out.
    #[error("network {network}: no address is free in {subnets}: remove pods, or configure larger subnets")]
    NoAddress {
        /// The network's name.
        network: String,
        /// Where it was looked for.
        subnets: String,
    },
    /// The request cannot be met as it is.
    #[error("{0}")]
    Invalid(String),
    /// A file or process could not be made or read.
    #[error("{context}")]
    Io {
        /// What was being done, with the path.
        context: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
