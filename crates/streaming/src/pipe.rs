// SPDX-License-Identifier: Apache-2.0
//! Bytes from the client on their way to one reader, bounded twice: per stream and per connection.
//!
//! ```text
//! connection's reader --push--> [chunk][chunk] --poll_read--> the handler
//!                    waits while the stream holds its limit,
//!                    or the connection's budget is spent
//! ```
//! A connection is read by one task, so a stream that is full stops its connection, and no other. A stream whose
//! reader was dropped is never full: what comes for it is thrown away, so that the others go on.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What a chunk costs besides its bytes, so that many small ones are bounded too.
const OVERHEAD: usize = 128;

/// The largest chunk that is pushed at once.
pub(crate) const LARGEST_CHUNK: usize = 64 << 10;

/// What one connection may hold for its readers.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    per_stream: usize,
    blocked: Arc<watch::Sender<bool>>,
}

impl Budget {
    pub(crate) fn new(per_connection: usize, per_stream: usize) -> Self {
        let least = 2 * (LARGEST_CHUNK + OVERHEAD);
        let bytes = Arc::new(Semaphore::new(per_connection.clamp(least, Semaphore::MAX_PERMITS)));
        Self { bytes, per_stream: per_stream.max(1), blocked: Arc::new(watch::Sender::new(false)) }
    }

    /// Tells whether the connection's reader is waiting for room.
    pub(crate) fn blocked(&self) -> watch::Receiver<bool> {
        self.blocked.subscribe()
    }

    /// A new stream's two ends.
    pub(crate) fn pipe(&self) -> (PipeWriter, InputStream) {
        let state = Arc::new(Mutex::new(State::default()));
        (PipeWriter { state: Arc::clone(&state), budget: self.clone() }, InputStream { state })
    }
}

/// How a client's stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client has sent everything.
    Eof,
    /// The client took the stream back, or is gone.
    Reset,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Chunk>,
    queued: usize,
    end: Option<End>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    _budget: OwnedSemaphorePermit,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The connection's end.
#[derive(Debug)]
pub(crate) struct PipeWriter {
    state: Arc<Mutex<State>>,
    budget: Budget,
}

