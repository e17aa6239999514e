// SPDX-License-Identifier: Apache-2.0
//! Frames, all integers big endian.
//!
//! ```text
//! data      | 0, stream (31 bits)       | flags (8), length (24) | bytes
//! control   | 1, version (15) | type (16) | flags (8), length (24) | payload
//!
//!  1 SYN_STREAM     stream, associated stream, priority (3 bits of 8), slot (8), header block
//!  2 SYN_REPLY      stream, header block
//!  3 RST_STREAM     stream, status
//!  4 SETTINGS       count, count x (flags (8), id (24), value)
//!  6 PING           id
//!  7 GOAWAY         last stream, status
//!  8 HEADERS        stream, header block
//!  9 WINDOW_UPDATE  stream, delta
//! ```
//! Data is handed on as it comes, so its length is no matter of memory; a control frame is read whole, and its
//! length is limited by whoever reads.

use bytes::{Buf, Bytes};

use crate::outlet::Packet;

/// Bytes before every payload.
pub(crate) const HEAD: usize = 8;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Protocol = 1,
    Refused = 3,
    Cancel = 5,
}

/// A frame that cannot be one. Nothing after it can be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("version {0} of SPDY instead of 3")]
    Version(u16),
    #[error("a frame of the unknown type {0}")]
    UnknownType(u16),
    #[error("a {kind} frame of {length} bytes")]
    Length { kind: &'static str, length: usize },
    #[error("stream 0 in a {0} frame")]
    StreamZero(&'static str),
}

/// What the first eight bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    Data { stream: u32, fin: bool, length: usize },
    Control { kind: u16, flags: u8, length: usize },
}

impl Head {
    pub(crate) fn decode(bytes: [u8; HEAD]) -> Result<Self, FrameError> {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return Ok(Self::Data { stream, fin: flags & FIN != 0, length });
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    SynStream { stream: u32, fin: bool, unidirectional: bool, block: Bytes },
    SynReply { stream: u32, fin: bool, block: Bytes },
    Reset { stream: u32, status: u32 },
    Settings { entries: Vec<(u32, u32)> },
    Ping { id: u32 },
    GoAway { last: u32, status: u32 },
    Headers { stream: u32, fin: bool, block: Bytes },
    WindowUpdate { stream: u32, delta: u32 },
}

impl Control {
    /// Reads a payload.
    pub(crate) fn decode(kind: u16, flags: u8, payload: Bytes) -> Result<Self, FrameError> {
        let fin = flags & FIN != 0;
        let mut rest =
            Fields { kind: name(kind).ok_or(FrameError::UnknownType(kind))?, length: payload.len(), payload };
        let frame = match kind {
            1 => {
                let stream = rest.stream()?;
                let _associated = rest.number()?;
                let _priority_and_slot = rest.take(2)?;
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                return Ok(Self::SynStream { stream, fin, unidirectional, block: rest.payload });
            }
            2 => return Ok(Self::SynReply { stream: rest.stream()?, fin, block: rest.payload }),
            8 => return Ok(Self::Headers { stream: rest.stream()?, fin, block: rest.payload }),
            3 => Self::Reset { stream: rest.stream()?, status: rest.number()? },
            4 => Self::Settings { entries: rest.settings()? },
            6 => Self::Ping { id: rest.number()? },
            7 => Self::GoAway { last: rest.number()? & MASK, status: rest.number()? },
            _ => Self::WindowUpdate { stream: rest.number()? & MASK, delta: rest.number()? & MASK },
        };
        if rest.payload.is_empty() { Ok(frame) } else { Err(rest.wrong_length()) }
    }

    /// The frame as it goes onto the wire.
    pub(crate) fn encode(&self) -> Packet {
        let bits = |fin: bool| if fin { FIN } else { 0 };
        let (kind, flags, numbers, block): (u16, u8, [Option<u32>; 2], Bytes) = match self {
            Self::SynStream { stream, fin, unidirectional, block } => {
                let flags = bits(*fin) | if *unidirectional { UNIDIRECTIONAL } else { 0 };
                let head = [&stream.to_be_bytes()[..], &[0; 6], block].concat();
                (1, flags, [None, None], head.into())
            }
            Self::SynReply { stream, fin, block } => (2, bits(*fin), [Some(*stream), None], block.clone()),
            Self::Headers { stream, fin, block } => (8, bits(*fin), [Some(*stream), None], block.clone()),
            Self::Reset { stream, status } => (3, 0, [Some(*stream), Some(*status)], Bytes::new()),
            Self::Settings { entries } => {
                let mut payload = (entries.len() as u32).to_be_bytes().to_vec();
                for (id, value) in entries {
                    payload.extend(id.to_be_bytes());
                    payload.extend(value.to_be_bytes());
                }
                (4, 0, [None, None], payload.into())
            }
            Self::Ping { id } => (6, 0, [Some(*id), None], Bytes::new()),
            Self::GoAway { last, status } => (7, 0, [Some(*last), Some(*status)], Bytes::new()),
            Self::WindowUpdate { stream, delta } => (9, 0, [Some(*stream), Some(*delta)], Bytes::new()),
        };
        let numbers: Vec<u8> = numbers.into_iter().flatten().flat_map(u32::to_be_bytes).collect();
        let length = (numbers.len() + block.len()) as u32;
        let mut head = Vec::with_capacity(16);
        head.extend((0x8000 | VERSION).to_be_bytes());
        head.extend(kind.to_be_bytes());
        head.extend(((u32::from(flags) << 24) | length).to_be_bytes());
        head.extend(numbers);
        Packet::new(&head, block)
    }
}

/// A data frame. The bytes must fit into 24 bits of length.
pub(crate) fn data(stream: u32, fin: bool, bytes: Bytes) -> Packet {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&stream.to_be_bytes());
    head[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    head[4] = u8::from(fin);
    Packet::new(&head, bytes)
}

const MASK: u32 = 0x7fff_ffff;

fn name(kind: u16) -> Option<&'static str> {
    Some(match kind {
        1 => "SYN_STREAM",
        2 => "SYN_REPLY",
        3 => "RST_STREAM",
        4 => "SETTINGS",
        6 => "PING",
        7 => "GOAWAY",
        8 => "HEADERS",
        9 => "WINDOW_UPDATE",
        _ => return None,
    })
}

