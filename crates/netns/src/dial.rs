// SPDX-License-Identifier: Apache-2.0
//! Connections to ports of a pod, as from inside it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, SimplexStream};
use tokio::net::TcpStream;

use crate::NetNsPath;

/// A TCP port of localhost, in whose network namespace, and how long connecting may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialRequest {
    /// The network namespace; `None`: the host's.
    pub network: Option<NetNsPath>,
    /// The port.
    pub port: u16,
    /// For all attempts together.
    pub deadline: Duration,
}

/// One connection. Dropping it closes it in order; after [`Connection::reset`], it aborts it.
#[derive(Debug)]
pub struct Connection(Inner);

enum Inner {
    Tcp(TcpStream),
    /// What is written can be read again.
    Simulated(SimplexStream),
}

// === impl Connection ===

impl Connection {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        Self(Inner::Tcp(stream))
    }

    /// To somebody who sends back what they get, and ends when we do.
    pub(crate) fn echo(buffer: usize) -> Self {
        Self(Inner::Simulated(SimplexStream::new_unsplit(buffer)))
    }

    /// Lets the other side see a reset, not an end, when this is dropped: for a connection that was cut, so that
    /// nobody takes half of something for all of it. What was written and not sent yet is lost.
    pub fn reset(&self) {
        let Inner::Tcp(stream) = &self.0 else { return };
        if let Err(error) = stream.set_zero_linger() {
            tracing::debug!(%error, "cannot have a connection reset; it will be closed");
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => write!(f, "tcp {:?}", stream.peer_addr().ok()),
            Self::Simulated(_) => f.write_str("simulated"),
        }
    }
}

/// The same call on whichever stream it is.
macro_rules! poll {
    ($self:ident, $call:ident $(, $argument:expr)*) => {
        match &mut $self.get_mut().0 {
            Inner::Tcp(stream) => Pin::new(stream).$call($($argument),*),
            Inner::Simulated(stream) => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll!(self, poll_read, cx, out)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll!(self, poll_write, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll!(self, poll_shutdown, cx)
    }
}
