// SPDX-License-Identifier: Apache-2.0
//! The words of foreign programs, made fit for an error message.
//!
//! What the words of a runtime mean is known by [`hull_oci_runtime::cli`]; here they only become one
//! printable line of bounded length.

use std::path::Path;

use hull_oci_runtime::cli;

use crate::Error;

/// The most characters of a foreign program's words that go into an error.
const LONGEST: usize = 2000;

/// The message of the last error in what a runtime wrote; `None` when it wrote nothing.
pub(crate) fn last_error(bytes: &[u8]) -> Option<String> {
    let message = shorten(&cli::last_error(bytes));
    (!message.is_empty()).then_some(message)
}

/// The error of a `create` that failed, by what the runtime wrote; `silent` is the message where it wrote nothing. Blocks.
pub(crate) fn refusal(id: &str, bundle: &Path, written: &[u8], silent: impl FnOnce() -> String) -> Error {
    let message = last_error(written).unwrap_or_else(silent);
    let id = id.to_owned();
    match cli::program_fault(bundle, &cli::last_error(written)) {
        Some(fault) => Error::Program { id, fault, message },
        None => Error::Runtime { id, message },
    }
}

/// All words on one line, control characters escaped, cut at a bound. Empty if there are none.
pub(crate) fn on_one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    shorten(&lines.join("; "))
}

fn shorten(text: &str) -> String {
    let text = text.trim();
    let mut short: String = text.chars().take(LONGEST).flat_map(printable).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    short
}

/// Line breaks and other control characters would tear a log line or play with a terminal.
fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = if escaped.is_some() { None } else { Some(c) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_runtimes_words_become_one_line() {
        let table: &[(&str, Option<&str>)] = &[
            (
                "time=\"t\" level=warning msg=w\ntime=\"t\" level=error msg=\"exec: \\\"/x\\\": no such file\"\n",
                Some("exec: \"/x\": no such file"),
            ),
            (
                "{\"msg\":\"`x` not found in $PATH\",\"level\":\"error\",\"time\":\"t\"}\n",
                Some("`x` not found in $PATH"),
            ),
            ("first\nsecond\tline\n", Some("second\\tline")),
            (" \n\n", None),
        ];
        for (input, expected) in table {
            assert_eq!(last_error(input.as_bytes()).as_deref(), *expected, "{input}");
        }
        assert_eq!(on_one_line(b"one\n\n two \n"), "one; two");
    }

    #[test]
    fn survives_bytes_that_are_not_text() {
        assert_eq!(
            last_error(b"bad \xff\xfe byte\x1b[31m").as_deref(),
            Some("bad \u{fffd}\u{fffd} byte\\u{1b}[31m")
        );
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let words = last_error(&bytes).unwrap_or_default();
            prop_assert!(!words.chars().any(char::is_control));
            prop_assert!(words.chars().count() <= LONGEST * 10 + 3);
            on_one_line(&bytes);
        }
    }
}
