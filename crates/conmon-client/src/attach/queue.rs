// SPDX-License-Identifier: Apache-2.0
//! Output on its way to one client: bounded by bytes, small packets joined.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::{Lost, Stream};

/// Joined packets grow no further than this: what a reader takes at once.
const LARGEST_CHUNK: usize = 32 << 10;

/// How a queue ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    Exited,
    Lost(Lost),
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Taken,
    Full,
    /// Nobody reads any more.
    Gone,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
    /// One reader waits for output or the end, ...
    filled: Notify,
    /// ... or for being dropped; one writer for room.
    behind: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<(Stream, BytesMut)>,
    bytes: usize,
    end: Option<End>,
    reader_gone: bool,
}

/// The hub's end. Clones are the same; one at a time waits.
#[derive(Debug, Clone)]
pub(super) struct Writer(Arc<Shared>);

/// The client's end.
#[derive(Debug)]
pub(super) struct Reader(Arc<Shared>);

/// A queue that takes packets while it holds less than `limit` bytes.
pub(super) fn queue(limit: usize) -> (Writer, Reader) {
    let (state, filled, behind, room) = Default::default();
    let shared = Arc::new(Shared { limit, state, filled, behind, room });
    (Writer(Arc::clone(&shared)), Reader(shared))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Takes a packet whole or not at all.
    pub(super) fn offer(&self, stream: Stream, bytes: &[u8]) -> Offer {
        let mut state = self.0.lock();
        if state.reader_gone || state.end.is_some() {
            return Offer::Gone;
        }
        if state.bytes >= self.0.limit {
            return Offer::Full;
        }
        if bytes.is_empty() {
            return Offer::Taken;
        }
        state.bytes += bytes.len();
        match state.chunks.back_mut() {
            Some((last, chunk)) if *last == stream && chunk.len() + bytes.len() <= LARGEST_CHUNK => {
                chunk.extend_from_slice(bytes);
            }
            _ => state.chunks.push_back((stream, bytes.into())),
        }
        drop(state);
        self.0.filled.notify_one();
        Offer::Taken
    }

    /// As [`Writer::offer`], waiting while the queue is full. Cancel-safe: the packet is then not taken.
    pub(super) async fn push(&self, stream: Stream, bytes: &[u8]) {
        while self.offer(stream, bytes) == Offer::Full {
            self.0.room.notified().await;
        }
    }

    /// Nothing more comes. The first end stays.
    pub(super) fn end(&self, end: End) {
        let mut state = self.0.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        drop(state);
        self.0.filled.notify_one();
        self.0.behind.notify_one();
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Reader {
    pub(super) async fn next(&mut self) -> Result<Option<(Stream, Bytes)>, Lost> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some((stream, chunk)) = state.chunks.pop_front() {
                    state.bytes -= chunk.len();
                    drop(state);
                    self.0.room.notify_one();
                    return Ok(Some((stream, chunk.freeze())));
                }
                match &state.end {
                    Some(End::Exited) => return Ok(None),
                    Some(End::Lost(lost)) => return Err(lost.clone()),
                    None => {}
                }
            }
            self.0.filled.notified().await;
        }
    }

    pub(super) async fn fell_behind(&self) -> Lost {
        loop {
            if let Some(End::Lost(lost @ Lost::Behind { .. })) = &self.0.lock().end {
                return lost.clone();
            }
            self.0.behind.notified().await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reader_gone = true;
        let chunks = std::mem::take(&mut state.chunks);
        drop(state);
        drop(chunks);
        self.0.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_waits_for_its_reader_and_for_its_end() {
        let (writer, mut reader) = queue(10);
        assert_eq!(writer.offer(Stream::Stdout, b"0123456789"), Offer::Taken);
        assert_eq!(writer.offer(Stream::Stdout, b"x"), Offer::Full);
        let late = tokio::time::timeout(Duration::from_secs(1), writer.push(Stream::Stdout, b"x")).await;
        assert!(late.is_err());
        let (pushing, other) = (writer.clone(), writer.clone());
        let push = tokio::spawn(async move { pushing.push(Stream::Stderr, b"err").await });
        assert_eq!(reader.next().await.unwrap().unwrap(), (Stream::Stdout, Bytes::from("0123456789")));
        push.await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), (Stream::Stderr, Bytes::from("err")));

        other.offer(Stream::Stdout, b"last");
        other.end(End::Lost(Lost::Behind { after: Duration::ZERO }));
        other.end(End::Exited);
        assert_eq!(other.offer(Stream::Stdout, b"x"), Offer::Gone);
        assert!(matches!(reader.fell_behind().await, Lost::Behind { .. }));
        assert_eq!(reader.next().await.unwrap().unwrap().1, "last");
        assert!(matches!(reader.next().await, Err(Lost::Behind { .. })));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_that_has_gone() {
        let (writer, reader) = queue(1);
        writer.offer(Stream::Stdout, b"1");
        let push = tokio::spawn(async move {
            writer.push(Stream::Stdout, b"2").await;
            writer.offer(Stream::Stdout, b"3")
        });
        drop(reader);
        assert_eq!(push.await.unwrap(), Offer::Gone);
    }

    proptest! {
        /// Whatever is written in whatever pieces is read in order, and the streams stay apart.
        #[test]
        fn nothing_is_lost_or_mixed(packets in proptest::collection::vec((any::<bool>(), 0usize..3000), 0..60)) {
            let (writer, mut reader) = queue(usize::MAX);
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            for (number, (is_error, length)) in packets.iter().enumerate() {
                let stream = if *is_error { Stream::Stderr } else { Stream::Stdout };
                let bytes = vec![number as u8; *length];
                assert_eq!(writer.offer(stream, &bytes), Offer::Taken);
                sent.extend(bytes.iter().map(|byte| (*is_error, *byte)));
            }
            writer.end(End::Exited);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                while let Some((stream, chunk)) = reader.next().await.unwrap() {
                    assert!(!chunk.is_empty() && chunk.len() <= LARGEST_CHUNK);
                    received.extend(chunk.iter().map(|byte| (stream == Stream::Stderr, *byte)));
                }
            });
            prop_assert_eq!(sent, received);
            prop_assert_eq!(reader.0.lock().bytes, 0);
        }
    }
}
