// SPDX-License-Identifier: Apache-2.0
//! The oldest port-forward over WebSocket: the ports are named in the request, one connection each.
//!
//! ```text
//! channel 2i      data of port i, both ways        first message to the client: the port, 16 bits little endian
//! channel 2i + 1  an error message, to the client  the same
//! ```
//! There is no end of a channel: the connection closes when all ports have.

use super::{Forwards, Request};
use crate::exec::ws::Encoding;
use crate::outlet::Gone;
use crate::output::OutputStream;
use crate::pipe::{InputStream, LARGEST_CHUNK, PipeWriter};
use crate::server::Serving;
use crate::session::{EndReason, Session};
use crate::wire::{Finish, Line, WireError};
use crate::ws::Reader;
use crate::ws::frame::{NORMAL, WsError, close};
use crate::ws::reader::Event;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The most ports of one session: a channel is one byte, or one digit.
const MOST_PORTS: usize = 127;
const MOST_PORTS_BASE64: usize = 5;

/// The longest base64 message; it is decoded whole.
const LONGEST_TEXT: usize = 1 << 20;

/// Runs a session.
pub(crate) async fn serve(
    serving: &Serving,
    request: Request,
    encoding: Encoding,
    reader: Reader,
    mut line: Line,
    session: &Session,
) {
    let timeouts = &serving.timeouts;
    let mut forwards = Forwards::default();
    let Ok(pipes) = open(&request, encoding, &line, &mut forwards).await else { return };
    let mut ports = Ports { reader, encoding, pipes, channel: None, held: Vec::new() };
    let ended = tokio::select! {
        outcome = ports.read(session) => Some(line.read_ended(session, outcome).await),
        reason = line.cut(session, timeouts) => Some(reason),
        () = forwards.all_ended() => None,
    };
    if let Some(reason) = ended {
        ports.pipes.clear();
        forwards.end(reason, &line, session, timeouts).await;
        if reason == EndReason::ClientGone {
            return;
        }
    }
    let goodbye = async {
        line.outlet.send(close(NORMAL)).await?;
        line.outlet.end().await?;
        let _ = (&mut line.writer).await;
        let _ = ports.read(session).await;
        Ok::<(), Gone>(())
    };
    let limit = if ended.is_some() { timeouts.close_linger } else { timeouts.idle };
    let _ = tokio::time::timeout(limit, goodbye).await;
}

/// Tells the client its channels and starts the connections.
async fn open(
    request: &Request,
    encoding: Encoding,
    line: &Line,
    forwards: &mut Forwards,
) -> Result<Vec<PipeWriter>, Gone> {
    let most = if encoding == Encoding::Binary { MOST_PORTS } else { MOST_PORTS_BASE64 };
    let mut pipes = Vec::new();
    for (channel, port) in (0u8..).step_by(2).zip(request.request.ports.iter().copied().take(most)) {
        let channels = [channel, channel + 1].map(|channel| encoding.framer(channel));
        for framer in channels {
            line.outlet.send(framer.data(&port.to_le_bytes())).await?;
        }
        let [data, error] = channels.map(|framer| OutputStream::new(&line.outlet, framer));
        let (writer, input): (PipeWriter, InputStream) = line.budget.pipe();
        pipes.push(writer);
        let connection = request.clone().forward(port, input, data, error);
        forwards.start(async move {
            // The client is gone: so is the connection.
            let _ = connection.await;
        });
    }
    Ok(pipes)
}

struct Ports {
    reader: Reader,
    encoding: Encoding,
    pipes: Vec<PipeWriter>,
    channel: Option<u8>,
    held: Vec<u8>,
}

impl Ports {
    async fn read(&mut self, session: &Session) -> Result<Finish, WireError> {
        loop {
            let Event::Part(part) = self.reader.next().await? else { return Ok(Finish::Closed) };
            let text = self.encoding == Encoding::Base64;
            if part.text != text {
                return Err(WsError::Kind.into());
            }
            if part.first {
                self.channel = None;
                self.held.clear();
            }
            let mut bytes = self.reader.bytes();
            if self.channel.is_none()
                && let Some((channel, rest)) = bytes.split_first()
            {
                self.channel = Some(if text { channel.wrapping_sub(b'0') } else { *channel });
                bytes = rest;
            }
            session.activity.received(bytes.len());
            if text {
                if self.held.len() + bytes.len() > LONGEST_TEXT {
                    return Err(WsError::Base64.into());
                }
                self.held.extend_from_slice(bytes);
                if !part.last {
                    continue;
                }
            }
            let Some(channel) = self.channel.filter(|channel| channel.is_multiple_of(2)) else { continue };
            let Some(pipe) = self.pipes.get(usize::from(channel / 2)) else { continue };
            if text {
                let decoded = STANDARD.decode(&self.held).map_err(|_| WsError::Base64)?;
                for part in decoded.chunks(LARGEST_CHUNK) {
                    pipe.push(part).await;
                }
            } else {
                pipe.push(bytes).await;
            }
        }
    }
}
