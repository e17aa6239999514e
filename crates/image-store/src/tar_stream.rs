// SPDX-License-Identifier: Apache-2.0
//! Reads the members of a tar, one after the other, from a stream that cannot be trusted.
//!
//! ```text
//! member = { extension } header(512) { sparse map block(512) } data padding-to-512
//! extension = header with type x (PAX records), L or K (GNU long name, long link), g (ignored) + data + padding
//! end = two blocks of zeros, or the end of the stream at a member's boundary or after one block of zeros
//! ```
//! The tar crate decodes header fields; the framing is here because it needs limits on extensions (the crate
//! reads them whole, whatever their size), PAX values with newlines (binary attributes), sparse files in PAX form,
//! and the rule that links, directories and devices have no data whatever their size says: the rule of
//! the programs that write images, so that no archive has two readings.

mod pax;
mod sparse;

use std::io::{self, Read};

use tar::{EntryType, Header};

pub(crate) use sparse::Segment;

/// The result of reading; the error says what is wrong with the archive.
pub(crate) type Parsed<T> = Result<T, String>;

const BLOCK: u64 = 512;
/// Longest extension: names are at most 4096 bytes, attributes 64 KiB each.
const MAX_EXTENSION: u64 = 1 << 20;
/// Extensions before one member.
const MAX_EXTENSIONS: usize = 16;

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    /// Name, as it is written.
    pub(crate) path: Vec<u8>,
    /// Target of a link, as it is written.
    pub(crate) link: Vec<u8>,
    /// What it is.
    pub(crate) kind: EntryType,
    /// Permissions with set-id and sticky bits.
    pub(crate) mode: u32,
    /// Negative ones are written by some systems: `nobody` is -2.
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    /// Extended attributes.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the file: for a sparse one, more than is stored.
    pub(crate) size: u64,
    /// Where the stored data belongs; `None`: it is the whole file.
    pub(crate) sparse: Option<Vec<Segment>>,
    /// Where the data begins in the stream.
    pub(crate) offset: u64,
}

/// Reads members; as a [`Read`], the data of the last one.
pub(crate) struct TarStream<R> {
    inner: R,
    position: u64,
    remaining: u64,
    padding: u64,
}

// === impl TarStream ===

