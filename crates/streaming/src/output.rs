// SPDX-License-Identifier: Apache-2.0
//! Bytes to the client on one stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::time::Sleep;
use tokio_util::sync::PollSender;

use crate::outlet::{Gone, LARGEST_PAYLOAD, Outgoing, Outlet, Packet};
use crate::session::Activity;
use crate::{spdy, ws};

/// How a stream's bytes become frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framer {
    /// DATA frames of a SPDY stream.
    Spdy { stream: u32 },
    /// Binary messages that begin with the channel.
    Channel { channel: u8 },
    /// Text messages: the channel's digit, then base64.
    Base64 { channel: u8 },
    /// Binary messages that are nothing but the bytes.
    Tunnel,
}

impl Framer {
    pub(crate) fn largest(self) -> usize {
        match self {
            Self::Spdy { .. } | Self::Tunnel => LARGEST_PAYLOAD,
            Self::Channel { .. } => LARGEST_PAYLOAD - 1,
            Self::Base64 { .. } => LARGEST_PAYLOAD / 4 * 3 - 3,
        }
    }

    pub(crate) fn data(self, bytes: &[u8]) -> Packet {
        match self {
            Self::Spdy { stream } => spdy::frame::data(stream, false, Bytes::copy_from_slice(bytes)),
            Self::Channel { channel } => ws::frame::channel_message(channel, bytes),
            Self::Base64 { channel } => ws::frame::base64_message(channel, bytes),
            Self::Tunnel => ws::frame::message(Bytes::copy_from_slice(bytes)),
        }
    }

    /// What tells the client that no more comes on this stream, where there is such a thing.
    fn end(self) -> Option<Packet> {
        match self {
            Self::Spdy { stream } => Some(spdy::frame::data(stream, true, Bytes::new())),
            Self::Channel { .. } | Self::Base64 { .. } => None,
            Self::Tunnel => Some(ws::frame::close(ws::frame::NORMAL)),
        }
    }
}

/// Ends a stream from outside, once, whoever comes first.
#[derive(Debug, Clone)]
pub(crate) struct Closer {
    framer: Framer,
    closed: Arc<AtomicBool>,
}

impl Closer {
    /// The packet that ends the stream, unless it is ended already.
    pub(crate) fn close(&self) -> Option<Packet> {
        if self.closed.swap(true, Ordering::AcqRel) { None } else { self.framer.end() }
    }

    /// Whether our side is ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// Bytes to the client. A write waits while the connection's queue is full, that is while the client does not
/// read; [`OutputStream::set_stall_limit`] bounds the wait, [`OutputStream::try_write`] never waits. What was
/// accepted is sent before the session's status. Shutting down tells the client that this stream ends, where
/// the protocol can; dropping does not, the end of the session does.
///
/// Errors: `BrokenPipe` when the client or the session is gone; `TimedOut` after a stall.
#[derive(Debug)]
pub struct OutputStream {
    queue: PollSender<Outgoing>,
    framer: Framer,
    closed: Arc<AtomicBool>,
    activity: Arc<Activity>,
    stall_limit: Option<Duration>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl OutputStream {
    pub(crate) fn new(outlet: &Outlet, framer: Framer) -> Self {
        Self {
            queue: PollSender::new(outlet.queue()),
            framer,
            closed: Arc::default(),
            activity: Arc::clone(outlet.activity()),
            stall_limit: None,
            stalled: None,
        }
    }

    pub(crate) fn framer(&self) -> Framer {
        self.framer
    }

    pub(crate) fn closer(&self) -> Closer {
        Closer { framer: self.framer, closed: Arc::clone(&self.closed) }
    }

    /// A write that has waited this long for the client fails with `TimedOut`. `None`, the default: it waits as
    /// long as the session lives. For writers that must not be stopped by a client, as those that share a source.
    /// A client that was too slow once is not waited for at the end either, beyond
    /// [`crate::Timeouts::close_linger`].
    pub fn set_stall_limit(&mut self, limit: Option<Duration>) {
        self.stall_limit = limit;
        self.stalled = None;
    }

    /// The client is not waited for at the session's end, as after a stall: for handlers that measure stalls themselves.
    pub fn give_up(&self) {
        self.activity.note_stall();
    }

    /// Writes what can be written without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if that is nothing; `BrokenPipe` when the client or the session is gone.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.poll_send(&mut Context::from_waker(Waker::noop()), &bytes[written..]) {
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) if written == 0 => return Err(error),
                Poll::Pending if written == 0 => return Err(io::ErrorKind::WouldBlock.into()),
                _ => break,
            }
        }
        Ok(written)
    }

    /// Sends a whole message on a stream of its own and ends it. Errors mean that the client is gone.
    pub(crate) async fn finish_with(&mut self, outlet: &Outlet, message: &[u8]) -> Result<(), Gone> {
        for part in message.chunks(self.framer.largest()) {
            outlet.send(self.framer.data(part)).await?;
        }
        match self.closer().close() {
            Some(packet) => outlet.send(packet).await,
            None => Ok(()),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.queue.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let part = &bytes[..bytes.len().min(self.framer.largest())];
        let packet = self.framer.data(part);
        self.queue.send_item(Outgoing::Packet(packet)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        // What goes through a tunnel was counted where it went in.
        if self.framer != Framer::Tunnel {
            self.activity.sent(part.len());
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(limit) = self.stall_limit else { return Poll::Pending };
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        self.stalled = None;
        self.activity.note_stall();
        let problem = format!("the client has not read for {limit:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)))
    }
}

impl AsyncWrite for OutputStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Poll::Ready(outcome) = self.poll_send(cx, bytes) {
            self.stalled = None;
            return Poll::Ready(outcome);
        }
        self.poll_stalled(cx)
    }

    /// Fills one frame from many pieces.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = Vec::with_capacity(LARGEST_PAYLOAD);
        for piece in pieces {
            let room = self.framer.largest() - gathered.len();
            gathered.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        self.poll_write(cx, &gathered)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: the queue empties itself, and what it holds is sent before the session ends.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        if self.framer.end().is_some() {
            ready!(self.queue.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        if let Some(packet) = self.closer().close() {
            self.queue.send_item(Outgoing::Packet(packet)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Session;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stalls_is_told_about() {
        let (near, mut far) = tokio::io::duplex(1);
        let (outlet, _task) = Outlet::start(near, &Session::test());
        let mut output = OutputStream::new(&outlet, Framer::Spdy { stream: 1 });
        output.set_stall_limit(Some(Duration::from_secs(5)));
        let data = vec![0; 4 << 20];
        let stalled = output.write_all(&data).await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        assert_eq!(output.try_write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let reader = tokio::spawn(async move { tokio::io::copy(&mut far, &mut tokio::io::sink()).await });
        output.write_all(b"it reads again").await.unwrap();
        output.shutdown().await.unwrap();
        assert_eq!(output.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        outlet.end().await.unwrap();
        assert!(reader.await.unwrap().unwrap() > 16 * 32768);
    }

    #[tokio::test]
    async fn try_write_takes_what_fits() {
        let (near, mut far) = tokio::io::duplex(1);
        let (outlet, task) = Outlet::start(near, &Session::test());
        let mut output = OutputStream::new(&outlet, Framer::Spdy { stream: 1 });
        let data = vec![7; 10 << 20];
        let taken = output.try_write(&data).unwrap();
        assert!(taken > 0 && taken <= 33 * LARGEST_PAYLOAD, "{taken}");
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all.iter().filter(|byte| **byte == 7).count())
        });
        outlet.end().await.unwrap();
        task.await.unwrap().unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), taken);
        assert_eq!(output.try_write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
