// SPDX-License-Identifier: Apache-2.0
//! Escaping while text is being formatted, without a buffer between.

use std::fmt::{self, Write};

use crate::{BEGINS_ESCAPE, CUT, cut, is_unsafe};

/// Writes text escaped, and at most so many bytes of it. [`finish`](Self::finish) must be called at the end.
#[derive(Debug)]
pub struct Escaper<W> {
    inner: W,
    /// A backslash came; what follows decides whether it is doubled.
    pending: bool,
    /// Bytes that may still be written.
    left: usize,
    is_cut: bool,
}

impl<W: Write> Escaper<W> {
    /// Writes to `inner`, at most `limit` bytes, and then the mark of a cut.
    pub fn new(inner: W, limit: usize) -> Self {
        Self { inner, pending: false, left: limit, is_cut: false }
    }

    /// Writes what is held back, and the mark if the text was cut.
    ///
    /// # Errors
    /// Those of the inner writer.
    pub fn finish(mut self) -> fmt::Result {
        self.settle(false)?;
        if self.is_cut { self.inner.write_str(CUT) } else { Ok(()) }
    }

    fn settle(&mut self, doubled: bool) -> fmt::Result {
        if !std::mem::take(&mut self.pending) {
            return Ok(());
        }
        self.whole(if doubled { "\\\\" } else { "\\" })
    }

    fn escape(&mut self, c: char) -> fmt::Result {
        match c {
            '\n' => self.whole("\\n"),
            '\r' => self.whole("\\r"),
            '\t' => self.whole("\\t"),
            '\0' => self.whole("\\0"),
            c => {
                let code = u32::from(c);
                let digits = if code > 0xfff {
                    4
                } else if code > 0xff {
                    3
                } else if code > 0xf {
                    2
                } else {
                    1
                };
                if self.takes(digits + "\\u{}".len()) {
                    write!(self.inner, "\\u{{{code:x}}}")
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Writes the text, or nothing: half an escape would read as something else.
    fn whole(&mut self, text: &str) -> fmt::Result {
        if self.takes(text.len()) { self.inner.write_str(text) } else { Ok(()) }
    }

    fn takes(&mut self, bytes: usize) -> bool {
        self.is_cut |= bytes > self.left;
        if !self.is_cut {
            self.left -= bytes;
        }
        !self.is_cut
    }

    fn plain(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        let (text, is_cut) = cut(text, self.left);
        self.is_cut = is_cut;
        self.left -= text.len();
        self.inner.write_str(text)
    }
}

impl<W: Write> Write for Escaper<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while !rest.is_empty() && !self.is_cut {
            let end = rest.find(|c| c == '\\' || is_unsafe(c)).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            if !run.is_empty() {
                self.settle(run.starts_with(BEGINS_ESCAPE))?;
                self.plain(run)?;
            }
            let mut chars = after.chars();
            if let Some(c) = chars.next() {
                self.settle(true)?;
                if c == '\\' {
                    self.pending = true;
                } else {
                    self.escape(c)?;
                }
            }
            rest = chars.as_str();
        }
        Ok(())
    }
}
