// SPDX-License-Identifier: Apache-2.0
//! Where the server listens, and the bounds of what strangers may make it hold.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How the streaming server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Port 0: the kernel chooses.
    pub address: SocketAddr,
    /// What URLs begin with, as `https://node-7:10010`. `None`: made from the address that was bound; the
    /// loopback address stands in for an unspecified one, since the kubelet is on this machine.
    pub base_url: Option<String>,
    /// TLS. `None`: plain HTTP, where the token in the URL is the only secret.
    pub tls: Option<TlsFiles>,
    /// Counts and sizes.
    pub limits: Limits,
    /// Durations.
    pub timeouts: Timeouts,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            base_url: None,
            tls: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// The files of the server's identity, PEM. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Authorities whose client certificates are demanded. `None`: clients need no certificate.
    pub client_authority: Option<PathBuf>,
}

/// Counts and sizes. Memory per connection is at most `connection_buffer` inwards, 16 messages of 32 KiB
/// outwards, and 64 KiB of reading buffer (twice that when SPDY is tunnelled).
#[derive(Debug, Clone)]
pub struct Limits {
    /// URLs handed out and not used yet.
    pub tokens: usize,
    /// Bytes of their commands together.
    pub token_bytes: usize,
    /// Connections that have not shown a token yet. A further one displaces one that has been silent for long.
    pub handshakes: usize,
    /// Sessions at a time. A further one is answered 503.
    pub sessions: usize,
    /// Streams of one connection at a time; port-forward takes two for each forwarded connection.
    pub streams: usize,
    /// Bytes that wait for one stream's reader.
    pub stream_buffer: usize,
    /// Bytes that wait for all readers of one connection. At least 128 KiB are granted.
    pub connection_buffer: usize,
    /// Bytes of the head of an HTTP request.
    pub http_head: usize,
    /// Bytes of a SPDY control frame, and of a header block when it is unpacked.
    pub header_block: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tokens: 1000,
            token_bytes: 16 << 20,
            handshakes: 128,
            sessions: 1024,
            streams: 2048,
            stream_buffer: 1 << 20,
            connection_buffer: 8 << 20,
            http_head: 16 << 10,
            header_block: 64 << 10,
        }
    }
}

/// Durations.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// How long a URL may wait for its client.
    pub token: Duration,
    /// From the connection to the upgrade, TLS included.
    pub handshake: Duration,
    /// For the client to open the streams that belong together.
    pub stream_creation: Duration,
    /// A session without a byte in either direction is ended after this.
    pub idle: Duration,
    /// How long a handler may take to return once its session was told to end; then it is dropped.
    pub handler_grace: Duration,
    /// How long the last bytes of a session that is being ended by us may take to leave, and how long we wait for
    /// the client to close after it has read everything.
    pub close_linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            token: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            stream_creation: Duration::from_secs(30),
            idle: Duration::from_secs(4 * 3600),
            handler_grace: Duration::from_secs(30),
            close_linger: Duration::from_secs(5),
        }
    }
}
