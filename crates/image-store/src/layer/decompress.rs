// SPDX-License-Identifier: Apache-2.0
//! Compression, told by the first bytes: media types and names are not to be trusted.
//!
//! ```text
//! 1f 8b                gzip (several members, zeros at the end)
//! 28 b5 2f fd          zstd (several frames); 5x 2a 4d 18: a skippable frame
//! 42 5a 68             bzip2: refused          fd 37 7a 58 5a 00   xz: refused
//! ```

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// A stream without its compression.
pub(crate) enum Decompressed<R: BufRead> {
    Plain(Whole<R>),
    Gzip(Box<Gzip<Whole<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Whole<R>>>),
}

/// The first bytes, which were read to tell the compression, and the rest.
type Whole<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// As many as the longest mark has.
const MARK: u64 = 6;

/// What the first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

/// Looks at the first bytes of a stream.
pub(crate) fn sniff(start: &[u8]) -> Format {
    match start {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
        [0x42, 0x5a, 0x68, 0x31..=0x39, 0x31, ..] => Format::Unsupported("bzip2"),
        [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, ..] => Format::Unsupported("xz"),
        _ => Format::Plain,
    }
}

// === impl Decompressed ===

impl<R: BufRead> Decompressed<R> {
    /// Reads the first bytes and puts the right decoder in front. A buffered reader may have no more than one byte at
    /// a time, whatever pieces the network brings: the mark is read until it is whole.
    pub(crate) fn new(mut inner: R) -> Result<Self, String> {
        let mut start = Vec::new();
        inner.by_ref().take(MARK).read_to_end(&mut start).map_err(|e| format!("cannot read: {e}"))?;
        let format = sniff(&start);
        let inner = io::Cursor::new(start).chain(inner);
        match format {
            Format::Plain => Ok(Self::Plain(inner)),
            Format::Gzip => {
                Ok(Self::Gzip(Box::new(Gzip { state: Some(State::Member(GzDecoder::new(inner))) })))
            }
            Format::Zstd => zstd::stream::read::Decoder::with_buffer(inner)
                .map(|decoder| Self::Zstd(Box::new(decoder)))
                .map_err(|e| format!("cannot read zstd: {e}")),
            Format::Unsupported(name) => {
                Err(format!("it is compressed with {name}; only gzip, zstd and plain tar are supported"))
            }
        }
    }
}

impl<R: BufRead> Read for Decompressed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.read(buf),
            Self::Gzip(inner) => inner.read(buf),
            Self::Zstd(inner) => inner.read(buf),
        }
    }
}

/// gzip members one after the other. (`MultiGzDecoder` takes zeros at the end, which tape-minded
/// writers leave, for a damaged member.)
pub(crate) struct Gzip<R: BufRead> {
    state: Option<State<R>>,
}

#[expect(clippy::large_enum_variant, reason = "there is one, in a box")]
enum State<R: BufRead> {
    Member(GzDecoder<R>),
    Between(R),
}

// === impl Gzip ===

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state.take() {
                None => return Ok(0),
                Some(State::Member(mut decoder)) => match decoder.read(buf)? {
                    0 => self.state = Some(State::Between(decoder.into_inner())),
                    n => {
                        self.state = Some(State::Member(decoder));
                        return Ok(n);
                    }
                },
                Some(State::Between(mut inner)) => {
                    if skip_zeros(&mut inner)? {
                        self.state = Some(State::Member(GzDecoder::new(inner)));
                    }
                }
            }
        }
    }
}

/// Whether anything follows.
fn skip_zeros(inner: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = inner.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let done = zeros < buffer.len();
        inner.consume(zeros);
        if done {
            return Ok(true);
        }
    }
}

/// A buffer of the size that layers are read with.
pub(crate) fn buffered<R: Read>(inner: R) -> BufReader<R> {
    BufReader::with_capacity(128 * 1024, inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn read(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        // A tiny buffer finds what depends on where a read ends.
        let reader = BufReader::with_capacity(7, blob);
        Decompressed::new(reader).map_err(io::Error::other)?.read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn the_format_is_told_whatever_pieces_come() {
        let zstd = zstd::bulk::compress(b"data", 1).unwrap();
        for (blob, expected) in
            [(gzip(b"data"), Ok(b"data")), (zstd, Ok(b"data")), (b"data".to_vec(), Ok(b"data"))]
                .into_iter()
                .chain([(b"BZh91AY&SY".to_vec(), Err("bzip2")), (b"\xfd7zXZ\0\0".to_vec(), Err("xz"))])
        {
            for first in 0..8.min(blob.len()) {
                // Two readers one after the other: the first piece ends where the first of them does.
                let reader = blob[..first].chain(BufReader::with_capacity(1, &blob[first..]));
                let mut out = Vec::new();
                let read = Decompressed::new(reader).map(|mut inner| inner.read_to_end(&mut out).unwrap());
                match expected {
                    Ok(data) => assert_eq!(out, data, "{first}"),
                    Err(name) => assert!(read.unwrap_err().contains(name), "{first}"),
                }
            }
        }
    }

    #[test]
    fn members_frames_and_padding_are_read() {
        assert_eq!(read(b"plain").unwrap(), b"plain");
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(&[gzip(b"one"), gzip(b"two"), vec![0; 40]].concat()).unwrap(), b"onetwo");
        let frame = |data: &[u8]| zstd::bulk::compress(data, 1).unwrap();
        let skippable = b"\x50\x2a\x4d\x18\x02\0\0\0xx".to_vec();
        assert_eq!(read(&[skippable, frame(b"one"), frame(b"two")].concat()).unwrap(), b"onetwo");
    }

    #[test]
    fn what_is_cut_or_followed_by_garbage_is_an_error() {
        let blob = gzip(&vec![1; 5000]);
        for cut in [4, 12, blob.len() - 4] {
            assert!(read(&blob[..cut]).is_err(), "{cut}");
        }
        assert!(read(&[blob, b"garbage".to_vec()].concat()).is_err());
        let blob = zstd::bulk::compress(&vec![1; 5000], 1).unwrap();
        assert!(read(&blob[..blob.len() - 3]).is_err());
        assert!(read(b"BZh91AY&SY").unwrap_err().to_string().contains("bzip2"));
    }
}
