// SPDX-License-Identifier: Apache-2.0
//! Everything that leaves on one connection, in one queue and by one task.
//!
//! ```text
//! stdout --.                          .- urgent: answers to pings; dropped when 16 wait
//! stderr ---+--> data: 16 packets -->-+--> writer task --> the wire
//! status --'     waits when full
//! ```
//! A packet is one frame and is written whole. What goes through the same queue keeps its order, so a stream's
//! last byte precedes its end, and the status follows both.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use hull_failpoint::failpoint_async;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::session::{Activity, Session};

/// The most payload of one packet.
pub(crate) const LARGEST_PAYLOAD: usize = 32 << 10;

const DATA_PACKETS: usize = 16;
const URGENT_PACKETS: usize = 16;

/// The most bytes of a frame's head on any wire.
const HEAD: usize = 16;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    head: [u8; HEAD],
    head_length: usize,
    body: Bytes,
}

impl Packet {
    /// A frame of a head, at most 16 bytes, and a body. Longer heads go before the body.
    pub(crate) fn new(head: &[u8], body: Bytes) -> Self {
        if head.len() > HEAD {
            let whole = [head, &body].concat();
            return Self { head: [0; HEAD], head_length: 0, body: whole.into() };
        }
        let mut packet = Self { head: [0; HEAD], head_length: head.len(), body };
        packet.head[..head.len()].copy_from_slice(head);
        packet
    }

    fn head(&self) -> &[u8] {
        &self.head[..self.head_length]
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        [self.head(), &self.body].concat()
    }
}

/// What the queue carries.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Packet(Packet),
    /// Flush, close the writing side, stop.
    End,
}

/// The sending end of a connection's queue.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    data: mpsc::Sender<Outgoing>,
    urgent: mpsc::Sender<Packet>,
    activity: Arc<Activity>,
}

/// The connection is gone: nothing can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client's connection is gone")]
pub(crate) struct Gone;

impl Outlet {
    /// Starts the task that writes. It ends after [`Outlet::end`], or when the wire breaks.
    pub(crate) fn start<W>(wire: W, session: &Session) -> (Self, WriterTask)
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (data, data_queue) = mpsc::channel(DATA_PACKETS);
        let (urgent, urgent_queue) = mpsc::channel(URGENT_PACKETS);
        let queues = Queues { data: data_queue, urgent: urgent_queue };
        let activity = Arc::clone(&session.activity);
        let task = session.spawn(write(wire, queues, Arc::clone(&activity)));
        (Self { data, urgent, activity }, task)
    }

    /// Queues a packet; waits while the client does not read.
    pub(crate) async fn send(&self, packet: Packet) -> Result<(), Gone> {
        self.data.send(Outgoing::Packet(packet)).await.map_err(|_| Gone)
    }

    /// Queues a packet past the others; never waits, and drops it when the client does not read.
    pub(crate) fn send_urgent(&self, packet: Packet) {
        let _ = self.urgent.try_send(packet);
    }

    /// Nothing comes after what is queued.
    pub(crate) async fn end(&self) -> Result<(), Gone> {
        self.data.send(Outgoing::End).await.map_err(|_| Gone)
    }

    /// The queue itself, for polling.
    pub(crate) fn queue(&self) -> mpsc::Sender<Outgoing> {
        self.data.clone()
    }

    /// When anything last moved, and how much did.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

/// The task that writes; aborted when dropped.
pub(crate) type WriterTask = AbortOnDropHandle<io::Result<()>>;

struct Queues {
    data: mpsc::Receiver<Outgoing>,
    urgent: mpsc::Receiver<Packet>,
}

impl Queues {
    async fn next(&mut self) -> Outgoing {
        tokio::select! {
            biased;
            Some(packet) = self.urgent.recv() => Outgoing::Packet(packet),
            outgoing = self.data.recv() => outgoing.unwrap_or(Outgoing::End),
        }
    }

    fn try_next(&mut self) -> Option<Outgoing> {
        match self.urgent.try_recv() {
            Ok(packet) => Some(Outgoing::Packet(packet)),
            Err(_) => self.data.try_recv().ok(),
        }
    }
}

async fn write<W>(mut wire: W, mut queues: Queues, activity: Arc<Activity>) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut batch = Batch::default();
    let mut heads = BytesMut::new();
    loop {
        let mut next = Some(queues.next().await);
        let mut ended = false;
        while let Some(outgoing) = next {
            match outgoing {
                Outgoing::Packet(packet) => batch.push(packet, &mut heads),
                Outgoing::End => ended = true,
            }
            let full = ended || batch.parts.len() >= 2 * DATA_PACKETS;
            next = if full { None } else { queues.try_next() };
        }
        failpoint_async!("streaming.write")?;
        while batch.has_remaining() {
            wire.write_buf(&mut batch).await?;
            activity.touch();
        }
        wire.flush().await?;
        if ended {
            return wire.shutdown().await;
        }
    }
}

/// Frames that are written with one system call.
#[derive(Debug, Default)]
struct Batch {
    parts: VecDeque<Bytes>,
    remaining: usize,
}

impl Batch {
    fn push(&mut self, packet: Packet, heads: &mut BytesMut) {
        heads.extend_from_slice(packet.head());
        for part in [heads.split().freeze(), packet.body] {
            self.remaining += part.len();
            if !part.is_empty() {
                self.parts.push_back(part);
            }
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn advance(&mut self, mut count: usize) {
        self.remaining -= count;
        while count > 0 {
            let Some(part) = self.parts.front_mut() else { break };
            let taken = count.min(part.len());
            part.advance(taken);
            count -= taken;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn packet(head: &[u8], body: &'static [u8]) -> Packet {
        Packet::new(head, Bytes::from_static(body))
    }

    #[tokio::test]
    async fn packets_are_written_whole_in_order_and_the_wire_is_closed() {
        let (near, mut far) = tokio::io::duplex(3);
        let (outlet, task) = Outlet::start(near, &Session::test());
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all)
        });
        for _ in 0..100 {
            outlet.send(packet(b"<", b"body>")).await.unwrap();
        }
        outlet.send(packet(&[b'h'; 20], b"!")).await.unwrap();
        outlet.end().await.unwrap();
        task.await.unwrap().unwrap();
        let all = reader.await.unwrap().unwrap();
        assert_eq!(all, [b"<body>".repeat(100), vec![b'h'; 20], b"!".to_vec()].concat());
        assert_eq!(outlet.send(packet(b"", b"late")).await, Err(Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_makes_senders_wait_and_urgent_ones_give_up() {
        let (near, far) = tokio::io::duplex(1);
        let (outlet, task) = Outlet::start(near, &Session::test());
        let wait = async {
            loop {
                outlet.send(packet(b"", b"data")).await.unwrap();
            }
        };
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), wait).await.is_err());
        for _ in 0..1000 {
            outlet.send_urgent(packet(b"", b"pong"));
        }
        drop(far);
        assert!(task.await.unwrap().is_err());
        assert_eq!(outlet.end().await, Err(Gone));
    }
}
