// SPDX-License-Identifier: Apache-2.0
//! Netlink over a blocking socket: batches of requests, each acknowledged, and dumps.
//!
//! ```text
//! nlmsghdr   0..4 length   4..6 type   6..8 flags   8..12 sequence   12..16 port      (host byte order)
//! type 2 (ERROR)  16..20 -errno, 0 for an acknowledgement; with NLM_F_CAPPED and NLM_F_ACK_TLVS then the
//!                 request's nlmsghdr and attributes, of which 1 is the kernel's words (netlink(7))
//! type 3 (DONE)   the end of a dump
//! ```
//! The kernel works a request off while it is sent, so the answers are there when sending returns; the
//! time limit is for a kernel that answers nothing.

use std::io;
use std::os::fd::AsFd as _;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

/// The longest that is waited for an answer.
const LIMIT_SECONDS: i64 = 10;
/// More than the kernel puts into one datagram.
const BUFFER: usize = 64 << 10;
/// How often a dump is tried that changes under the reader.
const DUMPS: usize = 20;
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The kernel's words, among the attributes of an error.
const WORDS: u16 = 1;

/// A socket in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A request: a message and the flags beyond those that every request has.
pub(super) type Request = (RouteNetlinkMessage, u16);

/// One message of an answer.
#[derive(Debug)]
struct Part<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    whole: &'a [u8],
}

// === impl Netlink ===

impl Netlink {
    /// For links, addresses and routes.
    pub(super) fn route() -> io::Result<Self> {
        Self::open(NETLINK_ROUTE)
    }

    /// For firewall and connection tracking.
    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(NETLINK_NETFILTER)
    }

    fn open(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::seconds(LIMIT_SECONDS))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends requests in one go; the kernel works all of them off, in order. The first refusal is returned.
    pub(super) fn batch(&mut self, requests: Vec<Request>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let first = self.sequence + 1;
        for (message, flags) in requests {
            append(&mut bytes, self.next(), message, flags | NLM_F_ACK);
        }
        self.exchange(&bytes, first)
    }

    /// Sends one request of another family, encoded by the caller: type, flags, and all after the header.
    pub(super) fn raw(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let bytes = self.encode(kind, flags | NLM_F_ACK, body)?;
        self.exchange(&bytes, self.sequence)
    }

    /// As [`Self::raw`], for a request that has one answer: what comes after its header.
    pub(super) fn ask_raw(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let bytes = self.encode(kind, 0, body)?;
        self.send(&bytes)?;
        let (wanted, mut answer) = (self.sequence, None);
        while answer.is_none() {
            self.receive(|part| {
                if part.sequence == wanted {
                    answer = Some(part.refusal().map_or_else(|| Ok(part.body().to_vec()), Err));
                }
                Ok(())
            })?;
        }
        answer.unwrap_or_else(|| Err(malformed()))
    }

    /// Everything that the kernel has of a kind.
    pub(super) fn dump(&mut self, what: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMPS {
            let mut bytes = Vec::new();
            append(&mut bytes, self.next(), what.clone(), NLM_F_DUMP);
            let mut found = Vec::new();
            // What this version of the decoder cannot read is of no link that we made.
            let read = |part: &Part<'_>| {
                let message = NetlinkMessage::deserialize(part.whole).map(|it| it.payload);
                if let Ok(NetlinkPayload::InnerMessage(message)) = message {
                    found.push(message);
                }
            };
            if self.dump_once(&bytes, read)? {
                return Ok(found);
            }
        }
        Err(unsteady())
    }

    /// As [`Self::raw`], for a request that is answered with all that there is: what comes after the header of each
    /// that is wanted.
    pub(super) fn dump_raw(
        &mut self,
        kind: u16,
        body: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..DUMPS {
            let bytes = self.encode(kind, NLM_F_DUMP, body)?;
            let mut found = Vec::new();
            let keep = |part: &Part<'_>| {
                if wanted(part.body()) {
                    found.push(part.body().to_vec());
                }
            };
            if self.dump_once(&bytes, keep)? {
                return Ok(found);
            }
        }
        Err(unsteady())
    }

    /// `false`: it changed meanwhile, and the answer may lack something.
    fn dump_once(&mut self, bytes: &[u8], mut take: impl FnMut(&Part<'_>)) -> io::Result<bool> {
        self.send(bytes)?;
        let (wanted, mut ended, mut torn) = (self.sequence, false, false);
        while !ended {
            self.receive(|part| {
                if part.sequence != wanted {
                    return Ok(());
                }
                torn |= part.flags & NLM_F_DUMP_INTR != 0;
                match part.kind {
                    DONE => ended = true,
                    ERROR => match part.refusal() {
                        Some(refusal) => return Err(refusal),
                        None => ended = true,
                    },
                    _ => take(&part),
                }
                Ok(())
            })?;
        }
        Ok(!torn)
    }

    fn next(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    fn encode(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let length = u32::try_from(HEADER + body.len()).map_err(|_| malformed())?;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&self.next().to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(body);
        Ok(bytes)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }

    /// Sends, and waits for the acknowledgements from `first` to the newest sequence number.
    fn exchange(&mut self, bytes: &[u8], first: u32) -> io::Result<()> {
        self.send(bytes)?;
        let (last, mut acknowledged, mut result) = (self.sequence, first - 1, Ok(()));
        while acknowledged < last {
            self.receive(|part| {
                if part.kind == ERROR && (first..=last).contains(&part.sequence) {
                    acknowledged = part.sequence;
                    if let (Some(refusal), true) = (part.refusal(), result.is_ok()) {
                        result = Err(refusal);
                    }
                }
                Ok(())
            })?;
        }
        result
    }

    fn receive(&self, mut take: impl FnMut(Part<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut buffer: Vec<u8> = Vec::with_capacity(BUFFER);
        match self.socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer"));
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let part = Part::read(rest).ok_or_else(malformed)?;
            let step = part.whole.len().next_multiple_of(4).min(rest.len());
            rest = rest.get(step..).unwrap_or_default();
            take(part)?;
        }
        Ok(())
    }
}

// === impl Part ===

impl<'a> Part<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let whole = bytes.get(..length).filter(|_| length >= HEADER)?;
        let (kind, flags) = (u16_at(whole, 4)?, u16_at(whole, 6)?);
        Some(Self { kind, flags, sequence: u32_at(whole, 8)?, whole })
    }

    fn body(&self) -> &'a [u8] {
        self.whole.get(HEADER..).unwrap_or_default()
    }

    /// `None` for what is no error, or an acknowledgement.
    fn refusal(&self) -> Option<io::Error> {
        if self.kind != ERROR {
            return None;
        }
        let errno = u32_at(self.body(), 0)?.cast_signed().checked_neg().unwrap_or(i32::MAX);
        if errno == 0 {
            return None;
        }
        let error = io::Error::from_raw_os_error(errno);
        match self.words() {
            // The number is still to be found: callers match on it.
            Some(words) => Some(io::Error::new(error.kind(), Refused { error, words })),
            None => Some(error),
        }
    }

    fn words(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 || self.flags & NLM_F_CAPPED == 0 {
            return None;
        }
        let text = attribute(self.body().get(4 + HEADER..)?, WORDS)?;
        let text = String::from_utf8_lossy(text);
        Some(text.trim_end_matches('\0').to_owned())
    }
}

