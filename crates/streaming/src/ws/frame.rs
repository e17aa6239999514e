// SPDX-License-Identifier: Apache-2.0
//! Frames.
//!
//! ```text
//! | fin (1), 0 0 0, opcode (4) | masked (1), length (7) | length (16 if 126, 64 if 127) | mask (32) | payload |
//! ```
//! A client masks, a server does not. Control frames have at most 125 bytes, and are never cut.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::outlet::Packet;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The close code of a connection that has done its work.
pub(crate) const NORMAL: u16 = 1000;
/// The close code for a peer that broke the protocol.
pub(crate) const PROTOCOL_ERROR: u16 = 1002;

/// What RFC 6455 appends to the client's key.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What makes a connection unreadable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WsError {
    #[error("a WebSocket frame with reserved bits")]
    Reserved,
    #[error("a WebSocket frame of the unknown kind {0}")]
    Opcode(u8),
    #[error("a WebSocket frame that is not masked")]
    Unmasked,
    #[error("a WebSocket frame whose length is not told in the shortest way")]
    Length,
    #[error("a WebSocket control frame that is cut or too long")]
    Control,
    #[error("a WebSocket message inside another, or the continuation of none")]
    Sequence,
    #[error("a WebSocket message of the wrong kind")]
    Kind,
    #[error("a close signal that is not two bytes, or for no stream of the client's")]
    CloseSignal,
    #[error("a WebSocket text message that is no base64, or too long")]
    Base64,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    pub(crate) fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// What precedes a client's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    pub(crate) mask: [u8; 4],
    pub(crate) length: u64,
}

impl Head {
    /// The head at the beginning of the bytes and its size; `None`: more bytes are needed.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WsError> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(WsError::Reserved);
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => return Err(WsError::Opcode(other)),
        };
        if second & MASKED == 0 {
            return Err(WsError::Unmasked);
        }
        let fin = first & FIN != 0;
        let short = second & !MASKED;
        if opcode.is_control() && (!fin || short > 125) {
            return Err(WsError::Control);
        }
        let (length, rest) = match (short, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest)
            }
            (126 | 127, _) => return Ok(None),
            (short, rest) => (u64::from(short), rest),
        };
        let least = match short {
            126 => 126,
            127 => 1 << 16,
            _ => 0,
        };
        if length < least || length > i64::MAX as u64 {
            return Err(WsError::Length);
        }
        let [a, b, c, d, rest @ ..] = rest else { return Ok(None) };
        let head = Self { fin, opcode, mask: [*a, *b, *c, *d], length };
        Ok(Some((head, bytes.len() - rest.len())))
    }
}

/// Takes the mask off. `offset`: how many bytes of the payload came before.
pub(crate) fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut turned = mask;
    turned.rotate_left(offset % 4);
    let wide = u32::from_ne_bytes(turned);
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        let masked = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        word.copy_from_slice(&(masked ^ wide).to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(turned) {
        *byte ^= mask;
    }
}

fn frame(opcode: Opcode, prefix: &[u8], body: Bytes) -> Packet {
    let length = prefix.len() + body.len();
    let mut head = Vec::with_capacity(16);
    head.push(FIN | opcode as u8);
    match length {
        0..=125 => head.push(length as u8),
        126..=0xffff => {
            head.push(126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head.extend_from_slice(prefix);
    Packet::new(&head, body)
}

/// A binary message.
pub(crate) fn message(body: Bytes) -> Packet {
    frame(Opcode::Binary, &[], body)
}

/// A binary message on a channel.
pub(crate) fn channel_message(channel: u8, bytes: &[u8]) -> Packet {
    frame(Opcode::Binary, &[channel], Bytes::copy_from_slice(bytes))
}

/// A base64 text message on a channel with one digit.
pub(crate) fn base64_message(channel: u8, bytes: &[u8]) -> Packet {
    frame(Opcode::Text, &[b'0' + channel % 10], STANDARD.encode(bytes).into())
}

/// A close frame.
pub(crate) fn close(code: u16) -> Packet {
    frame(Opcode::Close, &code.to_be_bytes(), Bytes::new())
}

/// The answer to a ping, or a sign of life.
pub(crate) fn pong(payload: &[u8]) -> Packet {
    frame(Opcode::Pong, &[], Bytes::copy_from_slice(payload))
}

/// The `Sec-WebSocket-Accept` for a client's key.
pub(crate) fn accept_key(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(KEY_SUFFIX.as_bytes());
    STANDARD.encode(sha1.finalize())
}

#[cfg(test)]
pub(super) fn client_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(Opcode::Binary, &[], Bytes::copy_from_slice(payload)).to_vec();
    let head = bytes.len() - payload.len();
    bytes[0] = first;
    bytes[1] |= MASKED;
    unmask(&mut bytes[head..], mask, 0);
    bytes.splice(head..head, mask);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_key_of_the_standard_is_accepted() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn heads_that_cannot_be_are_refused() {
        for (bytes, error) in [
            (&[0xc2, 0x80][..], WsError::Reserved),
            (&[0x83, 0x80], WsError::Opcode(3)),
            (&[0x82, 0x00], WsError::Unmasked),
            (&[0x09, 0x80], WsError::Control),
            (&[0x88, 0xfe], WsError::Control),
            (&[0x82, 0xfe, 0, 125], WsError::Length),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], WsError::Length),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0], WsError::Length),
        ] {
            assert_eq!(Head::decode(bytes), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn messages_are_framed_as_clients_expect() {
        assert_eq!(channel_message(1, b"hi").to_vec(), b"\x82\x03\x01hi");
        assert_eq!(base64_message(2, b"hi").to_vec(), b"\x81\x052aGk=");
        assert_eq!(close(NORMAL).to_vec(), b"\x88\x02\x03\xe8");
        assert_eq!(pong(b"p").to_vec(), b"\x8a\x01p");
        assert_eq!(message(vec![0; 126].into()).to_vec()[..4], [0x82, 126, 0, 126]);
        assert_eq!(message(vec![0; 65536].into()).to_vec()[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn heads_come_back(mask: [u8; 4], payload in prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..300),
            1 => (0usize..70_000).prop_map(|length| vec![7; length]),
        ], cut in 0usize..80_000) {
            let bytes = client_frame(0x82, mask, &payload);
            let (head, size) = Head::decode(&bytes).unwrap().unwrap();
            prop_assert_eq!(head.length, payload.len() as u64);
            let mut rest = bytes[size..].to_vec();
            let cut = cut.min(rest.len());
            unmask(&mut rest[..cut], head.mask, 0);
            unmask(&mut rest[cut..], head.mask, cut);
            prop_assert_eq!(rest, payload);
            for short in 0..size {
                prop_assert_eq!(Head::decode(&bytes[..short]), Ok(None));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = Head::decode(&bytes);
        }
    }
}
