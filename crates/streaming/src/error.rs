// SPDX-License-Identifier: Apache-2.0
//! What can go wrong for those who run the server or ask it for URLs.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The result of an operation on the streaming server.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the streaming server could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request that cannot be served as it is.
    #[error("{kind} request: {problem}")]
    InvalidRequest {
        /// `exec`, `attach` or `port-forward`.
        kind: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// Too many URLs were handed out and not used yet.
    #[error(
        "{limit} streaming URLs are waiting for their client; one is freed when it is used or a minute old"
    )]
    TooManyTokens {
        /// The limit.
        limit: usize,
    },
    /// The commands of the URLs that were handed out and not used yet are too large together.
    #[error(
        "the commands of the streaming URLs that wait for their client have {limit} bytes together; one is freed when its \
         URL is used or a minute old"
    )]
    TokensTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for streaming")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The configured base address of URLs is not one.
    #[error("streaming base URL {url:?}: {problem}")]
    BaseUrl {
        /// As configured.
        url: String,
        /// What is wrong and what is expected.
        problem: &'static str,
    },
    /// A certificate, key or authority cannot be used.
    #[error("{}: {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system gave no random bytes or no task.
    #[error("{context}")]
    Io {
        /// What was being done.
        context: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: the cause with what was being done.
    pub(crate) fn io(context: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { context, source }
    }
}