/// What is left of a payload.
struct Fields {
    kind: &'static str,
    length: usize,
    payload: Bytes,
}

impl Fields {
    fn take(&mut self, count: usize) -> Result<Bytes, FrameError> {
        if self.payload.len() < count { Err(self.wrong_length()) } else { Ok(self.payload.split_to(count)) }
    }

    fn number(&mut self) -> Result<u32, FrameError> {
        Ok(self.take(4)?.get_u32())
    }

    fn stream(&mut self) -> Result<u32, FrameError> {
        match self.number()? & MASK {
            0 => Err(FrameError::StreamZero(self.kind)),
            stream => Ok(stream),
        }
    }

    fn settings(&mut self) -> Result<Vec<(u32, u32)>, FrameError> {
        let count = self.number()? as usize;
        if self.payload.len() / 8 != count || !self.payload.len().is_multiple_of(8) {
            return Err(self.wrong_length());
        }
        (0..count).map(|_| Ok((self.number()?, self.number()?))).collect()
    }

    fn wrong_length(&self) -> FrameError {
        FrameError::Length { kind: self.kind, length: self.length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Control> {
        let id = 1..=MASK;
        let block = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            (id.clone(), any::<bool>(), any::<bool>(), block()).prop_map(
                |(stream, fin, unidirectional, block)| Control::SynStream {
                    stream,
                    fin,
                    unidirectional,
                    block
                }
            ),
            (id.clone(), any::<bool>(), block()).prop_map(|(stream, fin, block)| Control::SynReply {
                stream,
                fin,
                block
            }),
            (id.clone(), any::<bool>(), block()).prop_map(|(stream, fin, block)| Control::Headers {
                stream,
                fin,
                block
            }),
            (id.clone(), any::<u32>()).prop_map(|(stream, status)| Control::Reset { stream, status }),
            prop::collection::vec(any::<(u32, u32)>(), 0..5)
                .prop_map(|entries| Control::Settings { entries }),
            any::<u32>().prop_map(|id| Control::Ping { id }),
            (0..=MASK, any::<u32>()).prop_map(|(last, status)| Control::GoAway { last, status }),
            (0..=MASK, 0..=MASK).prop_map(|(stream, delta)| Control::WindowUpdate { stream, delta }),
        ]
    }

    fn decode(bytes: &[u8]) -> Result<Control, FrameError> {
        match Head::decode(bytes[..HEAD].try_into().unwrap())? {
            Head::Control { kind, flags, length } => {
                assert_eq!(length, bytes.len() - HEAD);
                Control::decode(kind, flags, Bytes::copy_from_slice(&bytes[HEAD..]))
            }
            Head::Data { .. } => panic!("a data frame"),
        }
    }

    proptest! {
        #[test]
        fn control_frames_come_back(frame in frames()) {
            prop_assert_eq!(decode(&frame.encode().to_vec()).unwrap(), frame);
        }

        #[test]
        fn data_comes_back(stream in 0..=MASK, fin: bool, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let wire = data(stream, fin, bytes.clone().into()).to_vec();
            let head = Head::decode(wire[..HEAD].try_into().unwrap()).unwrap();
            prop_assert_eq!(head, Head::Data { stream, fin, length: bytes.len() });
            prop_assert_eq!(&wire[HEAD..], bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(head: [u8; 8], kind in 0u16..12, payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Head::decode(head);
            let _ = Control::decode(kind, head[0], payload.into());
        }
    }

    #[test]
    fn lengths_and_types_that_cannot_be_are_refused() {
        for (bytes, problem) in [
            (&[0x80, 2, 0, 1, 0, 0, 0, 0][..], "version 2"),
            (&[0x80, 3, 0, 5, 0, 0, 0, 0], "unknown type 5"),
            (&[0x80, 3, 0, 10, 0, 0, 0, 0], "unknown type 10"),
            (&[0x80, 3, 0, 6, 0, 0, 0, 3, 0, 0, 0], "PING frame of 3"),
            (&[0x80, 3, 0, 6, 0, 0, 0, 5, 0, 0, 0, 0, 0], "PING frame of 5"),
            (&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], "SYN_STREAM frame of 4"),
            (&[0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0], "stream 0 in a SYN_REPLY"),
            (&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], "SETTINGS frame of 4"),
        ] {
            let error = decode(bytes).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
