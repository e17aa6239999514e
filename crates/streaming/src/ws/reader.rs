// SPDX-License-Identifier: Apache-2.0
//! Reads a client's messages in parts, as they come, so that a message of any length costs one buffer.
//!
//! ```text
//! frame    [text a][ping][cont. b][cont. fin c]
//! part      first a  |      b       c last          pings are answered on the way
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hull_failpoint::failpoint;
use tokio_util::io::poll_read_buf;

use super::frame::{Head, Opcode, WsError, pong, unmask};
use crate::outlet::Outlet;
use crate::pipe::LARGEST_CHUNK;
use crate::transport::ReadHalf;
use crate::wire::WireError;

/// A piece of a message. The bytes are in [`Reader::bytes`] until the next one is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) text: bool,
    /// It begins a message.
    pub(crate) first: bool,
    /// It ends a message.
    pub(crate) last: bool,
    pub(crate) length: usize,
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Part(Part),
    /// The client has sent a close frame.
    Close,
    /// The connection has ended.
    Eof,
}

/// The reading side of a connection.
pub(crate) struct Reader {
    io: ReadHalf,
    buffer: BytesMut,
    outlet: Outlet,
    /// Bytes of the last part, to be left behind.
    used: usize,
    frame: Option<Frame>,
    /// The message that is being read.
    message: Option<Message>,
    closed: bool,
}

struct Frame {
    head: Head,
    done: u64,
}

#[derive(Clone, Copy)]
struct Message {
    text: bool,
    begun: bool,
}

impl Reader {
    /// `buffered`: what was read already.
    pub(crate) fn new(io: ReadHalf, buffered: &[u8], outlet: Outlet) -> Self {
        let buffer = BytesMut::from(buffered);
        Self { io, buffer, outlet, used: 0, frame: None, message: None, closed: false }
    }

