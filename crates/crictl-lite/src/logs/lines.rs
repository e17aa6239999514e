// SPDX-License-Identifier: Apache-2.0
//! Lines of a file that may still grow, in bounded memory.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

/// The longest line taken. Monitors cut lines at 8 or 16 KiB; a file that is no log may hold anything.
const MAX_LINE: usize = 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// A line that has its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Without its end; `None` when it is longer than a line may be.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Reads lines. At the end of the file the beginning of a line waits for its rest.
#[derive(Debug)]
pub(crate) struct Lines {
    file: File,
    /// Read and not given out; begins at `offset`.
    buffer: Vec<u8>,
    /// How much of `buffer` is known to hold no line end.
    searched: usize,
    offset: u64,
    /// Bytes of a too long line that were thrown away; they lie before `buffer`.
    skipped: u64,
}

impl Lines {
    /// Reads from the beginning of the file.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        Self::at(file, 0)
    }

    /// Reads from `offset`, which is the beginning of a line.
    pub(crate) fn at(mut file: File, offset: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, buffer: Vec::new(), searched: 0, offset, skipped: 0 })
    }

    /// The next line, or `None` when the file holds no whole one yet.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE {
                self.skipped += self.buffer.len() as u64;
                self.buffer.clear();
            }
            self.searched = self.buffer.len();
            let old = self.buffer.len();
            self.buffer.resize(old + CHUNK, 0);
            let read = self.file.read(&mut self.buffer[old..]);
            self.buffer.truncate(old + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_line(&mut self) -> Option<Line> {
        let end = self.searched + self.buffer[self.searched..].iter().position(|&byte| byte == b'\n')?;
        let offset = self.offset;
        let too_long = self.skipped > 0 || end > MAX_LINE;
        let bytes = (!too_long).then(|| self.buffer[..end].to_vec());
        self.buffer.drain(..=end);
        self.offset += self.skipped + end as u64 + 1;
        self.skipped = 0;
        self.searched = 0;
        Some(Line { offset, bytes })
    }

    /// Where the line begins that has no end yet.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// How far the file has been read.
    pub(crate) fn position(&self) -> u64 {
        self.offset + self.skipped + self.buffer.len() as u64
    }

    /// The beginning of a line that has no end yet.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buffer
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<Line> {
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn a_line_waits_for_its_end() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut lines = Lines::new(file.reopen().unwrap()).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(all(&mut lines), [Line { offset: 0, bytes: Some(b"one".to_vec()) }]);
        assert_eq!((lines.rest(), lines.offset(), lines.position()), (&b"tw"[..], 4, 6));
        file.write_all(b"o\n\n").unwrap();
        let want =
            [Line { offset: 4, bytes: Some(b"two".to_vec()) }, Line { offset: 8, bytes: Some(Vec::new()) }];
        assert_eq!(all(&mut lines), want);
    }

    #[test]
    fn a_line_without_end_costs_no_memory_and_the_next_is_found() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![b'x'; 3 * MAX_LINE]).unwrap();
        file.write_all(b"\nnext\n").unwrap();
        let mut lines = Lines::new(file.reopen().unwrap()).unwrap();
        let found = all(&mut lines);
        assert!(lines.buffer.capacity() < 3 * MAX_LINE);
        let offset = 3 * MAX_LINE as u64 + 1;
        assert_eq!(found[0], Line { offset: 0, bytes: None });
        assert_eq!(found[1], Line { offset, bytes: Some(b"next".to_vec()) });
    }

    proptest! {
        #[test]
        fn lines_and_offsets_are_those_of_the_file(text in "[ab\n]{0,60}", cut in 0usize..60) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let mut lines = Lines::new(file.reopen().unwrap()).unwrap();
            let cut = cut.min(text.len());
            file.write_all(&text.as_bytes()[..cut]).unwrap();
            let mut found = all(&mut lines);
            file.write_all(&text.as_bytes()[cut..]).unwrap();
            found.extend(all(&mut lines));
            let mut offset = 0;
            let want: Vec<Line> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| {
                let bytes = Some(line.trim_end_matches('\n').as_bytes().to_vec());
                offset += line.len() as u64;
                Line { offset: offset - line.len() as u64, bytes }
            }).collect();
            prop_assert_eq!(found, want);
            prop_assert_eq!(lines.position(), text.len() as u64);
        }
    }
}
