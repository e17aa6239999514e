// SPDX-License-Identifier: Apache-2.0
//! Exec and attach over WebSocket: the first byte of each message is its channel.
//!
//! ```text
//! binary    | channel (8)   | bytes           0 stdin  1 stdout  2 stderr  3 status  4 resize
//! base64    | channel digit | base64 text     255, v5 alone: | 255 | channel |, no more comes on the channel
//! ```

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Job, Version, Wire, conduct};
use crate::handler::Streams;
use crate::outlet::Packet;
use crate::output::{Closer, Framer, OutputStream};
use crate::pipe::{End, PipeWriter};
use crate::resize::ResizeParser;
use crate::server::Serving;
use crate::session::{Activity, Session};
use crate::status::{self, ExitStatus};
use crate::wire::{Finish, Line, WireError};
use crate::ws::frame::{NORMAL, WsError, close};
use crate::ws::reader::Event;
use crate::ws::{Part, Reader};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE_SIGNAL: u8 = 255;

/// The longest base64 message; it is decoded whole.
const LONGEST_TEXT: usize = 1 << 20;

/// How bytes are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Binary,
    Base64,
}

impl Encoding {
    pub(crate) fn framer(self, channel: u8) -> Framer {
        match self {
            Self::Binary => Framer::Channel { channel },
            Self::Base64 => Framer::Base64 { channel },
        }
    }
}

/// A dialect of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) version: Version,
    pub(crate) encoding: Encoding,
    pub(crate) close_signal: bool,
}

/// Runs a session.
pub(crate) async fn serve(
    serving: &Serving,
    job: Job,
    dialect: Dialect,
    reader: Reader,
    line: Line,
    session: &Session,
) {
    let stdio = job.stdio();
    let output = |wanted: bool, channel| {
        wanted.then(|| OutputStream::new(&line.outlet, dialect.encoding.framer(channel)))
    };
    let (stdin_writer, stdin) = stdio.stdin.then(|| line.budget.pipe()).unzip();
    let (parser, resizes) = stdio.tty.then(ResizeParser::new).unzip();
    let streams = Streams {
        stdin,
        stdout: output(stdio.stdout, STDOUT),
        stderr: output(stdio.stderr, STDERR),
        resizes,
        ending: session.ending.clone(),
    };
    let outputs =
        [&streams.stdout, &streams.stderr].into_iter().flatten().map(OutputStream::closer).collect();
    // Tells the client that the connection is up.
    let first = [(stdio.stdout, STDOUT), (stdio.stderr, STDERR)];
    let first = first.into_iter().find(|(wanted, _)| *wanted).map_or(STATUS, |(_, channel)| channel);
    if line.outlet.send(dialect.encoding.framer(first).data(&[])).await.is_err() {
        return;
    }
    let channels = Channels {
        dialect,
        activity: Arc::clone(&session.activity),
        stdin: stdin_writer,
        resize: parser,
        channel: None,
        held: Vec::new(),
    };
    let mut wire = WsWire { reader, channels, outputs };
    conduct(&mut wire, line, session, &serving.timeouts, job.run(serving.handler.clone(), streams)).await;
}

struct WsWire {
    reader: Reader,
    channels: Channels,
    outputs: Vec<Closer>,
}

impl Wire for WsWire {
    async fn run(&mut self) -> Result<Finish, WireError> {
        let outcome = self.read().await;
        self.abandon();
        outcome
    }

    fn abandon(&mut self) {
        // Dropped pipes tell their readers.
        self.channels.stdin = None;
        self.channels.resize = None;
    }

    fn farewell(&mut self, status: &ExitStatus) -> Vec<Packet> {
        for output in &self.outputs {
            let _ = output.close();
        }
        let Dialect { version, encoding, .. } = self.channels.dialect;
        let message = status::encode(status, version.format);
        let framer = encoding.framer(STATUS);
        let status = message.chunks(framer.largest()).map(|part| framer.data(part));
        status.chain([close(NORMAL)]).collect()
    }
}

impl WsWire {
    async fn read(&mut self) -> Result<Finish, WireError> {
        loop {
            match self.reader.next().await? {
                Event::Part(part) => self.channels.part(part, self.reader.bytes()).await?,
                // The client leaves, or answers our own close frame: then it has read everything, and the server
                // is the one to close the connection.
                Event::Close | Event::Eof => return Ok(Finish::Closed),
            }
        }
    }
}

/// The client's channels.
struct Channels {
    dialect: Dialect,
    activity: Arc<Activity>,
    stdin: Option<PipeWriter>,
    resize: Option<ResizeParser>,
    /// That of the message that is being read, once its first byte has come.
    channel: Option<u8>,
    /// What must be read whole: base64 text, and close signals.
    held: Vec<u8>,
}

impl Channels {
    async fn part(&mut self, part: Part, bytes: &[u8]) -> Result<(), WireError> {
        if part.text != (self.dialect.encoding == Encoding::Base64) {
            return Err(WsError::Kind.into());
        }
        if part.first {
            self.channel = None;
            self.held.clear();
        }
        let mut bytes = bytes;
        if self.channel.is_none()
            && let Some((channel, rest)) = bytes.split_first()
        {
            self.channel = Some(*channel);
            bytes = rest;
        }
        match (self.channel, part.text) {
            (None, _) => {}
            (Some(CLOSE_SIGNAL), false) if self.dialect.close_signal => {
                self.held.extend_from_slice(&bytes[..bytes.len().min(2)]);
                if part.last {
                    self.close_signal()?;
                }
            }
            (Some(channel), false) => self.deliver(channel, bytes).await,
            (Some(digit), true) => {
                if self.held.len() + bytes.len() > LONGEST_TEXT {
                    return Err(WsError::Base64.into());
                }
                self.held.extend_from_slice(bytes);
                if part.last {
                    let decoded = STANDARD.decode(&self.held).map_err(|_| WsError::Base64)?;
                    for part in decoded.chunks(crate::pipe::LARGEST_CHUNK) {
                        self.deliver(digit.wrapping_sub(b'0'), part).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes for channels that are not the client's to write are dropped.
    async fn deliver(&mut self, channel: u8, bytes: &[u8]) {
        self.activity.received(bytes.len());
        match (channel, &self.stdin, &mut self.resize) {
            (STDIN, Some(stdin), _) => stdin.push(bytes).await,
            (RESIZE, _, Some(resize)) => resize.push(bytes),
            _ => {}
        }
    }

    fn close_signal(&mut self) -> Result<(), WsError> {
        match self.held[..] {
            [STDIN] => {
                if let Some(stdin) = &self.stdin {
                    stdin.end(End::Eof);
                }
                Ok(())
            }
            // Output is ours to end; a client that wants none of it is free to say so.
            [STDOUT..=RESIZE] => Ok(()),
            _ => Err(WsError::CloseSignal),
        }
    }
}
