// SPDX-License-Identifier: Apache-2.0
//! Header blocks: one zlib stream each way for the whole connection, flushed after each block.
//!
//! ```text
//! count (32), count x ( name length (32), name, value length (32), value )     before compression
//! ```
//! Blocks must be unpacked in the order in which they come, all of them, or the rest cannot be read. The unpacked
//! size is limited: a small block can unpack to a thousand times its size.

use bytes::{Buf, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::{ADLER32, DICTIONARY};

const MOST_HEADERS: usize = 256;

/// The headers of one stream, names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of a header; several are joined by NUL on the wire.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(own, _)| own == name)?;
        value.split('\0').next()
    }

    /// Bytes of all names and values.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn parse(mut block: Bytes) -> Result<Self, HeaderError> {
        let count = number(&mut block)?;
        if count > MOST_HEADERS {
            return Err(HeaderError::TooMany(count));
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for _ in 0..count {
            let (name, value) = (text(&mut block)?, text(&mut block)?);
            if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(HeaderError::Name(name));
            }
            if headers.iter().any(|(other, _)| *other == name) {
                return Err(HeaderError::Name(name));
            }
            headers.push((name, value));
        }
        if block.is_empty() { Ok(Self(headers)) } else { Err(HeaderError::Length) }
    }
}

/// A header block that cannot be read. The connection's later ones cannot either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("a header block that is not compressed as it must be")]
    Compression,
    #[error("a header block of more than {0} bytes")]
    TooLarge(usize),
    #[error("a header block with {0} headers")]
    TooMany(usize),
    #[error("a header block whose lengths do not fit")]
    Length,
    #[error("a header that is no text")]
    NoText,
    #[error("the header name {0:?}, empty, repeated or not in lower case")]
    Name(String),
}

fn number(block: &mut Bytes) -> Result<usize, HeaderError> {
    if block.len() < 4 { Err(HeaderError::Length) } else { Ok(block.get_u32() as usize) }
}

fn text(block: &mut Bytes) -> Result<String, HeaderError> {
    let length = number(block)?;
    if block.len() < length {
        return Err(HeaderError::Length);
    }
    String::from_utf8(block.split_to(length).to_vec()).map_err(|_| HeaderError::NoText)
}

/// Unpacks the client's header blocks.
#[derive(Debug)]
pub(crate) struct Inflater {
    zlib: Decompress,
    limit: usize,
}

impl Inflater {
    pub(crate) fn new(limit: usize) -> Self {
        Self { zlib: Decompress::new(true), limit }
    }

    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        Headers::parse(self.inflate(block)?.into())
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut out = Vec::with_capacity(1024.min(self.limit + 1));
        loop {
            let before = (self.zlib.total_in(), self.zlib.total_out());
            let outcome = self.zlib.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let used = (self.zlib.total_in() - before.0) as usize;
            block = block.get(used..).unwrap_or_default();
            match outcome {
                Err(error) if error.needs_dictionary() == Some(ADLER32) => {
                    self.zlib.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Compression)?;
                    continue;
                }
                // The stream lasts as long as the connection.
                Err(_) | Ok(flate2::Status::StreamEnd) => return Err(HeaderError::Compression),
                Ok(flate2::Status::Ok | flate2::Status::BufError) => {}
            }
            if out.len() > self.limit {
                return Err(HeaderError::TooLarge(self.limit));
            }
            let moved = used > 0 || self.zlib.total_out() > before.1;
            match out.capacity() - out.len() {
                0 => out.reserve(out.len().min(self.limit + 1 - out.len()).max(1)),
                _ if block.is_empty() => return Ok(out),
                _ if !moved => return Err(HeaderError::Compression),
                _ => {}
            }
        }
    }
}

/// Packs our header blocks.
#[derive(Debug)]
pub(crate) struct Deflater {
    zlib: Compress,
    started: bool,
}

impl Deflater {
    pub(crate) fn new() -> Self {
        Self { zlib: Compress::new(Compression::fast(), true), started: false }
    }

