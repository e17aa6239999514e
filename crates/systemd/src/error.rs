// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between us and systemd.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the bus's socket.
    #[error("cannot reach systemd by the system bus {}: is dbus running, and systemd the init of this machine?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bus does not take us.
    #[error("the system bus refuses this user: {answer:?}")]
    Unauthorised {
        /// What it said.
        answer: String,
    },
    /// The connection broke.
    #[error("the connection to the system bus broke while {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// systemd or the bus answered with an error.
    #[error("{method} of {unit}: {message} ({name})")]
    Refused {
        /// The method.
        method: &'static str,
        /// The unit it was for; the manager itself where there is none.
        unit: String,
        /// The error's name, for programs: `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// The error's text.
        message: String,
    },
    /// A job that was accepted did not end well.
    #[error(
        "systemd could not {verb} {unit}: its job ended as {result:?}; `journalctl -u {unit}` may tell why"
    )]
    Job {
        /// `start` or `stop`.
        verb: &'static str,
        /// The unit.
        unit: String,
        /// systemd's word: `failed`, `timeout`, `canceled`, `dependency`, ...
        result: String,
    },
    /// It took too long.
    #[error("systemd has not done {method} of {unit} within {after:?}")]
    TimedOut {
        /// The method.
        method: &'static str,
        /// The unit.
        unit: String,
        /// The deadline.
        after: Duration,
    },
    /// What came is no message, or one that is longer than any that is asked for.
    #[error("the system bus sent what cannot be read: {problem}")]
    Garbled {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name that is no unit's.
    #[error("{name:?} is no unit of systemd: {problem}")]
    InvalidUnit {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The error's name where it came from systemd.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Refused { name, .. } => Some(name),
            _ => None,
        }
    }
}