/// A refusal with the kernel's own words.
#[derive(Debug, thiserror::Error)]
#[error("{error} ({words})")]
struct Refused {
    error: io::Error,
    words: String,
}

/// The number of an error that the kernel gave.
pub(super) fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| error.get_ref()?.downcast_ref::<Refused>()?.error.raw_os_error())
}

/// An attribute: length, type, value, padded to four bytes.
pub(super) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Callers' values are short.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of a type.
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    /// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
    const FLAGS: u16 = 0xc000;
    while let (Some(length), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        let length = usize::from(length);
        let value = bytes.get(4..length)?;
        if kind & !FLAGS == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn append(bytes: &mut Vec<u8>, sequence: u32, message: RouteNetlinkMessage, flags: u16) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags | NLM_F_REQUEST;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    if let Some(place) = bytes.get_mut(start..) {
        message.serialize(place);
    }
}

fn unsteady() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "what is looked at changes all the time")
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed netlink message")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtnetlink::packet_route::link::LinkMessage;

    #[test]
    fn links_can_be_read_without_root_and_a_refusal_keeps_its_number() {
        let mut socket = Netlink::route().unwrap();
        let links = socket.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).unwrap();
        assert!(
            links.iter().any(|it| matches!(it, RouteNetlinkMessage::NewLink(link) if link.header.index == 1)),
            "lo"
        );
        // Twice in one batch: no such link (or, without root, no permission).
        let mut missing = LinkMessage::default();
        missing.header.index = 0x7fff_fff0;
        let request = || (RouteNetlinkMessage::DelLink(missing.clone()), 0);
        let error = socket.batch(vec![request(), request()]).unwrap_err();
        assert!(matches!(errno(&error), Some(libc::ENODEV | libc::EPERM)), "{error}");
        // The answers of the batch are all read: the next question gets its own.
        assert_eq!(
            socket.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).unwrap().len(),
            links.len()
        );
    }

    #[test]
    fn attributes_are_padded_and_found() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 1, b"hull0\0");
        push_attribute(&mut bytes, 0x8002, &[7]);
        assert_eq!(bytes.len(), 12 + 8);
        assert_eq!(attribute(&bytes, 2), Some(&[7][..]));
        assert_eq!(attribute(&bytes, 3), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(part) = Part::read(&bytes) {
                let _ = (part.refusal(), part.body());
            }
            let _ = attribute(&bytes, 1);
        }
    }
}
