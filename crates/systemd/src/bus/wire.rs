// SPDX-License-Identifier: Apache-2.0
//! D-Bus on the wire (D-Bus specification, "Message Protocol"), as much of it as is spoken here.
//!
//! ```text
//! byte 0      'l': little endian, which is what we send and all a local bus sends on our machines; 'B' is read too
//! byte 1      type: 1 call, 2 return, 3 error, 4 signal
//! byte 2      flags
//! byte 3      protocol: 1
//! 4..8        length of the body          8..12  serial
//! 12..        array of (byte code, variant): 1 path, 2 interface, 3 member, 4 error name, 5 reply serial,
//!             6 destination, 7 sender, 8 signature; padded to 8, then the body
//!
//! string      length u32, bytes, NUL      signature   length u8, bytes, NUL
//! array       length in bytes u32, padding to the elements' alignment (not counted), elements
//! struct      padded to 8                 variant     signature of one type, value
//! ```

use crate::{Error, Result};

/// Longer messages are not asked for, and not read.
pub(crate) const LONGEST: usize = 256 * 1024;
/// What tells how long the rest is.
pub(crate) const FIXED: usize = 16;

/// What is sent to a method.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    pub(crate) body: Body,
}

/// A body and its signature.
#[derive(Debug, Default)]
pub(crate) struct Body {
    signature: String,
    out: Writer,
}

/// Bytes with D-Bus's alignment, counted from a multiple of 8.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.u32(value.into());
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    pub(crate) fn signature(&mut self, text: &str) {
        // Ours are all shorter than a dozen.
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    /// An array whose elements begin at multiples of `alignment`.
    pub(crate) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let bytes = length(self.0.len() - start).to_le_bytes();
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&bytes);
        }
    }

    pub(crate) fn structure(&mut self, fields: impl FnOnce(&mut Self)) {
        self.align(8);
        fields(self);
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Body {
    /// Strings alone.
    pub(crate) fn strings(values: &[&str]) -> Self {
        let mut body = Self { signature: "s".repeat(values.len()), out: Writer::default() };
        values.iter().for_each(|value| body.out.string(value));
        body
    }

    /// What `write` writes, which has this signature.
    pub(crate) fn new(signature: &str, write: impl FnOnce(&mut Writer)) -> Self {
        let mut body = Self { signature: signature.to_owned(), out: Writer::default() };
        write(&mut body.out);
        body
    }
}

impl Call<'_> {
    /// The whole message.
    pub(crate) fn bytes(&self, serial: u32) -> Vec<u8> {
        let mut out = Writer::default();
        [b'l', 1, 0, 1].into_iter().for_each(|byte| out.byte(byte));
        out.u32(length(self.body.out.0.len()));
        out.u32(serial);
        out.array(8, |out| {
            for (code, kind, value) in [
                (1, "o", self.path),
                (2, "s", self.interface),
                (3, "s", self.member),
                (6, "s", self.destination),
            ] {
                out.structure(|out| {
                    out.byte(code);
                    out.signature(kind);
                    out.string(value);
                });
            }
            if !self.body.signature.is_empty() {
                out.structure(|out| {
                    out.byte(8);
                    out.signature("g");
                    out.signature(&self.body.signature);
                });
            }
        });
        out.align(8);
        out.0.extend(&self.body.out.0);
        out.0
    }
}

/// What was received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// 2 return, 3 error, 4 signal.
    pub(crate) kind: u8,
    pub(crate) reply_to: Option<u32>,
    pub(crate) member: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) sender: Option<String>,
    /// The numbers and texts of the body, as far as it consists of such.
    pub(crate) values: Vec<Value>,
}

/// What of a body is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u32),
    Text(String),
}

impl Message {
    pub(crate) fn text(&self, at: usize) -> Option<&str> {
        match self.values.get(at) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// How long the message is that begins with these bytes.
pub(crate) fn whole_length(fixed: &[u8; FIXED]) -> Result<usize> {
    let mut head = Reader::new(fixed)?;
    head.at = 4;
    let body = head.u32()? as usize;
    head.at = 12;
    let fields = head.u32()? as usize;
    let header = FIXED.saturating_add(fields);
    let whole = header.checked_next_multiple_of(8).and_then(|header| header.checked_add(body));
    whole.filter(|whole| *whole <= LONGEST).ok_or(Error::Garbled { problem: "a message is too long" })
}

/// Reads a whole message.
pub(crate) fn parse(bytes: &[u8]) -> Result<Message> {
    let mut reader = Reader::new(bytes)?;
    let kind = bytes.get(1).copied().unwrap_or_default();
    reader.at = 12;
    let fields = reader.u32()? as usize;
    let end = FIXED.saturating_add(fields);
    let mut message = Message { kind, ..Message::default() };
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        match (code, reader.signature()?.as_str()) {
            (3, "s") => message.member = Some(reader.string()?),
            (4, "s") => message.error = Some(reader.string()?),
            (5, "u") => message.reply_to = Some(reader.u32()?),
            (7, "s") => message.sender = Some(reader.string()?),
            (8, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.string()?),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            _ => return Err(Error::Garbled { problem: "a header's field has an unknown type" }),
        }
    }
    reader.at = end;
    reader.align(8);
    for kind in signature.chars() {
        match kind {
            's' | 'o' => message.values.push(Value::Text(reader.string()?)),
            'u' => message.values.push(Value::Number(reader.u32()?)),
            // Nothing that follows is looked at.
            _ => break,
        }
    }
    Ok(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        match bytes.first() {
            Some(b'l') => Ok(Self { bytes, at: 0, big: false }),
            Some(b'B') => Ok(Self { bytes, at: 0, big: true }),
            _ => Err(Error::Garbled { problem: "a message begins with no byte order" }),
        }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or(CUT)?;
        let taken = self.bytes.get(self.at..end).ok_or(CUT)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| CUT)?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.byte()?.into();
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = std::str::from_utf8(self.take(length)?)
            .map_err(|_| Error::Garbled { problem: "a text is not UTF-8" })?;
        match self.byte()? {
            0 => Ok(text.to_owned()),
            _ => Err(Error::Garbled { problem: "a text does not end with NUL" }),
        }
    }
}

