// SPDX-License-Identifier: Apache-2.0
//! A byte stream in binary messages: what SPDY runs in when it is tunnelled. Where messages begin and end means
//! nothing; a close frame is the end of file. The writing side is an `OutputStream` with `Framer::Tunnel`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::frame::WsError;
use super::reader::{Event, Reader};
use crate::wire::WireError;

/// The reading side.
pub(crate) struct TunnelReader {
    reader: Reader,
    /// How much of the last part was given out.
    given: usize,
}

impl TunnelReader {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader, given: 0 }
    }
}

impl AsyncRead for TunnelReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let rest = &self.reader.bytes()[self.given..];
            if !rest.is_empty() {
                let length = rest.len().min(out.remaining());
                out.put_slice(&rest[..length]);
                self.given += length;
                return Poll::Ready(Ok(()));
            }
            // Asking for the next part leaves the last one behind.
            self.given = 0;
            match ready!(self.reader.poll_next(cx)).map_err(into_io)? {
                Event::Part(part) if part.text => return Poll::Ready(Err(into_io(WsError::Kind.into()))),
                Event::Part(_) => {}
                Event::Close | Event::Eof => return Poll::Ready(Ok(())),
            }
        }
    }
}

fn into_io(error: WireError) -> io::Error {
    match error {
        WireError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
