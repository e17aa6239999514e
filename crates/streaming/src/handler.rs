// SPDX-License-Identifier: Apache-2.0
//! What the daemon does for a client, whatever the client speaks.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::output::OutputStream;
use crate::pipe::InputStream;
use crate::request::{AttachRequest, ExecRequest, PortForwardRequest};
use crate::resize::Resizes;
use crate::session::Ending;
use crate::status::ExitStatus;

/// Serves what clients ask for.
///
/// A call is one session (one connection, for port-forward) and runs in a task of its own. When its client is
/// gone, or the session is to end, `ending` tells so; the call must then return soon. One that has not returned
/// after [`crate::Timeouts::handler_grace`] is dropped, so it must be safe to drop at every await.
#[async_trait]
pub trait Handler: Debug + Send + Sync {
    /// Runs a command. Everything written to the streams before this returns is sent before the status.
    async fn exec(&self, request: ExecRequest, streams: Streams) -> ExitStatus;

    /// Connects the streams to a container's process. As [`Handler::exec`]; returns when the container has
    /// ended, or the client's input has and that ends the session.
    async fn attach(&self, request: AttachRequest, streams: Streams) -> ExitStatus;

    /// Forwards one connection to a port of a pod, until both sides have closed ([`crate::relay`] does that part).
    ///
    /// # Errors
    /// [`ForwardError::Refused`] if the port cannot be reached; [`ForwardError::Cut`] for what comes later.
    async fn port_forward(
        &self,
        request: PortForwardRequest,
        port: u16,
        stream: PortStream,
    ) -> Result<(), ForwardError>;
}

/// A session's standard streams: those that were asked for.
#[derive(Debug)]
pub struct Streams {
    /// The client's input.
    pub stdin: Option<InputStream>,
    /// Output to the client.
    pub stdout: Option<OutputStream>,
    /// Error output to the client.
    pub stderr: Option<OutputStream>,
    /// Terminal sizes, for a terminal.
    pub resizes: Option<Resizes>,
    /// Tells when to end.
    pub ending: Ending,
}

/// Why a connection was not forwarded, or was cut.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// It never came to be. The client's user reads the message, and `kubectl` then ends all its forwarding: so
    /// it is not for what may happen to one connection among many.
    #[error("{message}")]
    Refused {
        /// Why, in words for the user.
        message: String,
    },
    /// It was cut after it had begun. The client sees that this one connection is reset, and no message.
    #[error("the connection was cut")]
    Cut(#[from] io::Error),
}

impl ForwardError {
    /// Refused, with its message for the user.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused { message: message.into() }
    }
}

/// One forwarded connection, the client's side. Shutting down the writing side tells the client that no more
/// comes; the other direction goes on.
#[derive(Debug)]
pub struct PortStream {
    input: InputStream,
    output: OutputStream,
    ending: Ending,
}

impl PortStream {
    pub(crate) fn new(input: InputStream, output: OutputStream, ending: Ending) -> Self {
        Self { input, output, ending }
    }

    /// Tells when to end.
    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// Its two directions.
    pub fn into_split(self) -> (InputStream, OutputStream) {
        (self.input, self.output)
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, out)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}