const CUT: Error = Error::Garbled { problem: "a message is cut short" };

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message to us, as a bus would send it.
    pub(crate) fn message(
        kind: u8,
        fields: &[(u8, &str, &str)],
        reply_to: Option<u32>,
        body: &Body,
    ) -> Vec<u8> {
        let mut out = Writer::default();
        [b'l', kind, 0, 1].into_iter().for_each(|byte| out.byte(byte));
        out.u32(length(body.out.0.len()));
        out.u32(77);
        out.array(8, |out| {
            for (code, kind, value) in fields {
                out.structure(|out| {
                    out.byte(*code);
                    out.signature(kind);
                    out.string(value);
                });
            }
            if let Some(serial) = reply_to {
                out.structure(|out| {
                    out.byte(5);
                    out.signature("u");
                    out.u32(serial);
                });
            }
            out.structure(|out| {
                out.byte(8);
                out.signature("g");
                out.signature(&body.signature);
            });
        });
        out.align(8);
        out.0.extend(&body.out.0);
        out.0
    }

    #[test]
    fn a_call_is_what_the_specification_says() {
        let call = Call {
            destination: "a.b",
            path: "/p",
            interface: "i.f",
            member: "Get",
            body: Body::strings(&["xy"]),
        };
        let mut expected = b"l\x01\x00\x01\x07\0\0\0\x05\0\0\0".to_vec();
        expected.extend(b"\x47\0\0\0");
        expected.extend(b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0");
        expected.extend(b"\x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0");
        expected.extend(b"\x03\x01s\0\x03\0\0\0Get\0\0\0\0\0");
        expected.extend(b"\x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0");
        expected.extend(b"\x08\x01g\0\x01s\0\0");
        expected.extend(b"\x02\0\0\0xy\0");
        assert_eq!(call.bytes(5), expected);
        let fixed: [u8; FIXED] = expected[..FIXED].try_into().unwrap();
        assert_eq!(whole_length(&fixed).unwrap(), expected.len());
    }

    #[test]
    fn an_array_counts_its_elements_without_the_first_padding() {
        let mut out = Writer::default();
        out.array(8, |out| out.structure(|out| out.string("a")));
        assert_eq!(out.0, b"\x06\0\0\0\0\0\0\0\x01\0\0\0a\0");
        let mut out = Writer::default();
        out.array(4, |out| out.u32(9));
        assert_eq!(out.0, b"\x04\0\0\0\x09\0\0\0");
    }

    #[test]
    fn a_signal_is_read() {
        let body = Body::new("uoss", |out| {
            out.u32(3);
            ["/job/3", "a.scope", "done"].iter().for_each(|text| out.string(text));
        });
        let fields = [(1, "o", "/p"), (3, "s", "JobRemoved"), (7, "s", ":1.2")];
        let bytes = message(4, &fields, None, &body);
        let fixed: [u8; FIXED] = bytes[..FIXED].try_into().unwrap();
        assert_eq!(whole_length(&fixed).unwrap(), bytes.len());
        let read = parse(&bytes).unwrap();
        assert_eq!(
            (read.kind, read.member.as_deref(), read.sender.as_deref()),
            (4, Some("JobRemoved"), Some(":1.2"))
        );
        assert_eq!(read.values[0], Value::Number(3));
        assert_eq!((read.text(1), read.text(3), read.text(0)), (Some("/job/3"), Some("done"), None));
    }

    #[test]
    fn what_is_too_long_or_cut_is_refused() {
        let mut fixed = [0; FIXED];
        fixed[0] = b'l';
        fixed[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(whole_length(&fixed).is_err());
        fixed[0] = b'x';
        assert!(whole_length(&fixed).is_err());
        let bytes = message(2, &[], Some(1), &Body::strings(&["abc"]));
        assert!(parse(&bytes[..bytes.len() - 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut all = vec![b'l'];
            all.extend(bytes);
            let _ = parse(&all);
            if let Some(Ok(fixed)) = all.get(..FIXED).map(<[u8; FIXED]>::try_from) {
                let _ = whole_length(&fixed);
            }
        }

        #[test]
        fn a_damaged_message_is_read_or_refused(at in 0usize..80, byte: u8) {
            let body = Body::strings(&["/job/1", "a.scope"]);
            let mut bytes = message(4, &[(3, "s", "JobRemoved")], Some(9), &body);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = parse(&bytes);
        }
    }
}
