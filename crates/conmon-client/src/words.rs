// SPDX-License-Identifier: Apache-2.0
//! The words of foreign programs, made fit for an error message.
//!
//! A runtime writes its errors as plain text, as logfmt (`level=error msg="..."`, runc's default) or as
//! JSON objects, one a line. What an operator wants is the message of the last error.

use serde::Deserialize;

/// The most characters of a foreign program's words that go into an error.
const LONGEST: usize = 2000;

/// The message of the last error in what a runtime wrote: of the last line with an error level, else
/// of the last line that is not empty. `None` when there are no words at all.
pub(crate) fn last_error(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<Line> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(read_line).collect();
    let chosen = lines.iter().rev().find(|line| line.is_error).or_else(|| lines.last())?;
    Some(shorten(&chosen.message))
}

/// All words on one line, control characters escaped, cut at a bound. Empty if there are none.
pub(crate) fn on_one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    shorten(&lines.join("; "))
}

struct Line {
    message: String,
    is_error: bool,
}

fn read_line(line: &str) -> Line {
    read_json(line)
        .or_else(|| read_logfmt(line))
        .unwrap_or_else(|| Line { message: without_time(line).to_owned(), is_error: false })
}

fn is_error_level(level: &str) -> bool {
    matches!(level, "error" | "fatal" | "panic")
}

fn read_json(line: &str) -> Option<Line> {
    #[derive(Deserialize)]
    struct Json {
        #[serde(default)]
        level: String,
        msg: String,
    }
    let json: Json = serde_json::from_str(line).ok()?;
    Some(Line { is_error: is_error_level(&json.level), message: json.msg })
}

/// Reads `key=value key="quoted value" ...`; wants a `msg`.
fn read_logfmt(line: &str) -> Option<Line> {
    let (mut message, mut is_error) = (None, false);
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c == '"') {
            return None;
        }
        let (value, after) = read_value(after);
        match key {
            "msg" => message = Some(value),
            "level" => is_error = is_error_level(&value),
            _ => {}
        }
        rest = after.trim_start();
    }
    Some(Line { message: message?, is_error })
}

/// One value and what follows it. A quoted value that was cut off (conmon passes on at most 8 KiB)
/// reaches to the end.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, other)) => value.push(other),
                None => {}
            },
            other => value.push(other),
        }
    }
    (value, "")
}

/// crun starts its plain lines with a time, `2026-11-23T18:54:17.000000Z: `.
fn without_time(line: &str) -> &str {
    match line.split_once("Z: ") {
        Some((time, rest))
            if time.len() >= 19 && time.chars().all(|c| c.is_ascii_digit() || "-:.T".contains(c)) =>
        {
            rest
        }
        _ => line,
    }
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
    fn reduces_each_form_to_the_message() {
        let table: &[(&str, &str)] = &[
            (
                "time=\"2026-11-23T18:54:17Z\" level=error msg=\"runc create failed: exec: \\\"/x\\\": stat /x: no such file or directory\"\n",
                "runc create failed: exec: \"/x\": stat /x: no such file or directory",
            ),
            (
                "{\"msg\":\"executable file `x` not found in $PATH\",\"level\":\"error\",\"time\":\"t\"}\n",
                "executable file `x` not found in $PATH",
            ),
            ("level=error msg=first\nlevel=warning msg=later\n", "first"),
            ("level=warning msg=only\n", "only"),
            (
                "2026-11-23T18:54:17.123456Z: open executable: Invalid argument\n\n",
                "open executable: Invalid argument",
            ),
            ("first\nsecond line, plain\n", "second line, plain"),
            ("a=b but not logfmt", "a=b but not logfmt"),
            ("level=error msg=\"cut off in the mid", "cut off in the mid"),
            ("level=error msg=\"two\\nlines\"", "two\\nlines"),
        ];
        for (input, expected) in table {
            assert_eq!(last_error(input.as_bytes()).as_deref(), Some(*expected), "{input}");
        }
        assert_eq!(last_error(b" \n\n"), None);
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

        #[test]
        fn finds_what_logfmt_quotes(message in "[ -~]{1,80}") {
            prop_assume!(message.trim() == message);
            let quoted = message.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("time=\"x\" level=error msg=\"{quoted}\"\n");
            prop_assert_eq!(last_error(line.as_bytes()), Some(message));
        }
    }
}
