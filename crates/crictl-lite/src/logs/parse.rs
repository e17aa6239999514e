// SPDX-License-Identifier: Apache-2.0
//! One line of a container log, taken apart.

use std::fmt;

/// Which of its outputs the container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// As it stands in the log.
    pub(crate) time: &'a str,
    /// Where the container wrote to.
    pub(crate) stream: Stream,
    /// The container's own line goes on in the next record of this stream.
    pub(crate) partial: bool,
    /// What the container wrote: any bytes but a line end.
    pub(crate) content: &'a [u8],
}

/// Why a line is none of a container log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// It does not begin with a time and a space.
    Time,
    /// No stream follows.
    Stream,
    /// No tag follows, or its first part is neither P nor F.
    Tag,
    /// It has no end within what a log line may take.
    TooLong,
    /// It has no end at all.
    Unterminated,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "no time at its beginning",
            Self::Stream => "neither stdout nor stderr after the time",
            Self::Tag => "neither P nor F after the stream",
            Self::TooLong => "too long",
            Self::Unterminated => "cut off in the middle",
        })
    }
}

/// Takes a line apart; `line` has no line end.
pub(crate) fn record(line: &[u8]) -> Result<Record<'_>, Malformed> {
    let (time, rest) = word(line).ok_or(Malformed::Time)?;
    let time = std::str::from_utf8(time).ok().filter(|time| is_time(time)).ok_or(Malformed::Time)?;
    let (stream, rest) = word(rest).ok_or(Malformed::Stream)?;
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return Err(Malformed::Stream),
    };
    let (tags, content) = word(rest).ok_or(Malformed::Tag)?;
    // Further tags may follow behind colons; none has a meaning yet.
    let partial = match tags.split(|&byte| byte == b':').next() {
        Some(b"P") => true,
        Some(b"F") => false,
        _ => return Err(Malformed::Tag),
    };
    Ok(Record { time, stream, partial, content })
}

/// The bytes before the first space, and those behind it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|&byte| byte == b' ')?;
    Some((&text[..space], &text[space + 1..]))
}

/// Whether a text has the form of a time: enough to tell a log from another file.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= "2006-01-02T15:04:05Z".len()
        && bytes.iter().zip(b"dddd-dd-ddTdd:dd:dd").all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        })
        && bytes.iter().all(|byte| byte.is_ascii_digit() || b"-:.+TZ".contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "2026-11-23T18:00:00.123456789+01:00";

    #[test]
    fn lines_as_monitors_write_them() {
        let line = format!("{TIME} stderr P:x a  b ");
        let want = Record { time: TIME, stream: Stream::Stderr, partial: true, content: b"a  b " };
        assert_eq!(record(line.as_bytes()), Ok(want));
        let empty = format!("{TIME} stdout F ");
        assert_eq!(record(empty.as_bytes()).unwrap().content, b"");
    }

    #[test]
    fn other_lines_are_told_why() {
        for (line, want) in [
            (String::new(), Malformed::Time),
            ("hello world".into(), Malformed::Time),
            (TIME.to_owned(), Malformed::Time),
            (format!("{TIME} stdin F x"), Malformed::Stream),
            (format!("{TIME} stdout"), Malformed::Stream),
            (format!("{TIME} stdout F"), Malformed::Tag),
            (format!("{TIME} stdout Full x"), Malformed::Tag),
            (format!("{TIME} stdout  x"), Malformed::Tag),
        ] {
            assert_eq!(record(line.as_bytes()), Err(want), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_breaks_the_parser(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = record(&line);
        }

        #[test]
        fn what_is_written_is_read(err in any::<bool>(), partial in any::<bool>(), content in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut line = format!("{TIME} {} {} ", if err { "stderr" } else { "stdout" }, if partial { "P" } else { "F" }).into_bytes();
            line.extend(&content);
            let read = record(&line).unwrap();
            prop_assert_eq!(read.stream == Stream::Stderr, err);
            prop_assert_eq!(read.partial, partial);
            prop_assert_eq!(read.content, content.as_slice());
        }
    }
}
