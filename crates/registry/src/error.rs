// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a registry.

use std::path::PathBuf;
use std::time::Duration;

use crate::hosts::Role;

/// The result of asking a registry.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be had. No variant holds credentials, tokens or the queries of URLs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of a registry's hosts cannot be used.
    #[error("{}:{line}: {problem}", file.display())]
    Hosts {
        /// The `hosts.toml`.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file of the configuration cannot be read or used: a certificate, a key.
    #[error("{}: {problem}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The registry does not have it.
    #[error("{url}: not found{detail}")]
    NotFound {
        /// What was asked for.
        url: String,
        /// The registry's words, with a colon in front; may be empty.
        detail: String,
    },
    /// The registry wants other credentials, or any.
    #[error("{url}: unauthorized{detail}")]
    Unauthorized {
        /// What was asked for.
        url: String,
        /// Whether credentials were sent, and the registry's words.
        detail: String,
    },
    /// The credentials are good, but not for this.
    #[error("{url}: denied{detail}")]
    Denied {
        /// What was asked for.
        url: String,
        /// The registry's words.
        detail: String,
    },
    /// Asked too often.
    #[error("{url}: too many requests{}{detail}", retry_after.map_or_else(String::new, |wait| format!("; it asks to wait {wait:?}")))]
    TooManyRequests {
        /// What was asked for.
        url: String,
        /// How long the registry wants us to wait.
        retry_after: Option<Duration>,
        /// The registry's words.
        detail: String,
    },
    /// The registry failed.
    #[error("{url}: the registry failed with status {status}{detail}")]
    Server {
        /// What was asked for.
        url: String,
        /// The HTTP status, 500 to 599.
        status: u16,
        /// The registry's words.
        detail: String,
    },
    /// An answer that this request cannot have.
    #[error("{url}: unexpected status {status}{detail}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The registry's words.
        detail: String,
    },
    /// No connection, or none that can be trusted.
    #[error("{url}: cannot connect: {problem}")]
    Connect {
        /// What was asked for.
        url: String,
        /// Why, and what to do.
        problem: String,
    },
    /// The connection broke.
    #[error("{url}: the connection broke: {problem}")]
    Broken {
        /// What was asked for.
        url: String,
        /// How.
        problem: String,
    },
    /// No answer in time, or no bytes for too long.
    #[error("{url}: {what} took longer than {after:?}")]
    TimedOut {
        /// What was asked for.
        url: String,
        /// `connecting`, `the answer`, `the next bytes`.
        what: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The server does not keep to the protocol.
    #[error("{url}: {problem}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// What came is not what the digest or size promised.
    #[error("{url}: {problem}")]
    Content {
        /// What was asked for.
        url: String,
        /// Expected and found.
        problem: String,
    },
    /// No token could be had.
    #[error("cannot get a token for {registry}: {source}")]
    Token {
        /// The registry that wants one.
        registry: String,
        /// What its token server said.
        source: Box<Error>,
    },
    /// No endpoint has it: the error that counts, those of mirrors, and those of servers out of reach.
    #[error(
        "{origin}{}{}",
        mirrors.iter().map(|error| format!("; mirror {error}")).collect::<String>(),
        unreached.iter().map(|error| format!("; out of reach: {error}")).collect::<String>()
    )]
    Endpoints {
        /// What the registry itself said; that a mirror does not have it, where the registry is out of reach.
        origin: Box<Error>,
        /// What each mirror said, in their order.
        mirrors: Vec<Error>,
        /// Where every server in reach says that it is not there: what came of asking the others.
        unreached: Vec<Error>,
    },
    /// A fault that a test injected.
    #[error("{step}")]
    Fault {
        /// The step.
        step: &'static str,
        /// The fault.
        #[source]
        source: std::io::Error,
    },
}

// === impl Error ===

impl Error {
    /// The error that counts: of several endpoints the registry's own, of a token that of its server.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Endpoints { origin, .. } => origin.cause(),
            Self::Token { source, .. } => source.cause(),
            error => error,
        }
    }

    /// Merges what several endpoints said. The registry's own error counts or, where it was not asked, the last
    /// mirror's. But a server that says that it is not there counts more than one that could not be reached, unless yet
    /// another one said something else: whoever mistyped a name behind a mirror should read that.
    pub(crate) fn of_endpoints(mut failures: Vec<(Role, Self)>) -> Self {
        let mut unreached = Vec::new();
        let absent = failures.iter().any(|(_, error)| matches!(error.cause(), Self::NotFound { .. }));
        let decided =
            |error: &Self| matches!(error.cause(), Self::NotFound { .. }) || error.is_out_of_reach();
        if absent && failures.iter().all(|(_, error)| decided(error)) {
            unreached =
                failures.extract_if(.., |(_, error)| error.is_out_of_reach()).map(|(_, e)| e).collect();
        }
        let (mut origins, mut mirrors) = (Vec::new(), Vec::new());
        for (role, error) in failures {
            match role {
                Role::Origin => origins.push(error),
                Role::Mirror => mirrors.push(error),
            }
        }
        match origins.pop().or_else(|| mirrors.pop()) {
            Some(error) if mirrors.is_empty() && unreached.is_empty() => error,
            Some(error) => Self::Endpoints { origin: Box::new(error), mirrors, unreached },
            None => Self::NotFound { url: String::new(), detail: ": no server to ask".to_owned() },
        }
    }

    /// Whether the server gave no answer at all.
    fn is_out_of_reach(&self) -> bool {
        matches!(self.cause(), Self::Connect { .. } | Self::Broken { .. } | Self::TimedOut { .. })
    }

    /// Whether the same request may succeed soon.
    pub(crate) fn is_passing(&self) -> bool {
        match self.cause() {
            Self::TooManyRequests { .. } | Self::Broken { .. } | Self::TimedOut { .. } => true,
            // 501 and 505 are about what the server can do.
            Self::Server { status, .. } => !matches!(status, 501 | 505),
            _ => false,
        }
    }
}