    /// The bytes of the last part.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.used]
    }

    /// The next part. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Event, WireError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, WireError>> {
        self.buffer.advance(std::mem::take(&mut self.used));
        loop {
            if self.closed {
                return self.poll_eof(cx);
            }
            if let Some(event) = self.step()? {
                return Poll::Ready(Ok(event));
            }
            if !ready!(self.poll_fill(cx))? {
                return Poll::Ready(Ok(Event::Eof));
            }
        }
    }

    /// What the buffer holds next; `None`: more is needed.
    fn step(&mut self) -> Result<Option<Event>, WireError> {
        loop {
            let frame = match &mut self.frame {
                Some(frame) => frame,
                None => {
                    let Some((head, size)) = Head::decode(&self.buffer)? else { return Ok(None) };
                    self.begin(head)?;
                    self.buffer.advance(size);
                    self.frame.insert(Frame { head, done: 0 })
                }
            };
            if !frame.head.opcode.is_control() {
                return Ok(self.part().map(Event::Part));
            }
            let length = frame.head.length as usize;
            if self.buffer.len() < length {
                return Ok(None);
            }
            let mut payload = self.buffer.split_to(length);
            unmask(&mut payload, frame.head.mask, 0);
            let opcode = frame.head.opcode;
            self.frame = None;
            match opcode {
                Opcode::Ping => self.outlet.send_urgent(pong(&payload)),
                Opcode::Close => {
                    self.closed = true;
                    return Ok(Some(Event::Close));
                }
                _ => {}
            }
        }
    }

    /// Checks a frame's place among the others.
    fn begin(&mut self, head: Head) -> Result<(), WsError> {
        match (head.opcode, self.message) {
            (Opcode::Text | Opcode::Binary, None) => {
                self.message = Some(Message { text: head.opcode == Opcode::Text, begun: false });
                Ok(())
            }
            (Opcode::Text | Opcode::Binary, Some(_)) | (Opcode::Continuation, None) => Err(WsError::Sequence),
            _ => Ok(()),
        }
    }

    /// The next part of the data frame that is being read.
    fn part(&mut self) -> Option<Part> {
        let (frame, message) = (self.frame.as_mut()?, self.message.as_mut()?);
        let rest = usize::try_from(frame.head.length - frame.done).unwrap_or(usize::MAX);
        if rest > 0 && self.buffer.is_empty() {
            return None;
        }
        let length = self.buffer.len().min(rest).min(LARGEST_CHUNK);
        unmask(&mut self.buffer[..length], frame.head.mask, (frame.done % 4) as usize);
        frame.done += length as u64;
        self.used = length;
        let over = frame.done == frame.head.length;
        let last = over && frame.head.fin;
        let part = Part { text: message.text, first: !message.begun, last, length };
        message.begun = true;
        if over {
            self.frame = None;
        }
        if last {
            self.message = None;
        }
        Some(part)
    }

    /// False at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        failpoint!("streaming.read")?;
        if self.buffer.capacity() - self.buffer.len() < LARGEST_CHUNK / 4 {
            self.buffer.reserve(LARGEST_CHUNK);
        }
        let count = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer))?;
        self.outlet.activity().touch();
        Poll::Ready(Ok(count > 0))
    }

    /// After the client's close frame whatever comes means nothing.
    fn poll_eof(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, WireError>> {
        loop {
            self.buffer.clear();
            if !ready!(self.poll_fill(cx))? {
                return Poll::Ready(Ok(Event::Eof));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::client_frame;
    use super::*;
    use crate::session::Session;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const MASK: [u8; 4] = [1, 2, 3, 250];

    /// All messages, then how it ended; and what was answered.
    async fn read(wire: Vec<u8>, piece: usize) -> (Vec<(bool, Vec<u8>)>, Result<Event, WireError>, Vec<u8>) {
        let (near, mut far) = tokio::io::duplex(piece);
        let feeder = tokio::spawn(async move {
            let _ = far.write_all(&wire).await;
        });
        let (answers_near, mut answers_far) = tokio::io::duplex(1 << 16);
        let (outlet, _task) = Outlet::start(answers_near, &Session::test());
        let mut reader = Reader::new(Box::new(near), &[], outlet.clone());
        let mut messages: Vec<(bool, Vec<u8>)> = Vec::new();
        let end = loop {
            match reader.next().await {
                Ok(Event::Part(part)) => {
                    if part.first {
                        messages.push((part.text, Vec::new()));
                    }
                    messages.last_mut().unwrap().1.extend_from_slice(reader.bytes());
                    assert_eq!(reader.bytes().len(), part.length);
                }
                end => break end,
            }
        };
        drop(reader);
        feeder.await.unwrap();
        outlet.end().await.unwrap();
        let mut answers = Vec::new();
        answers_far.read_to_end(&mut answers).await.unwrap();
        (messages, end, answers)
    }

    #[tokio::test]
    async fn messages_are_joined_and_pings_between_are_answered() {
        let wire = [
            client_frame(0x01, MASK, b"one "),
            client_frame(0x89, MASK, b"ping"),
            client_frame(0x00, MASK, b""),
            client_frame(0x80, MASK, b"message"),
            client_frame(0x8a, MASK, b"pong"),
            client_frame(0x82, MASK, b""),
            client_frame(0x88, MASK, b"\x03\xe8"),
        ]
        .concat();
        for piece in [1, 3, 7, 100] {
            let (messages, end, answers) = read(wire.clone(), piece).await;
            assert_eq!(messages, [(true, b"one message".to_vec()), (false, Vec::new())]);
            assert_eq!(end.unwrap(), Event::Close);
            assert_eq!(answers, b"\x8a\x04ping");
        }
    }

    #[tokio::test]
    async fn frames_out_of_order_are_refused() {
        for wire in [
            client_frame(0x80, MASK, b"continues nothing"),
            [client_frame(0x02, MASK, b"a"), client_frame(0x82, MASK, b"b")].concat(),
        ] {
            let (_, end, _) = read(wire, 100).await;
            assert!(matches!(end, Err(WireError::WebSocket(WsError::Sequence))), "{end:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(wire in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read(wire, piece));
        }

        #[test]
        fn cuts_into_frames_and_packets_do_not_matter(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..8), piece in 1usize..600
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let last = frames.len() - 1;
            let wire: Vec<u8> = frames.iter().enumerate().flat_map(|(at, payload)| {
                let opcode = if at == 0 { 2 } else { 0 };
                client_frame(opcode | if at == last { 0x80 } else { 0 }, MASK, payload)
            }).collect();
            let (messages, end, _) = runtime.block_on(read(wire, piece));
            prop_assert_eq!(messages, vec![(false, frames.concat())]);
            prop_assert_eq!(end.unwrap(), Event::Eof);
        }
    }
}