impl PipeWriter {
    /// Hands over bytes, at most [`LARGEST_CHUNK`]; waits while there is no room.
    pub(crate) async fn push(&self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= LARGEST_CHUNK, "chunks are cut where they are read");
        if bytes.is_empty() || !self.wants() {
            return;
        }
        let cost = u32::try_from(bytes.len() + OVERHEAD).unwrap_or(u32::MAX);
        let at_once =
            self.has_room().then(|| Arc::clone(&self.budget.bytes).try_acquire_many_owned(cost).ok());
        let budget = match at_once.flatten() {
            Some(budget) => Some(budget),
            None => {
                let _blocked = Blocked::new(&self.budget.blocked);
                self.wait_for_room(cost).await
            }
        };
        let Some(budget) = budget else { return };
        let mut state = lock(&self.state);
        if state.reader_gone || state.end.is_some() {
            return;
        }
        state.queued += bytes.len();
        // Copied: a slice of the reading buffer would keep the whole of it.
        state.chunks.push_back(Chunk { bytes: Bytes::copy_from_slice(bytes), _budget: budget });
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// No more comes.
    pub(crate) fn end(&self, end: End) {
        let mut state = lock(&self.state);
        if state.end.is_none() {
            state.end = Some(end);
        }
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Whether anybody would read what is pushed.
    pub(crate) fn wants(&self) -> bool {
        let state = lock(&self.state);
        !state.reader_gone && state.end.is_none()
    }

    fn has_room(&self) -> bool {
        lock(&self.state).queued < self.budget.per_stream
    }

    /// `None`: the reader has gone, nothing is wanted any more.
    async fn wait_for_room(&self, cost: u32) -> Option<OwnedSemaphorePermit> {
        std::future::poll_fn(|cx| self.poll_room(cx)).await;
        // Whoever leaves gives its budget back, so the wait for budget must notice that the reader leaves.
        tokio::select! {
            budget = Arc::clone(&self.budget.bytes).acquire_many_owned(cost) => budget.ok(),
            () = std::future::poll_fn(|cx| self.poll_gone(cx)) => None,
        }
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.reader_gone || state.queued < self.budget.per_stream {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.reader_gone {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.end(End::Reset);
    }
}

/// Says so while a push waits, also when that push is given up.
struct Blocked<'a>(&'a watch::Sender<bool>);

impl<'a> Blocked<'a> {
    fn new(blocked: &'a watch::Sender<bool>) -> Self {
        blocked.send_replace(true);
        Self(blocked)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// What the client sends on one stream. Ends with end of file when the client has closed its side, and with
/// `ConnectionReset`, after what had come before, when the client is gone or took the stream back.
///
/// Dropping it throws away whatever else comes.
#[derive(Debug)]
pub struct InputStream {
    state: Arc<Mutex<State>>,
}

impl AsyncRead for InputStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.state);
        if state.chunks.is_empty() {
            return match state.end {
                Some(End::Eof) => Poll::Ready(Ok(())),
                Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        while out.remaining() > 0 {
            let Some(chunk) = state.chunks.front_mut() else { break };
            let length = chunk.bytes.len().min(out.remaining());
            out.put_slice(&chunk.bytes[..length]);
            chunk.bytes.advance(length);
            let done = chunk.bytes.is_empty();
            state.queued -= length;
            if done {
                state.chunks.pop_front();
            }
        }
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        Poll::Ready(Ok(()))
    }
}

impl Drop for InputStream {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.reader_gone = true;
        state.queued = 0;
        let chunks = std::mem::take(&mut state.chunks);
        let writer = state.writer.take();
        drop(state);
        drop(chunks);
        wake(writer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn bytes_arrive_in_order_and_then_the_end() {
        for (end, error) in [(End::Eof, None), (End::Reset, Some(io::ErrorKind::ConnectionReset))] {
            let (writer, mut reader) = Budget::new(1 << 20, 1 << 20).pipe();
            writer.push(b"one ").await;
            writer.push(b"").await;
            writer.push(b"two").await;
            writer.end(end);
            writer.push(b"late").await;
            let mut all = Vec::new();
            let outcome = reader.read_to_end(&mut all).await;
            assert_eq!(outcome.err().map(|error| error.kind()), error);
            assert_eq!(all, b"one two");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_stream_waits_and_tells_so_until_its_reader_reads() {
        let budget = Budget::new(1 << 20, 10);
        let (writer, mut reader) = budget.pipe();
        let mut blocked = budget.blocked();
        writer.push(&[1; 10]).await;
        assert!(!*blocked.borrow());
        let push = tokio::spawn(async move { writer.push(&[2; 10]).await });
        blocked.wait_for(|blocked| *blocked).await.unwrap();
        assert!(!push.is_finished());
        let mut some = [0; 5];
        reader.read_exact(&mut some).await.unwrap();
        push.await.unwrap();
        assert!(!*blocked.borrow());
        let mut all = Vec::new();
        assert!(reader.read_to_end(&mut all).await.is_err(), "the writer left without a word");
        assert_eq!(all.len(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connections_budget_is_shared_and_comes_back() {
        let budget = Budget::new(0, 1 << 20);
        let (first, first_reader) = budget.pipe();
        let (second, mut second_reader) = budget.pipe();
        first.push(&[0; LARGEST_CHUNK]).await;
        first.push(&[0; LARGEST_CHUNK]).await;
        let wait = tokio::time::timeout(Duration::from_secs(1), second.push(b"x")).await;
        assert!(wait.is_err(), "the budget is spent");
        drop(first_reader);
        second.push(b"x").await;
        assert_eq!(second_reader.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_a_reader_that_has_gone() {
        let budget = Budget::new(0, 10);
        let (writer, reader) = budget.pipe();
        writer.push(&[0; 10]).await;
        let push = tokio::spawn(async move {
            writer.push(&[0; 10]).await;
            writer.push(&[0; LARGEST_CHUNK]).await;
        });
        budget.blocked().wait_for(|blocked| *blocked).await.unwrap();
        drop(reader);
        push.await.unwrap();
        assert_eq!(budget.bytes.available_permits(), 2 * (LARGEST_CHUNK + OVERHEAD));
    }
}
