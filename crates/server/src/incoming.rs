// SPDX-License-Identifier: Apache-2.0
//! Connections to the socket.
//!
//! A connection that cannot be taken (no descriptor is left) stays in the socket's queue, and the socket stays ready: asked
//! again at once, it would fail again at once. So there is a pause, and a client waits instead of being turned away.
//!
//! A connection costs memory and a descriptor, so their number is bounded: a process may hold as many as are still
//! free for all others. One that opens connections without end gets half of them, and the next process still a quarter.
//! A connection whose client does not begin to speak is closed; one that has spoken may be idle for ever, as the
//! kubelet's is. Pings would tell nothing: the kernel closes this end when the other process ends.

mod filter;

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, UdsConnectInfo};

use self::filter::Filter;

const PAUSE: Duration = Duration::from_millis(100);
/// Connections at a time.
const MOST: usize = 1024;
/// How long a client may take to send the preface of HTTP/2.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);
/// Its length.
const PREFACE: usize = 24;

/// The connections; never an error, and no end.
pub(crate) fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    unfold((listener, Arc::new(Open::new(MOST))), |(listener, open)| async {
        let mut is_told = false;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match open.admit(&stream) {
                    Some(place) => return Some((Ok(Connection::new(stream, place)), (listener, open))),
                    // Dropped: the client sees the end, and others go on.
                    None => continue,
                },
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "a client waits: its connection cannot be taken; trying again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Counts the open connections of each process.
#[derive(Debug)]
struct Open {
    counts: Mutex<HashMap<i32, Count>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Count {
    open: usize,
    /// Logged once until the process has closed all.
    is_told: bool,
}

/// A connection's place among them.
#[derive(Debug)]
struct Place {
    open: Arc<Open>,
    process: i32,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    /// Bytes of the preface that have not come yet, and until when they must.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    filter: Filter,
    _place: Place,
}

// === impl Open ===

impl Open {
    fn new(most: usize) -> Self {
        Self { counts: Mutex::default(), most }
    }

    fn admit(self: &Arc<Self>, stream: &UnixStream) -> Option<Place> {
        let process = stream.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or(0);
        self.enter(process)
    }

    fn enter(self: &Arc<Self>, process: i32) -> Option<Place> {
        let mut counts = self.lock();
        let free = self.most.saturating_sub(counts.values().map(|count| count.open).sum());
        let count = counts.entry(process).or_default();
        if count.open < free {
            count.open += 1;
            return Some(Place { open: Arc::clone(self), process });
        }
        if !std::mem::replace(&mut count.is_told, true) {
            let connections = count.open;
            tracing::warn!(
                process,
                connections,
                "a client's further connections are refused: close idle ones"
            );
        }
        if count.open == 0 {
            counts.remove(&process);
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.lock();
        if let Some(count) = counts.get_mut(&self.process) {
            count.open = count.open.saturating_sub(1);
            if count.open == 0 {
                counts.remove(&self.process);
            }
        }
    }
}

// === impl Connection ===

impl Connection {
    fn new(stream: UnixStream, place: Place) -> Self {
        let preface = Some((PREFACE, Box::pin(tokio::time::sleep(PREFACE_WITHIN))));
        Self { stream, preface, filter: Filter::new(), _place: place }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Self { stream, preface, filter, .. } = &mut *self;
        let read = filter.poll_read(stream, cx, buf);
        let Some((missing, deadline)) = preface else { return read };
        *missing = missing.saturating_sub(buf.filled().len() - before);
        if *missing == 0 {
            *preface = None;
            return read;
        }
        if read.is_pending() && deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_greedy_process_leaves_room_for_others() {
        let open = Arc::new(Open::new(16));
        let enter = |process: i32| {
            let mut places = Vec::new();
            while let Some(place) = open.enter(process) {
                places.push(place);
            }
            places
        };
        let greedy = enter(1);
        assert_eq!(greedy.len(), 8);
        assert_eq!(enter(2).len(), 4);
        drop(greedy);
        assert_eq!(enter(1).len(), 8, "what is closed is free again");
        assert!(open.lock().is_empty(), "processes without connections are forgotten");
    }

    /// A connection and its client's end.
    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let place = Arc::new(Open::new(16)).enter(1).unwrap();
        (Connection::new(ours, place), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_begin_is_cut_and_an_idle_one_is_not() {
        let mut buffer = [0; 64];
        for sent in ["", "PRI * HTTP"] {
            let (mut connection, mut client) = pair();
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut outcome = connection.read(&mut buffer).await;
            while matches!(outcome, Ok(length) if length > 0) {
                outcome = connection.read(&mut buffer).await;
            }
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut, "{sent:?}");
        }
        let (mut connection, mut client) = pair();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert_eq!(connection.read(&mut buffer).await.unwrap(), PREFACE);
        let idle = tokio::time::timeout(Duration::from_secs(86_400), connection.read(&mut buffer)).await;
        assert!(idle.is_err(), "an idle client stays");
    }
}
