// SPDX-License-Identifier: Apache-2.0
//! The frames of one direction of a connection (RFC 9113).
//!
//! ```text
//! length (24 bits) | type (8) | flags (8) | reserved (1) stream (31) | payload
//!
//! HEADERS payload: [pad length (8)] [dependency (32) weight (8)] fragment of the block [padding]
//! ```

use bytes::{BufMut as _, BytesMut};

use crate::hpack;

/// The longest header block that is searched, with the heads of its frames, in bytes. h2's limit is 16 KiB of headers.
pub const LONGEST_BLOCK: usize = 64 * 1024;

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEAD: usize = 9;
/// The payload that every receiver takes.
const MAX_PAYLOAD: usize = 16 * 1024;

/// The room that a connection keeps for the next block.
const KEPT_ROOM: usize = 4096;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Rewrites what a client sends on one connection.
#[derive(Debug)]
pub struct Rewriter {
    state: State,
    /// Bytes that wait for the rest of a frame's head or of a header block.
    held: Vec<u8>,
    /// The stream whose header block is held.
    block: Option<u32>,
}

#[derive(Debug)]
enum State {
    /// This many bytes pass as they come.
    Passing(usize),
    /// The head of a frame begins at this offset of what is held.
    Head(usize),
    /// The payload of a frame of a header block; what is held ends with its head. `missing` bytes are to come.
    Payload { missing: usize, flags: u8 },
}

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

// === impl Rewriter ===

impl Default for Rewriter {
    fn default() -> Self {
        Self::new()
    }
}

impl Rewriter {
    /// Creates a rewriter for a connection of which nothing has been read.
    pub fn new() -> Self {
        Self { state: State::Passing(PREFACE), held: Vec::new(), block: None }
    }

    /// Returns how many of the next bytes pass unread: they need not go through [`Self::push`], if [`Self::pass`] is
    /// called for them.
    pub fn passing(&self) -> usize {
        match self.state {
            State::Passing(count) => count,
            State::Head(_) | State::Payload { .. } => 0,
        }
    }

    /// Notes that `count` bytes, at most [`Self::passing`], went by.
    pub fn pass(&mut self, count: usize) {
        if let State::Passing(left) = &mut self.state {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.state = State::Head(0);
            }
        }
    }

    /// Takes the next bytes of the client, and appends to `out` what h2 shall read.
    pub fn push(&mut self, mut input: &[u8], out: &mut BytesMut) {
        while !input.is_empty() {
            let taken = match self.state {
                State::Passing(count) => {
                    let taken = count.min(input.len());
                    out.put_slice(&input[..taken]);
                    self.pass(taken);
                    taken
                }
                State::Head(start) => {
                    let taken = (start + HEAD - self.held.len()).min(input.len());
                    self.held.extend_from_slice(&input[..taken]);
                    if self.held.len() == start + HEAD {
                        self.begin_frame(Head::parse(&self.held[start..]), out);
                    }
                    taken
                }
                State::Payload { missing, flags } => {
                    let taken = missing.min(input.len());
                    self.held.extend_from_slice(&input[..taken]);
                    self.state = State::Payload { missing: missing - taken, flags };
                    self.end_payload(out);
                    taken
                }
            };
            input = &input[taken..];
        }
    }

    fn begin_frame(&mut self, head: Head, out: &mut BytesMut) {
        let wanted = match self.block {
            Some(stream) => head.kind == CONTINUATION && head.stream == stream,
            None => head.kind == HEADERS,
        };
        if !wanted || self.held.len() + head.length > LONGEST_BLOCK {
            self.flush(out);
            self.state = State::Passing(head.length);
            self.pass(0);
            return;
        }
        self.block = Some(head.stream);
        self.state = State::Payload { missing: head.length, flags: head.flags };
        self.end_payload(out);
    }

    fn end_payload(&mut self, out: &mut BytesMut) {
        let State::Payload { missing: 0, flags } = self.state else { return };
        if flags & END_HEADERS == 0 {
            self.state = State::Head(self.held.len());
            return;
        }
        if let Some(rewritten) = rewrite(&self.held) {
            self.held = rewritten;
        }
        self.flush(out);
        self.state = State::Head(0);
    }

    fn flush(&mut self, out: &mut BytesMut) {
        out.put_slice(&self.held);
        // A connection that once sent a large block does not keep its room while it idles.
        if self.held.capacity() > KEPT_ROOM {
            self.held = Default::default();
        } else {
            self.held.clear();
        }
        self.block = None;
    }
}

// === impl Head ===

impl Head {
    /// Reads the head from its nine bytes, of which missing ones are zero.
    fn parse(bytes: &[u8]) -> Self {
        let at = |index: usize| bytes.get(index).copied().unwrap_or_default();
        Self {
            length: usize::from(at(0)) << 16 | usize::from(at(1)) << 8 | usize::from(at(2)),
            kind: at(3),
            flags: at(4),
            stream: u32::from_be_bytes([at(5), at(6), at(7), at(8)]) & 0x7fff_ffff,
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.length).unwrap_or_default().to_be_bytes();
        out.extend_from_slice(&length[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }
}

/// Rewrites the frames of a whole header block; `None` if they can stay.
fn rewrite(frames: &[u8]) -> Option<Vec<u8>> {
    let (head, payload, mut rest) = split_frame(frames)?;
    let (priority, first) = fragment(head, payload)?;
    // A block in one frame, which nearly all are, is not copied.
    let mut whole = Vec::new();
    let block = if rest.is_empty() {
        first
    } else {
        whole.extend_from_slice(first);
        while !rest.is_empty() {
            let (_, payload, next) = split_frame(rest)?;
            whole.extend_from_slice(payload);
            rest = next;
        }
        &whole
    };
    Some(frame(head, priority, &hpack::rewrite(block)?))
}

fn split_frame(frames: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let (head, rest) = frames.split_at_checked(HEAD)?;
    let head = Head::parse(head);
    let (payload, rest) = rest.split_at_checked(head.length)?;
    Some((head, payload, rest))
}

/// Splits the payload of HEADERS into its priority and its part of the block.
fn fragment(head: Head, payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut payload = payload;
    if head.flags & PADDED != 0 {
        let (padding, rest) = payload.split_first()?;
        payload = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    payload.split_at_checked(if head.flags & PRIORITY == 0 { 0 } else { 5 })
}

/// Writes a header block as frames, without padding.
fn frame(first: Head, priority: &[u8], block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + priority.len() + block.len());
    let (part, mut rest) = block.split_at(block.len().min(MAX_PAYLOAD - priority.len()));
    let flags = first.flags & !(PADDED | END_HEADERS);
    let end = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
    Head { length: priority.len() + part.len(), flags: flags | end(rest), ..first }.write(&mut out);
    out.extend_from_slice(priority);
    out.extend_from_slice(part);
    while !rest.is_empty() {
        let (part, next) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        rest = next;
        Head { length: part.len(), kind: CONTINUATION, flags: end(rest), ..first }.write(&mut out);
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests;
