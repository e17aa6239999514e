// SPDX-License-Identifier: Apache-2.0
//! A process in a container that somebody talks to: what a runtime hands back for it.
//!
//! ```text
//! start_session -> running --wait--> ended --retire--> what it left in the background lives on
//!                     |                 |
//!                  hang_up, signal      |        destroy: everything dies; so it does when dropped
//!                     `-----------------+------> destroy
//! ```
//! The streams are apart from the process: each goes its own way, to whoever talks to it. A terminal is hung up
//! when its streams have been dropped and [`ExecSession::hang_up`] was called.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::Result;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A process started by [`crate::OciRuntime::start_session`], with its tree. Dropped before [`ExecSession::retire`],
/// it kills all of it.
#[async_trait]
pub trait ExecSession: Debug + Send + Sync {
    /// Its pid on the host; `None` where there is no real process.
    fn pid(&self) -> Option<i32>;

    /// Its streams, those that were asked for; nothing the second time.
    fn take_streams(&mut self) -> SessionStreams;

    /// Changes the size of its terminal; without one, or after its end, does nothing.
    ///
    /// # Errors
    /// The kernel's.
    fn resize(&self, size: TerminalSize) -> io::Result<()>;

    /// Waits for the end of the process itself, not of what it left in the background: its exit code, 128 + n for
    /// signal n. Cancel-safe; answers the same again.
    ///
    /// # Errors
    /// [`crate::Error::Garbled`]: nobody knows how it ended.
    async fn wait(&self) -> Result<i32>;

    /// Lets go of the terminal: when its streams are dropped too, the kernel sends SIGHUP to who it belongs to.
    fn hang_up(&mut self);

    /// Sends a signal to every process of the tree.
    fn signal(&self, signal: i32);

    /// Whether any process of the tree lives.
    fn is_populated(&self) -> bool;

    /// After its end: lets what lives in the background live on, and removes the rest.
    async fn retire(self: Box<Self>);

    /// Kills every process of the tree and removes what there is of it. Bounded.
    async fn destroy(self: Box<Self>);
}

/// The streams of a process.
#[derive(Debug, Default)]
pub struct SessionStreams {
    /// What it reads.
    pub stdin: Option<ProcessInput>,
    /// What it writes; everything, for a terminal.
    pub stdout: Option<ProcessOutput>,
    /// Its errors; never for a terminal.
    pub stderr: Option<ProcessOutput>,
}

/// Bytes to a process. Shutting down ends its input: a pipe is closed, a terminal gets its end-of-file character
/// (twice after an unfinished line, which the first one only hands over).
#[derive(Debug)]
pub struct ProcessInput(Input);

#[derive(Debug)]
enum Input {
    Pipe(Sender),
    Terminal { master: Sender, end: u8, at_line_start: bool, ends_left: u8 },
    Simulated(DuplexStream),
    Closed,
}

impl ProcessInput {
    pub(crate) fn pipe(pipe: Sender) -> Self {
        Self(Input::Pipe(pipe))
    }

    /// `end`: the terminal's end-of-file character.
    pub(crate) fn terminal(master: Sender, end: u8) -> Self {
        Self(Input::Terminal { master, end, at_line_start: true, ends_left: 0 })
    }

    pub(crate) fn simulated(stream: DuplexStream) -> Self {
        Self(Input::Simulated(stream))
    }
}

impl AsyncWrite for ProcessInput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Input::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            Input::Terminal { master, at_line_start, .. } => {
                let count = ready!(Pin::new(master).poll_write(cx, bytes))?;
                if let Some(last) = bytes.get(..count).and_then(<[u8]>::last) {
                    // A terminal reads CR as NL unless it is raw, and then there are no lines.
                    *at_line_start = matches!(last, b'\n' | b'\r');
                }
                Poll::Ready(Ok(count))
            }
            Input::Simulated(stream) => Pin::new(stream).poll_write(cx, bytes),
            Input::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Input::Terminal { master, end, at_line_start, ends_left } = &mut self.0 {
            if *ends_left == 0 {
                *ends_left = if *at_line_start { 1 } else { 2 };
            }
            while *ends_left > 0 {
                ready!(Pin::new(&mut *master).poll_write(cx, &[*end]))?;
                *ends_left -= 1;
            }
        }
        // The kernel, or the simulated process, sees that this end is gone.
        self.0 = Input::Closed;
        Poll::Ready(Ok(()))
    }
}

/// Bytes from a process. It ends when nobody has the other end any more.
#[derive(Debug)]
pub struct ProcessOutput(Output);

#[derive(Debug)]
enum Output {
    Pipe(Receiver),
    Terminal(Receiver),
    Simulated(DuplexStream),
}

impl ProcessOutput {
    pub(crate) fn pipe(pipe: Receiver) -> Self {
        Self(Output::Pipe(pipe))
    }

    pub(crate) fn terminal(master: Receiver) -> Self {
        Self(Output::Terminal(master))
    }

    pub(crate) fn simulated(stream: DuplexStream) -> Self {
        Self(Output::Simulated(stream))
    }
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Output::Pipe(pipe) => Pin::new(pipe).poll_read(cx, out),
            Output::Terminal(master) => match ready!(Pin::new(master).poll_read(cx, out)) {
                // How a pty says that nobody has the other side open.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    Poll::Ready(Ok(()))
                }
                outcome => Poll::Ready(outcome),
            },
            Output::Simulated(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}
