// SPDX-License-Identifier: Apache-2.0
//! The reading side of a SPDY connection: takes frames apart, answers pings, hands bytes to their streams.
//!
//! ```text
//! SYN_STREAM -> admit --no--> RST_STREAM
//!                 `--yes--> SYN_REPLY -> opened -> DATA* -> FIN or RST_STREAM
//! ```
//! A stream's reply is queued before anybody can write to the stream: clients drop data that comes before.
//! One task reads; it waits where a stream's reader is too slow, and with it the client.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use hull_failpoint::failpoint_async;
use tokio::io::AsyncReadExt;

use super::frame::{Control, HEAD, Head, Status, data};
use super::headers::{Deflater, Headers, Inflater};
use crate::config::Limits;
use crate::outlet::{Outlet, Packet};
use crate::output::{Closer, Framer, OutputStream};
use crate::pipe::{End, LARGEST_CHUNK, PipeWriter};
use crate::resize::ResizeParser;
use crate::transport::ReadHalf;
pub(crate) use crate::wire::Finish;
use crate::wire::WireError;

/// Our own ping, once everything else was said. Even numbers are the server's.
const LAST_PING: u32 = 2;

/// A stream that no client has.
const NOBODYS: u32 = 0x7fff_fffe;

/// Where a stream's bytes go.
#[derive(Debug)]
pub(crate) enum Sink {
    Pipe(PipeWriter),
    Resize(ResizeParser),
    Discard,
}

impl Sink {
    async fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Pipe(pipe) => pipe.push(bytes).await,
            Self::Resize(parser) => parser.push(bytes),
            Self::Discard => {}
        }
    }

    fn end(&mut self) {
        if let Self::Pipe(pipe) = self {
            pipe.end(End::Eof);
        }
        *self = Self::Discard;
    }

    fn wanted(&self) -> bool {
        match self {
            Self::Pipe(pipe) => pipe.wants(),
            Self::Resize(_) => true,
            Self::Discard => false,
        }
    }
}

/// Decides about the client's streams.
pub(crate) trait Acceptor: Send {
    /// What is remembered of a stream between its two steps.
    type Slot: Send;

    /// Whether to take a stream, and where its bytes go. `None`: refused.
    fn admit(&mut self, id: u32, headers: &Headers) -> Option<(Self::Slot, Sink)>;

    /// The stream is open: it may be written to. Breaks when nothing more is waited for.
    fn opened(&mut self, slot: Self::Slot, output: OutputStream) -> ControlFlow<()>;
}

/// A connection.
pub(crate) struct Connection {
    io: ReadHalf,
    buffer: BytesMut,
    inflater: Inflater,
    deflater: Deflater,
    streams: HashMap<u32, Entry>,
    last: u32,
    going_away: bool,
    outlet: Outlet,
    limits: Arc<Limits>,
}

struct Entry {
    sink: Sink,
    output: Closer,
}

impl Entry {
    /// Neither side has anything to say on it.
    fn is_over(&self) -> bool {
        self.output.is_closed() && !self.sink.wanted()
    }
}

impl Connection {
    /// `buffered`: what was read already.
    pub(crate) fn new(io: ReadHalf, buffered: &[u8], outlet: Outlet, limits: Arc<Limits>) -> Self {
        Self {
            io,
            buffer: BytesMut::from(buffered),
            inflater: Inflater::new(limits.header_block),
            deflater: Deflater::new(),
            streams: HashMap::new(),
            last: 0,
            going_away: false,
            outlet,
            limits,
        }
    }

    /// Reads until the acceptor has everything, the client acknowledges our end, or leaves. Once it has left, or
    /// broken the protocol, all readers are told.
    pub(crate) async fn run<A: Acceptor>(&mut self, acceptor: &mut A) -> Result<Finish, WireError> {
        let outcome = self.read(acceptor).await;
        if !matches!(outcome, Ok(Finish::Complete | Finish::Acknowledged)) {
            self.streams.clear();
        }
        outcome
    }

    /// Tells all readers that nothing more comes, and throws away what does.
    pub(crate) fn abandon(&mut self) {
        for entry in self.streams.values_mut() {
            entry.sink = Sink::Discard;
        }
    }

    /// Ends every stream that is open, asks for a sign that all was read, and says good-bye: after that clients
    /// read nothing more.
    pub(crate) fn farewell(&self) -> Vec<Packet> {
        let mut streams: Vec<_> = self.streams.keys().copied().collect();
        streams.sort_unstable();
        let resets = streams.into_iter().map(|stream| reset(stream, Status::Cancel));
        let last_words = [Control::Ping { id: LAST_PING }, Control::GoAway { last: self.last, status: 0 }];
        resets.chain(last_words.map(|frame| frame.encode())).collect()
    }

    async fn read<A: Acceptor>(&mut self, acceptor: &mut A) -> Result<Finish, WireError> {
        loop {
            while self.buffer.len() < HEAD {
                if !self.fill().await? {
                    return Ok(Finish::Closed);
                }
            }
            let mut head = [0; HEAD];
            self.buffer.copy_to_slice(&mut head);
            match Head::decode(head)? {
                Head::Data { stream, fin, length } => {
                    if !self.data(stream, length).await? {
                        return Ok(Finish::Closed);
                    }
                    if fin {
                        self.end(stream);
                    }
                }
                Head::Control { kind, flags, length } => {
                    let Some(payload) = self.payload(length).await? else { return Ok(Finish::Closed) };
                    let frame = Control::decode(kind, flags, payload)?;
                    if let Some(finish) = self.control(frame, acceptor).await? {
                        return Ok(finish);
                    }
                }
            }
        }
    }

