// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with pinned namespaces.

use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Nothing answers on a port.
    #[error("port {port} of localhost does not answer{}", listed(failures))]
    NotConnected {
        /// The port.
        port: u16,
        /// What each address said.
        failures: Vec<(IpAddr, io::Error)>,
    },
    /// Connecting took too long: somebody listens, but takes no connections.
    #[error("port {port} of localhost did not take a connection within {after:?}")]
    TimedOut {
        /// The port.
        port: u16,
        /// The limit.
        after: Duration,
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

/// `: 127.0.0.1: Connection refused; ::1: ...`
fn listed(failures: &[(IpAddr, io::Error)]) -> String {
    let mut list = String::new();
    for (number, (address, error)) in failures.iter().enumerate() {
        let between = if number == 0 { ": " } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(list, "{between}{address}: {error}");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_that_was_tried_is_told() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let failures = vec![([127, 0, 0, 1].into(), refused()), (IpAddr::V6(1.into()), refused())];
        let told = Error::NotConnected { port: 80, failures }.to_string();
        let expected =
            "port 80 of localhost does not answer: 127.0.0.1: connection refused; ::1: connection refused";
        assert_eq!(told, expected);
    }
}
