// SPDX-License-Identifier: Apache-2.0
//! From a URL to a connection.
//!
//! ```text
//!                 direct                     through a proxy
//! http            TCP                        TCP to the proxy; requests name the whole URL
//! https           TCP -> TLS                 TCP (-> TLS, https proxy) -> CONNECT -> TLS
//! ```

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hull_failpoint::failpoint_async;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::hosts::TlsFiles;
use crate::url::is_loopback;
use crate::{Error, Result, tls};

/// Connects for one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: TlsFiles,
    /// Made at the first https connection: reading the machine's authorities takes a while.
    tls: OnceCell<Arc<rustls::ClientConfig>>,
    proxies: Arc<Matcher>,
    deadline: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{0}")]
    Failed(String),
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection.
pub(crate) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    /// A proxy that must be told whole URLs.
    proxied: bool,
}

// === impl Connector ===

impl Connector {
    pub(crate) fn new(files: TlsFiles, proxies: Arc<Matcher>, deadline: Duration) -> Self {
        Self { shared: Arc::new(Shared { files, tls: OnceCell::new(), proxies, deadline }) }
    }

    /// Whether requests to the URL name it whole, and what tells the proxy who we are.
    pub(crate) fn proxy_of(&self, uri: &Uri) -> Option<Intercept> {
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if is_loopback(authority) { None } else { self.shared.proxies.intercept(uri) }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Trouble;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Stream, Trouble>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Trouble>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let deadline = connector.shared.deadline;
            match tokio::time::timeout(deadline, connector.connect(uri)).await {
                Ok(result) => result,
                Err(_) => Err(Trouble::TimedOut(deadline)),
            }
        })
    }
}

impl Connector {
    async fn connect(&self, uri: Uri) -> std::result::Result<Stream, Trouble> {
        failpoint_async!("registry.connect").map_err(|error| Trouble::Failed(error.to_string()))?;
        let secure = uri.scheme_str() == Some("https");
        let Some(proxy) = self.proxy_of(&uri) else {
            let stream = tcp(uri.clone(), self.shared.deadline).await?;
            return if secure { self.secure(stream, &uri, &self.shared.files).await } else { Ok(stream) };
        };
        let via = proxy.uri().clone();
        let in_proxy = |trouble: Trouble| Trouble::Failed(format!("proxy {}: {trouble}", shown(&via)));
        if !matches!(via.scheme_str(), Some("http" | "https")) {
            let problem = "only http and https proxies are supported";
            return Err(in_proxy(Trouble::Failed(problem.to_owned())));
        }
        let dial = Dial { connector: self.clone() };
        if !secure {
            let mut stream = dial.clone().call(via.clone()).await.map_err(in_proxy)?;
            stream.proxied = true;
            return Ok(stream);
        }
        let mut tunnel = Tunnel::new(via.clone(), dial);
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let stream = tunnel.call(uri.clone()).await;
        let stream = stream.map_err(|error| in_proxy(Trouble::Failed(chain(&error))))?;
        self.secure(stream, &uri, &self.shared.files).await
    }

    async fn secure(
        &self,
        stream: Stream,
        uri: &Uri,
        files: &TlsFiles,
    ) -> std::result::Result<Stream, Trouble> {
        let failed = |problem: String| Trouble::Failed(problem);
        let config = self.tls(files).await.map_err(|error| failed(error.to_string()))?;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let secured = TlsConnector::from(config).connect(name, TokioIo::new(stream)).await;
        let secured = secured.map_err(|error| failed(explain(&error)))?;
        Ok(Stream { io: TokioIo::new(Box::new(secured)), proxied: false })
    }

    async fn tls(&self, files: &TlsFiles) -> Result<Arc<rustls::ClientConfig>> {
        let make = async || {
            let files = files.clone();
            match tokio::task::spawn_blocking(move || tls::config(&files)).await {
                Ok(config) => config.map(Arc::new),
                Err(error) => Err(Error::File { file: "TLS".into(), problem: error.to_string() }),
            }
        };
        self.shared.tls.get_or_try_init(make).await.cloned()
    }
}

/// Connects to a proxy.
#[derive(Clone)]
struct Dial {
    connector: Connector,
}

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = Trouble;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Stream, Trouble>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Trouble>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.connector.clone();
        Box::pin(async move {
            let stream = tcp(uri.clone(), connector.shared.deadline).await?;
            if uri.scheme_str() == Some("https") {
                connector.secure(stream, &uri, &connector.shared.files).await
            } else {
                Ok(stream)
            }
        })
    }
}

async fn tcp(uri: Uri, deadline: Duration) -> std::result::Result<Stream, Trouble> {
    // Tries both kinds of addresses, the second while the first still waits.
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(deadline));
    connector.set_keepalive(Some(Duration::from_secs(30)));
    let stream = connector.call(uri).await.map_err(|error| Trouble::Failed(chain(&error)))?;
    Ok(Stream { io: TokioIo::new(Box::new(stream.into_inner())), proxied: false })
}

/// A proxy's URL without its password.
fn shown(uri: &Uri) -> String {
    format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80))
}

/// What the TLS library says, and what to do about it.
fn explain(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let hint = match cause {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "; name its authority as `ca` in the registry's hosts.toml"
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "; if the server speaks plain http, write its URL with http:// into the registry's hosts.toml"
        }
        _ => "",
    };
    format!("TLS: {error}{hint}")
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let words = source.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = source.source();
    }
    text
}

// === impl Stream ===

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