    /// False at the end of the connection.
    async fn fill(&mut self) -> Result<bool, WireError> {
        failpoint_async!("streaming.read")?;
        if self.buffer.capacity() - self.buffer.len() < LARGEST_CHUNK / 4 {
            self.buffer.reserve(LARGEST_CHUNK);
        }
        let count = self.io.read_buf(&mut self.buffer).await?;
        self.outlet.activity().touch();
        Ok(count > 0)
    }

    /// Hands on the bytes of a data frame as they come. Those of a stream that is not open are dropped.
    async fn data(&mut self, stream: u32, mut length: usize) -> Result<bool, WireError> {
        while length > 0 {
            if self.buffer.is_empty() && !self.fill().await? {
                return Ok(false);
            }
            let part = self.buffer.len().min(length).min(LARGEST_CHUNK);
            if let Some(entry) = self.streams.get_mut(&stream) {
                self.outlet.activity().received(part);
                entry.sink.push(&self.buffer[..part]).await;
            }
            self.buffer.advance(part);
            length -= part;
        }
        Ok(true)
    }

    async fn payload(&mut self, length: usize) -> Result<Option<Bytes>, WireError> {
        let limit = self.limits.header_block;
        if length > limit {
            return Err(WireError::TooLong { length, limit });
        }
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Ok(None);
            }
        }
        let payload = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        Ok(Some(payload))
    }

    async fn control<A: Acceptor>(
        &mut self,
        frame: Control,
        acceptor: &mut A,
    ) -> Result<Option<Finish>, WireError> {
        match frame {
            Control::SynStream { stream, fin, unidirectional, block } => {
                // Read even if the stream is refused: later blocks build on it.
                let headers = self.inflater.read(&block)?;
                return self.open(stream, fin, unidirectional, &headers, acceptor).await;
            }
            Control::SynReply { block, .. } => drop(self.inflater.read(&block)?),
            Control::Headers { stream, fin, block } => {
                self.inflater.read(&block)?;
                if fin {
                    self.end(stream);
                }
            }
            Control::Reset { stream, .. } => self.forget(stream),
            Control::Ping { id: LAST_PING } => return Ok(Some(Finish::Acknowledged)),
            Control::Ping { id } if id % 2 == 1 => self.outlet.send_urgent(Control::Ping { id }.encode()),
            Control::GoAway { .. } => self.going_away = true,
            Control::Ping { .. } | Control::Settings { .. } | Control::WindowUpdate { .. } => {}
        }
        Ok(None)
    }

    async fn open<A: Acceptor>(
        &mut self,
        stream: u32,
        fin: bool,
        unidirectional: bool,
        headers: &Headers,
        acceptor: &mut A,
    ) -> Result<Option<Finish>, WireError> {
        if stream.is_multiple_of(2) || stream <= self.last {
            self.forget(stream);
            self.outlet.send(reset(stream, Status::Protocol)).await?;
            return Ok(None);
        }
        self.last = stream;
        if self.streams.len() >= self.limits.streams {
            self.streams.retain(|_, entry| !entry.is_over());
        }
        if self.streams.len() >= self.limits.streams || self.going_away || unidirectional {
            self.outlet.send(reset(stream, Status::Refused)).await?;
            return Ok(None);
        }
        let Some((slot, mut sink)) = acceptor.admit(stream, headers) else {
            self.outlet.send(reset(stream, Status::Protocol)).await?;
            return Ok(None);
        };
        let block = self.deflater.write(&[])?;
        self.outlet.send(Control::SynReply { stream, fin: false, block }.encode()).await?;
        if fin {
            sink.end();
        }
        let output = OutputStream::new(&self.outlet, Framer::Spdy { stream });
        self.streams.insert(stream, Entry { sink, output: output.closer() });
        Ok(acceptor.opened(slot, output).is_break().then_some(Finish::Complete))
    }

    /// The client has sent everything on a stream.
    fn end(&mut self, stream: u32) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.sink.end();
            if entry.output.is_closed() {
                self.streams.remove(&stream);
            }
        }
    }

    /// The stream is over in both directions, without a word from us.
    fn forget(&mut self, stream: u32) {
        if let Some(entry) = self.streams.remove(&stream) {
            let _ = entry.output.close();
        }
    }
}

/// A frame that ends a stream in both directions.
pub(crate) fn reset(stream: u32, status: Status) -> Packet {
    Control::Reset { stream, status: status as u32 }.encode()
}

/// What is told to a client that broke the protocol.
pub(crate) fn complaint() -> Packet {
    Control::GoAway { last: 0, status: Status::Protocol as u32 }.encode()
}

/// A frame that means nothing and needs no answer, and that the machine of a client that has left resets. A ping
/// would not do: its answer waits behind what the client has to send, and other things behind it.
pub(crate) fn sign_of_life() -> Packet {
    data(NOBODYS, false, Bytes::new())
}

#[cfg(test)]
mod tests;
