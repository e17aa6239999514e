// SPDX-License-Identifier: Apache-2.0
//! The HTTP server behind the URLs.
//!
//! ```text
//! issue --> URL --> client --> TLS? --> token --> negotiate --> 101 --> session
//!                    |          10 s     404       400, 403     503 when there are too many
//!                    `- at most `handshakes` at a time; a further one displaces a silent one
//! ```

mod arrivals;
mod http;
mod listen;
mod negotiate;
mod upgrade;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::Uri;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::arrivals::Arrivals;
use crate::config::{Config, Limits, Timeouts};
use crate::handler::Handler;
use crate::request::Request;
use crate::session::Sessions;
use crate::tls::Identity;
use crate::token::Tokens;
use crate::{Error, Result};

/// What every connection needs.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Arc<Limits>,
    pub(crate) sessions: Sessions,
    tokens: Tokens,
    identity: Option<Arc<Identity>>,
    arrivals: Arc<Arrivals>,
    slots: Arc<Semaphore>,
    /// Cancelled when no new session may begin.
    stopping: CancellationToken,
}

/// A running streaming server. Dropping it ends everything at once; [`Server::shutdown`] gives sessions time.
#[derive(Debug)]
pub struct Server {
    serving: Arc<Serving>,
    address: SocketAddr,
    base_url: String,
    /// Taken by who ends it.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens. Must be called in a tokio runtime; reads the TLS files.
    ///
    /// # Errors
    /// [`Error::BaseUrl`], [`Error::Certificate`], [`Error::Bind`].
    pub async fn start(config: Config, handler: Arc<dyn Handler>) -> Result<Self> {
        let Config { address, base_url, tls, limits, timeouts } = config;
        let identity = match tls {
            None => None,
            Some(files) => {
                let load = tokio::task::spawn_blocking(move || Identity::load(files));
                let loaded =
                    load.await.map_err(std::io::Error::other).map_err(Error::io("reading the TLS files"))?;
                Some(Arc::new(loaded?))
            }
        };
        let base_url = base_url.map(|url| check_base(url, identity.is_some())).transpose()?;
        let bind = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let base_url = base_url.unwrap_or_else(|| base_of(address, identity.is_some()));
        let serving = Arc::new(Serving {
            handler,
            tokens: Tokens::new(limits.tokens, limits.token_bytes, timeouts.token),
            arrivals: Arc::new(Arrivals::new(limits.handshakes)),
            slots: Arc::new(Semaphore::new(limits.sessions.min(Semaphore::MAX_PERMITS))),
            timeouts,
            limits: Arc::new(limits),
            sessions: Sessions::default(),
            identity,
            stopping: CancellationToken::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(listen::run(listener, Arc::clone(&serving), stopped));
        Ok(Self { serving, address, base_url, running: Mutex::new(Some(Running { stop, task })) })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// A URL for the request: good for one client, for a minute.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for what the CRI does not allow; [`Error::TooManyTokens`], [`Error::TokensTooLarge`].
    pub fn issue(&self, request: Request) -> Result<String> {
        request.check()?;
        let path = request.kind().path();
        let token = self.serving.tokens.issue(request)?;
        Ok(format!("{}/{path}/{token}", self.base_url))
    }

    /// URLs that wait for their client.
    pub fn urls_waiting(&self) -> usize {
        self.serving.tokens.waiting()
    }

    /// The sessions, to list and to kill.
    pub fn sessions(&self) -> &Sessions {
        &self.serving.sessions
    }

    /// Reads the TLS files again. They are also read again by themselves when they change; this tells whether
    /// they can be used. Without TLS does nothing.
    ///
    /// # Errors
    /// [`Error::Certificate`]; the old ones stay.
    pub async fn reload_tls(&self) -> Result<()> {
        let Some(identity) = self.serving.identity.clone() else { return Ok(()) };
        let reload = tokio::task::spawn_blocking(move || identity.reload());
        reload.await.map_err(std::io::Error::other).map_err(Error::io("reading the TLS files"))?
    }

    /// Takes no more clients and tells every session to end; what has not ended after `deadline` is dropped.
    /// Returns when nothing runs any more; at once when it was called before.
    pub async fn shutdown(&self, deadline: Duration) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { stop, task }) = running else { return };
        let _ = stop.send(deadline);
        if let Err(error) = task.await {
            tracing::error!(%error, "the streaming server failed");
        }
    }
}

/// The base of URLs for who has configured none.
fn base_of(address: SocketAddr, tls: bool) -> String {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(host, address.port()))
}

fn check_base(url: String, tls: bool) -> Result<String> {
    let problem = match url.parse::<Uri>() {
        Err(_) => "is not a URL; write it as https://HOST:PORT",
        Ok(uri) => match (uri.scheme_str(), uri.host(), uri.path()) {
            (Some("http"), _, _) if tls => "begins with http, but TLS is configured; write https",
            (Some("http" | "https"), Some("0.0.0.0" | "[::]"), _) => {
                "names no host that a client could reach"
            }
            (Some("http" | "https"), Some(_), "/" | "") if uri.query().is_none() => {
                return Ok(url.trim_end_matches('/').to_owned());
            }
            (Some("http" | "https"), Some(_), _) => "has a path; write it as https://HOST:PORT",
            _ => "has no scheme or host; write it as https://HOST:PORT",
        },
    };
    Err(Error::BaseUrl { url, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_that_can_be_reached() {
        for (address, tls, url) in [
            ("127.0.0.1:10010", false, "http://127.0.0.1:10010"),
            ("0.0.0.0:1", true, "https://127.0.0.1:1"),
            ("[::]:1", false, "http://[::1]:1"),
            ("[fd00::2]:1", true, "https://[fd00::2]:1"),
        ] {
            assert_eq!(base_of(address.parse().unwrap(), tls), url);
        }
    }

    #[test]
    fn base_urls_are_checked() {
        for (url, tls, good) in [
            ("https://node-7:10010", true, Some("https://node-7:10010")),
            ("https://node-7:10010/", true, Some("https://node-7:10010")),
            ("https://proxy", false, Some("https://proxy")),
            ("http://node-7:10010", true, None),
            ("node-7:10010", false, None),
            ("ftp://node-7", false, None),
            ("https://node-7/exec", true, None),
            ("https://node-7?x", true, None),
            ("http://0.0.0.0:1", false, None),
            ("http://[::]:1", false, None),
            ("", false, None),
        ] {
            assert_eq!(check_base(url.to_owned(), tls).ok().as_deref(), good, "{url}");
        }
    }
}
