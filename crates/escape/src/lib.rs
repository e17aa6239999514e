// SPDX-License-Identifier: Apache-2.0
//! Escapes foreign strings for one line of a log, an error or a table.
//!
//! ```text
//! newline -> \n    carriage return -> \r    tab -> \t    NUL -> \0    any other -> \u{1b}
//! backslash -> \\  before what would read as one of these, else itself
//! ```
//! Escaped are the control characters (C0, DEL, C1: terminals take U+009B for ESC `[`), the line and paragraph
//! separators, and the characters that reorder the text around them. The form is reversible: two different strings
//! never look the same. Text is escaped once, where it is written out; what is stored or sent as data stays as it is.

mod escaper;

use std::borrow::Cow;
use std::fmt::Write;

pub use escaper::Escaper;

/// What stands at the end of a text that was cut.
pub const CUT: &str = " [cut]";

/// What a backslash before it would turn into an escape.
const BEGINS_ESCAPE: [char; 6] = ['\\', 'n', 'r', 't', '0', 'u'];

/// Whether a character may end a line, command a terminal, or reorder its neighbours.
pub fn is_unsafe(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // ALM, LRM, RLM; embeddings and overrides; isolates.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        '\u{2028}' | '\u{2029}' => true,
        c => c.is_control(),
    }
}

/// The text as it may stand in a line. Allocates only where something is escaped.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !needs_escape(text) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    let mut escaper = Escaper::new(&mut escaped, usize::MAX);
    // Writing to a string does not fail.
    let _ = escaper.write_str(text).and_then(|()| escaper.finish());
    Cow::Owned(escaped)
}

fn needs_escape(text: &str) -> bool {
    let begins = |pair: &[u8]| matches!(pair, [b'\\', next] if BEGINS_ESCAPE.contains(&char::from(*next)));
    text.contains(is_unsafe) || text.as_bytes().windows(2).any(begins)
}

/// Lines joined by `"; "`, without blank ones: the text of an error that another program wrote on several lines.
/// Everything else stays as it is.
pub fn join_lines(text: &str) -> Cow<'_, str> {
    if !text.contains(['\n', '\r']) {
        return Cow::Borrowed(text.trim_end());
    }
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    Cow::Owned(lines.collect::<Vec<_>>().join("; "))
}

/// A JSON document that can be shown on a terminal: JSON itself lets DEL, C1 and reordering characters stand.
pub fn json(document: &str) -> Cow<'_, str> {
    let is_left = |c: char| !matches!(c, '\n' | '\r' | '\t') && is_unsafe(c);
    if !document.contains(is_left) {
        return Cow::Borrowed(document);
    }
    let mut safe = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if is_left(c) {
            // All of them have four digits. Writing to a string does not fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// The text, or its beginning of at most `limit` bytes and whether it was cut.
pub fn cut(text: &str, limit: usize) -> (&str, bool) {
    if text.len() <= limit {
        return (text, false);
    }
    let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    (&text[..end], true)
}

#[cfg(test)]
mod tests;
