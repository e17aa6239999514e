// SPDX-License-Identifier: Apache-2.0
//! What a client sends passes through a [`Rewriter`]: h2 refuses the `:authority` of clients on gRPC's C core and on
//! Netty (ADR 0030).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use hull_http2_authority::Rewriter;
use tokio::io::{AsyncRead, ReadBuf};

/// What is read at once. Requests are small; the rest of a larger one goes straight into the reader's buffer.
const PIECE: usize = 8 * 1024;

/// One connection's rewriter with its buffers.
#[derive(Debug)]
pub(super) struct Filter {
    rewriter: Rewriter,
    piece: Box<[u8]>,
    /// Rewritten, and not read yet.
    ready: BytesMut,
}

// === impl Filter ===

impl Filter {
    pub(super) fn new() -> Self {
        let piece = vec![0; PIECE].into_boxed_slice();
        Self { rewriter: Rewriter::new(), piece, ready: BytesMut::new() }
    }

    /// Reads from the stream what h2 shall see.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ready.is_empty() && buf.remaining() > 0 {
            let passing = self.rewriter.passing();
            if passing >= PIECE {
                return self.poll_passing(stream, cx, buf, passing);
            }
            let mut piece = ReadBuf::new(&mut self.piece);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                // The client has ended; the beginning of a frame that it left is of no use.
                return Poll::Ready(Ok(()));
            }
            self.rewriter.push(piece.filled(), &mut self.ready);
        }
        let count = self.ready.len().min(buf.remaining());
        buf.put_slice(&self.ready.split_to(count));
        Poll::Ready(Ok(()))
    }

    /// Reads what passes as it is into the reader's own buffer.
    fn poll_passing(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        passing: usize,
    ) -> Poll<io::Result<()>> {
        let room = passing.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        self.rewriter.pass(count);
        Poll::Ready(Ok(()))
    }
}
