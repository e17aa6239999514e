// SPDX-License-Identifier: Apache-2.0
//! A container's standard streams, for any number of clients at a time.
//!
//! ```text
//!                                    +-- queue --> Output   a client
//! monitor == one connection ==> hub -+-- queue --> Output   another
//!                           <======= +------------ Input
//! ```
//! A monitor writes to whoever is attached with writes that block, and stops logging meanwhile. So there is one
//! connection for each container, read by a task that does nothing else (see [`hub`]), and what holds for clients is:
//! - each has its own bounded queue ([`Limits::buffer`]), and gets the output from when it joined on;
//! - a client that is slow slows the container, as a pipe would; one that takes nothing for [`Limits::stall`] while its
//!   queue is full is dropped and told so ([`Lost::Behind`]): neither the log nor the others ever wait longer for it;
//! - clients come and go; the first opens the connection and the last closes it. With `stdin_once` closing it would
//!   close the container's stdin, so it is kept until an input has left or the container has ended;
//! - the container's end ends all of them, after they have got everything;
//! - nothing is kept for a later daemon: its clients join anew. To a container with `stdin_once` the end of a daemon
//!   that was connected is the end of its client.

mod connection;
mod hub;
mod queue;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::Stdio;

pub(crate) use connection::Connection;
pub(crate) use hub::Hubs;
pub use socket::{AttachClient, PACKET_SIZE};

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or everything with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A client of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachRequest {
    /// As the container was created.
    pub stdio: Stdio,
    /// The client sends input. Its leaving is what `stdin_once` waits for.
    pub input: bool,
}

/// How long clients are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of output that wait for one client.
    pub buffer: usize,
    /// How long a client whose buffer is full may hold up the container's output without taking any.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { buffer: 256 << 10, stall: Duration::from_secs(5) }
    }
}

/// A client's ends of the streams. Dropping both parts leaves.
#[derive(Debug)]
pub struct Attachment {
    /// What the container writes.
    pub output: Output,
    /// The container's stdin; `None` if none was asked for, or the container has none.
    pub input: Option<Input>,
}

/// Why output ended before the container did.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The client did not take it.
    #[error("the client has taken no output for {after:?} and was holding up the container")]
    Behind {
        /// The limit.
        after: Duration,
    },
    /// The connection to the monitor broke.
    #[error("the connection to the container's monitor broke")]
    Broken(#[source] Arc<std::io::Error>),
}

/// What a container writes, from when this was made.
#[derive(Debug)]
pub struct Output {
    queue: queue::Reader,
    /// Keeps the connection.
    _hub: Arc<hub::Hub>,
}

impl Output {
    /// The next bytes, never none; `None` once the container has ended and all of it was told. Cancel-safe.
    ///
    /// # Errors
    /// [`Lost`], after what had come before.
    pub async fn next(&mut self) -> Result<Option<(Stream, Bytes)>, Lost> {
        self.queue.next().await
    }

    /// Waits until this client is dropped for not taking what comes: for who is busy with handing on what
    /// [`Output::next`] told.
    pub async fn fell_behind(&self) -> Lost {
        self.queue.fell_behind().await
    }
}

/// A container's stdin. Dropping it closes the container's stdin for good, for every client, if the container was made
/// with `stdin_once` and without a terminal; else it only leaves.
#[derive(Debug)]
pub struct Input {
    hub: Arc<hub::Hub>,
}

impl Input {
    /// Writes; waits while the container does not read. Not cancel-safe: a dropped call may have written a part.
    ///
    /// # Errors
    /// `BrokenPipe` when the container has ended or its stdin was closed.
    pub async fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.hub.write_stdin(bytes).await
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.hub.input_left();
    }
}