impl<R: Read> TarStream<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, position: 0, remaining: 0, padding: 0 }
    }

    /// The next member; what was not read of the last one's data is skipped.
    pub(crate) fn next_member(&mut self) -> Parsed<Option<Member>> {
        let mut extensions = Extensions::default();
        for _ in 0..=MAX_EXTENSIONS {
            self.skip_rest().map_err(|e| format!("cannot read the archive: {e}"))?;
            let Some(header) = self.read_header()? else {
                return if extensions.any {
                    Err("the archive ends after a header that describes a next member".to_owned())
                } else {
                    Ok(None)
                };
            };
            let size = number(&header.as_old().size, "size")?;
            let size = u64::try_from(size).map_err(|_| format!("bad size in a header: {size}"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.read_extension(size)?;
                    extensions.pax = pax::parse(&records)?;
                    extensions.any = true;
                }
                EntryType::GNULongName => {
                    extensions.path = Some(strip_nul(self.read_extension(size)?));
                    extensions.any = true;
                }
                EntryType::GNULongLink => {
                    extensions.link = Some(strip_nul(self.read_extension(size)?));
                    extensions.any = true;
                }
                // Git and others write one comment in it; nothing that an image needs.
                EntryType::XGlobalHeader => self.begin_data(size)?,
                _ => return self.member(&header, size, extensions).map(Some),
            }
        }
        Err(format!("more than {MAX_EXTENSIONS} extension headers before one member"))
    }

    /// Forgets the data of the last member for a caller that moves the reader itself: returns where the
    /// data goes on and how much of it is left.
    pub(crate) fn skip_data(&mut self) -> (u64, u64) {
        let remaining = std::mem::take(&mut self.remaining);
        self.position += remaining;
        (self.position - remaining, remaining)
    }

    /// The reader, for a caller that moves it.
    pub(crate) fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Reads to the end of the stream: bytes after the end marker belong to the digest.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.remaining = 0;
        self.padding = 0;
        io::copy(&mut self.inner, &mut io::sink()).map(drop)
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> Parsed<Member> {
        let Extensions { path, link, pax, .. } = extensions;
        let fields = header.as_old();
        let mut member = Member {
            path: path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
            kind: header.entry_type(),
            mode: header_mode(header)?,
            uid: number(&fields.uid, "uid")?,
            gid: number(&fields.gid, "gid")?,
            mtime: (number(&fields.mtime, "mtime")?, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            size,
            sparse: None,
            offset: 0,
        };
        let stored = pax::apply(&pax, &mut member)?.unwrap_or(size);
        if member.kind.is_character_special() || member.kind.is_block_special() {
            let major = header.device_major().map_err(|e| format!("bad device number: {e}"))?;
            let minor = header.device_minor().map_err(|e| format!("bad device number: {e}"))?;
            member.device = (major.unwrap_or(0), minor.unwrap_or(0));
        }
        // Archives from before ustar mark a directory by its name alone.
        if member.kind.is_file() && member.path.ends_with(b"/") {
            member.kind = EntryType::Directory;
        }
        let has_data =
            member.kind.is_file() || member.kind == EntryType::Continuous || member.kind.is_gnu_sparse();
        member.size = if has_data { stored } else { 0 };
        if member.kind.is_gnu_sparse() {
            let (segments, size) = sparse::from_header(header, || self.read_block())?;
            member.sparse = Some(segments);
            member.size = size;
        }
        self.begin_data(if has_data { stored } else { 0 })?;
        if has_data
            && !member.kind.is_gnu_sparse()
            && let Some((segments, size)) = sparse::from_pax(&pax, self)?
        {
            member.sparse = Some(segments);
            member.size = size;
        }
        if let Some(segments) = &member.sparse {
            sparse::check(segments, member.size, self.remaining)?;
        }
        member.offset = self.position;
        Ok(member)
    }

    fn begin_data(&mut self, size: u64) -> Parsed<()> {
        self.remaining = size;
        self.padding = size.checked_next_multiple_of(BLOCK).ok_or("a member's size is impossible")? - size;
        Ok(())
    }

    fn read_extension(&mut self, size: u64) -> Parsed<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(format!("an extension header of {size} bytes (the limit is {MAX_EXTENSION})"));
        }
        self.begin_data(size)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data).map_err(|e| format!("cannot read an extension header: {e}"))?;
        Ok(data)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        let padding = std::mem::take(&mut self.padding);
        let read = io::copy(&mut (&mut self.inner).take(padding), &mut io::sink())?;
        self.position += read;
        // The last member's padding is sometimes left out.
        Ok(())
    }

    /// `None` at the end of the archive.
    fn read_header(&mut self) -> Parsed<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        match self.fill(bytes)? {
            0 => return Ok(None),
            512 => {}
            _ => return Err("the archive ends within a header".to_owned()),
        }
        if is_zero(bytes) {
            // The end takes two blocks. Members after a lone one would be seen by some readers and not by others.
            let filled = self.fill(bytes)?;
            if is_zero(&bytes[..filled]) {
                return Ok(None);
            }
            return Err("a lone block of zeros, with more members after it".to_owned());
        }
        let bytes = header.as_bytes();
        let sum = |value: fn(u8) -> i64| {
            bytes[..148].iter().chain(&bytes[156..]).map(|byte| value(*byte)).sum::<i64>() + 8 * 32
        };
        // Old tars of Sun and others added up signed bytes.
        let signed = |byte: u8| i64::from(byte.cast_signed());
        match header.cksum().map(i64::from) {
            Ok(stated) if stated == sum(i64::from) || stated == sum(signed) => Ok(Some(header)),
            _ => Err("not a tar archive, or a damaged one (header checksum)".to_owned()),
        }
    }

    /// Reads until the block is full or the stream ends; how much there was.
    fn fill(&mut self, bytes: &mut [u8; 512]) -> Parsed<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.inner.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot read the archive: {error}")),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    fn read_block(&mut self) -> Parsed<[u8; 512]> {
        let mut block = [0; 512];
        self.inner.read_exact(&mut block).map_err(|e| format!("cannot read a sparse map: {e}"))?;
        self.position += BLOCK;
        Ok(block)
    }
}

impl<R: Read> Read for TarStream<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).map_or(buf.len(), |remaining| buf.len().min(remaining));
        if most == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..most])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a file"));
        }
        self.remaining -= n as u64;
        self.position += n as u64;
        Ok(n)
    }
}

fn header_mode(header: &Header) -> Parsed<u32> {
    let mode = number(&header.as_old().mode, "mode")?;
    u32::try_from(mode & 0o7777).map_err(|error| format!("bad mode in a header: {error}"))
}

/// A number of a header: octal digits between blanks and NULs, or GNU's form of 256 as the base, a big-endian two's
/// complement whose first bit is set. An empty field is 0.
fn number(field: &[u8], name: &str) -> Parsed<i64> {
    let bad = |problem: &dyn std::fmt::Display| format!("bad {name} in a header: {problem}");
    let Some(first) = field.first().filter(|first| **first & 0x80 != 0) else {
        let text = String::from_utf8_lossy(field);
        let text = text.trim_matches(['\0', ' ']).split('\0').next().unwrap_or_default();
        return match text {
            "" => Ok(0),
            // The parser would take a sign.
            text if !text.starts_with(|c: char| c.is_ascii_digit()) => Err(bad(&"it is not octal")),
            text => i64::from_str_radix(text, 8).map_err(|error| bad(&error)),
        };
    };
    // The mark takes the place of the sign, which is the next bit.
    let sign: i64 = if first & 0x40 != 0 { -1 } else { 0 };
    let first = i64::from(first & 0x7f) | (sign & !0x7f);
    field[1..].iter().try_fold(first, |number, byte| {
        let shifted = number.checked_mul(256).ok_or_else(|| bad(&"it is too large"))?;
        Ok(shifted | i64::from(*byte))
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[derive(Default)]
struct Extensions {
    any: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: pax::Records,
}

/// GNU long names end with a NUL. One in the middle is for the caller to refuse.
fn strip_nul(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests;
