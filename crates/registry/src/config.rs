// SPDX-License-Identifier: Apache-2.0
//! How patient a client is, and what it goes through.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory with one directory per registry (see the crate's documentation). `None`: none is read.
    pub certs_dir: Option<PathBuf>,
    /// Which proxies are used.
    pub proxy: Proxy,
    /// What `User-Agent` says.
    pub user_agent: String,
    /// Looking a host up, connecting, a proxy's and TLS's greetings: together at most this. 30 s.
    pub connect: Duration,
    /// From a request to the head of its answer, and for the whole of a document. 30 s.
    pub answer: Duration,
    /// A blob's stream that brings less than [`stall_bytes`](Self::stall_bytes) in this time is broken. 30 s.
    pub stall: Duration,
    /// See [`stall`](Self::stall): a trickle is no progress. 4 KiB.
    pub stall_bytes: u64,
    /// How often in a row a broken stream is taken up again; one MiB of progress starts the count anew. 5.
    pub resumes: u32,
    /// The pause before a stream is taken up again. 1 s.
    pub resume_wait: Duration,
    /// How often a request is sent that is answered "too many requests". 5.
    pub tries: u32,
    /// How often a request is sent that the server fails at. 3.
    pub server_tries: u32,
    /// The pause before the second try; doubled for each further one. 2 s.
    pub first_wait: Duration,
    /// The longest pause; who asks for a longer one is not waited for. 60 s.
    pub longest_wait: Duration,
}

/// Which proxies are used. Hosts of this machine are always reached directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proxy {
    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say, in either case.
    #[default]
    Environment,
    /// None.
    Direct,
    /// These; empty: none.
    Explicit {
        /// URL of the proxy for `https` registries.
        https: String,
        /// URL of the proxy for `http` registries.
        http: String,
        /// Comma-separated hosts, domains and networks that are reached directly.
        no: String,
    },
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            certs_dir: None,
            proxy: Proxy::default(),
            user_agent: concat!("hull/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            stall_bytes: 4 << 10,
            resumes: 5,
            resume_wait: Duration::from_secs(1),
            tries: 5,
            server_tries: 3,
            first_wait: Duration::from_secs(2),
            longest_wait: Duration::from_secs(60),
        }
    }
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn matcher(&self) -> Matcher {
        match self {
            Self::Environment => Matcher::from_env(),
            Self::Direct => Matcher::builder().build(),
            Self::Explicit { https, http, no } => {
                Matcher::builder().https(https.as_str()).http(http.as_str()).no(no.as_str()).build()
            }
        }
    }
}