    pub(crate) fn write(&mut self, headers: &[(&str, &str)]) -> Result<Bytes, HeaderError> {
        let mut block = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend((text.len() as u32).to_be_bytes());
            block.extend(text.as_bytes());
        }
        self.deflate(&block).map(Bytes::from)
    }

    fn deflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        if !self.started {
            self.started = true;
            self.zlib.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Compression)?;
        }
        let mut out = Vec::with_capacity(block.len() + 64);
        loop {
            let before = self.zlib.total_in();
            self.zlib
                .compress_vec(block, &mut out, FlushCompress::Sync)
                .map_err(|_| HeaderError::Compression)?;
            block = block.get((self.zlib.total_in() - before) as usize..).unwrap_or_default();
            // Room was left: everything has come out.
            if block.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 4096;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn blocks_of_other_implementations_are_read_in_order() {
        let mut inflater = Inflater::new(LIMIT);
        for (block, stream_type) in [
            ("78f9e3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff", Some("error")),
            ("c22a054ccc29f9a52500000000ffff", Some("stdout")),
            ("02b21800000000ffff", None),
        ] {
            assert_eq!(inflater.read(&bytes(block)).unwrap().get("streamtype"), stream_type);
        }
        let mut other_way = Inflater::new(LIMIT);
        assert_eq!(other_way.read(&bytes("78f9e3c6a7c202a6230600000000ffff")).unwrap(), Headers::default());
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let zeros = "0".repeat(8 << 20);
        let bomb = Deflater::new().write(&[("bomb", &zeros)]).unwrap();
        assert!(bomb.len() < 1 << 20);
        assert_eq!(Inflater::new(LIMIT).read(&bomb), Err(HeaderError::TooLarge(LIMIT)));
        let fits = "0".repeat(LIMIT - 16);
        let block = Deflater::new().write(&[("fits", &fits)]).unwrap();
        assert_eq!(Inflater::new(LIMIT).read(&block).unwrap().get("fits"), Some(fits.as_str()));
    }

    #[test]
    fn blocks_that_cannot_be_are_refused() {
        let raw = |block: &[u8]| Inflater::new(LIMIT).read(&Deflater::new().deflate(block).unwrap());
        assert_eq!(raw(&[0, 0, 0, 1]), Err(HeaderError::Length));
        assert_eq!(raw(&[0, 0, 0, 0, 9]), Err(HeaderError::Length));
        assert_eq!(raw(&[0xff; 4]), Err(HeaderError::TooMany(0xffff_ffff)));
        assert_eq!(raw(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1]), Err(HeaderError::Length));
        assert_eq!(raw(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0]), Err(HeaderError::NoText));
        let headers = |headers: &[(&str, &str)]| {
            Inflater::new(LIMIT).read(&Deflater::new().write(headers).unwrap()).map(|_| ())
        };
        assert_eq!(headers(&[("Port", "1")]), Err(HeaderError::Name("Port".to_owned())));
        assert_eq!(headers(&[("a", "1"), ("a", "2")]), Err(HeaderError::Name("a".to_owned())));
        assert_eq!(headers(&[("", "1")]), Err(HeaderError::Name(String::new())));
        for garbage in [&b"garbage"[..], &[0; 64], &[0x78, 0x9c, 7, 2, 3, 4]] {
            assert_eq!(Inflater::new(LIMIT).read(garbage), Err(HeaderError::Compression));
        }
    }

    proptest! {
        #[test]
        fn blocks_come_back(
            blocks in prop::collection::vec(prop::collection::btree_map("[a-z-]{1,12}", "\\PC{0,60}", 0..6), 1..6)
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new(64 << 10));
            for headers in blocks {
                let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let block = deflater.write(&pairs).unwrap();
                let back = inflater.read(&block).unwrap();
                prop_assert_eq!(back.0.len(), pairs.len());
                for (name, value) in pairs {
                    prop_assert_eq!(back.get(name), value.split('\0').next());
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(block in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..40) {
            let _ = Inflater::new(LIMIT).read(&block);
            let _ = Headers::parse(block.clone().into());
            let good = Deflater::new().write(&[("streamtype", "error")]).unwrap();
            let mut mixed = good[..cut.min(good.len())].to_vec();
            mixed.extend(block);
            let _ = Inflater::new(LIMIT).read(&mixed);
        }
    }
}
