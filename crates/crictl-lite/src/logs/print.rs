// SPDX-License-Identifier: Apache-2.0
//! Log lines to standard output and standard error, each of the container's lines whole again.

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::logs::lines::{Line, Lines};
use crate::logs::parse::{self, Malformed, Record, Stream};

/// From where on each stream is printed, in bytes from the beginning of the file.
///
/// The two streams' lines may be interleaved in pieces, so each has its own beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    stdout: u64,
    stderr: u64,
}

impl Start {
    /// Everything.
    pub(crate) fn beginning() -> Self {
        Self { stdout: 0, stderr: 0 }
    }

    /// Where reading must begin.
    pub(crate) fn earliest(self) -> u64 {
        self.stdout.min(self.stderr)
    }

    fn of(self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

/// Finds where the last `count` of the container's lines begin. Reads the file once, and keeps one
/// number for each line that may be among them.
pub(crate) fn last_lines(lines: &mut Lines, count: usize) -> io::Result<Start> {
    let mut last: VecDeque<(u64, Stream)> = VecDeque::new();
    // Whether the stream is inside a line.
    let mut inside = [false; 2];
    while let Some(line) = lines.next()? {
        let Some(Ok(record)) = line.bytes.as_deref().map(parse::record) else { continue };
        let inside = &mut inside[record.stream as usize];
        if !std::mem::replace(inside, record.partial) {
            last.push_back((line.offset, record.stream));
        }
        if last.len() > count {
            last.pop_front();
        }
    }
    // What is not among the last lines begins where the file ends now.
    let first =
        |stream| last.iter().find(|(_, of)| *of == stream).map_or(lines.offset(), |(offset, _)| *offset);
    Ok(Start { stdout: first(Stream::Stdout), stderr: first(Stream::Stderr) })
}

/// Writes records to the two outputs.
#[derive(Debug)]
pub(crate) struct Printer<O, E> {
    out: O,
    err: E,
    timestamps: bool,
    start: Start,
    /// Which output was written to last.
    last: Stream,
    /// Whether the stream's output is inside a line.
    inside: [bool; 2],
    /// How many lines were none of a log, and the first of them.
    malformed: Option<(u64, u64, Malformed)>,
}

impl<O: Write, E: Write> Printer<O, E> {
    /// Prints everything; with `timestamps`, each line begins with the time of its first record.
    pub(crate) fn new(out: O, err: E, timestamps: bool) -> Self {
        Self {
            out,
            err,
            timestamps,
            start: Start::beginning(),
            last: Stream::Stdout,
            inside: [false; 2],
            malformed: None,
        }
    }

    /// Leaves out what lies before.
    pub(crate) fn start_at(&mut self, start: Start) {
        self.start = start;
    }

    /// Prints a line of the file.
    pub(crate) fn line(&mut self, line: &Line) -> io::Result<()> {
        match line.bytes.as_deref().map_or(Err(Malformed::TooLong), parse::record) {
            Ok(record) if line.offset < self.start.of(record.stream) => Ok(()),
            Ok(record) => self.record(&record),
            Err(why) => {
                self.note(line.offset, why);
                Ok(())
            }
        }
    }

    fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        // On a terminal both outputs are one: keep the order in which the container wrote.
        if std::mem::replace(&mut self.last, record.stream) != record.stream {
            self.flush()?;
        }
        let to: &mut dyn Write = match record.stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        };
        let inside = &mut self.inside[record.stream as usize];
        if self.timestamps && !*inside {
            to.write_all(record.time.as_bytes())?;
            to.write_all(b" ")?;
        }
        to.write_all(record.content)?;
        if !record.partial {
            to.write_all(b"\n")?;
        }
        *inside = record.partial;
        Ok(())
    }

    /// Takes note of a line at the end of the log that has no end.
    pub(crate) fn unterminated(&mut self, offset: u64, rest: &[u8]) {
        if !rest.is_empty() {
            self.note(offset, Malformed::Unterminated);
        }
    }

    fn note(&mut self, offset: u64, why: Malformed) {
        self.malformed.get_or_insert((0, offset, why)).0 += 1;
    }

    /// Hands everything on.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }

    /// What was wrong with the log.
    pub(crate) fn problem(&self) -> Option<String> {
        self.malformed.map(|(count, offset, why)| {
            format!("{count} lines left out that are not of a container log; the first, at byte {offset}, is {why}")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::logs::{open, print_all};

    fn file(lines: &[&str]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for line in lines {
            writeln!(file, "2026-11-23T18:00:00.0Z {line}").unwrap();
        }
        file
    }

    fn printed(
        file: &tempfile::NamedTempFile,
        tail: Option<usize>,
        timestamps: bool,
    ) -> (String, String, Option<String>) {
        let mut printer = Printer::new(Vec::new(), Vec::new(), timestamps);
        print_all(file.path(), tail, &mut printer).unwrap();
        let problem = printer.problem();
        (String::from_utf8(printer.out).unwrap(), String::from_utf8(printer.err).unwrap(), problem)
    }

    #[test]
    fn pieces_of_two_interleaved_streams_are_joined() {
        let log = file(&["stdout P a", "stderr P x", "stdout P b", "stderr F y", "stdout F c", "stdout F d"]);
        assert_eq!(printed(&log, None, false), ("abc\nd\n".into(), "xy\n".into(), None));
        let t = "2026-11-23T18:00:00.0Z";
        assert_eq!(printed(&log, None, true), (format!("{t} abc\n{t} d\n"), format!("{t} xy\n"), None));
    }

    #[test]
    fn tail_counts_the_containers_lines() {
        let log = file(&["stdout F 1", "stdout P 2", "stderr P x", "stdout F 2", "stderr F x", "stdout F 3"]);
        assert_eq!(printed(&log, Some(0), false), (String::new(), String::new(), None));
        assert_eq!(printed(&log, Some(1), false), ("3\n".into(), String::new(), None));
        assert_eq!(printed(&log, Some(2), false), ("3\n".into(), "xx\n".into(), None));
        assert_eq!(printed(&log, Some(3), false), ("22\n3\n".into(), "xx\n".into(), None));
        assert_eq!(printed(&log, Some(99), false), ("1\n22\n3\n".into(), "xx\n".into(), None));
    }

    #[test]
    fn other_lines_are_left_out_and_told() {
        let mut log = file(&["stdout F 1", "nonsense", "stdout F 2"]);
        write!(log, "2026-11-23T18:00:00.0Z stdout F cut").unwrap();
        let (out, _, problem) = printed(&log, None, false);
        assert_eq!(out, "1\n2\n");
        let problem = problem.unwrap();
        assert!(problem.starts_with("2 lines") && problem.contains("byte 34"), "{problem}");
    }

    #[test]
    fn reading_begins_where_the_tail_does() {
        let log = file(&["stdout F 1", "stdout F 2"]);
        assert_eq!(open(log.path(), Some(1)).unwrap().0.offset(), 34);
    }

    proptest! {
        /// The model: all lines of the container in the order of their first pieces; the last `count`.
        #[test]
        fn tail_is_the_end_of_the_whole(
            pieces in prop::collection::vec((any::<bool>(), any::<bool>(), "[a-z]{0,3}"), 0..30),
            count in 0usize..12,
        ) {
            let lines: Vec<String> = pieces.iter().map(|(err, partial, text)| {
                format!("{} {} {text}", if *err { "stderr" } else { "stdout" }, if *partial { "P" } else { "F" })
            }).collect();
            let log = file(&lines.iter().map(String::as_str).collect::<Vec<_>>());
            let mut whole: Vec<(bool, String)> = Vec::new();
            let mut inside: [Option<usize>; 2] = [None, None];
            for (err, partial, text) in &pieces {
                let index = inside[usize::from(*err)].unwrap_or_else(|| {
                    whole.push((*err, String::new()));
                    whole.len() - 1
                });
                whole[index].1.push_str(text);
                if !partial { whole[index].1.push('\n'); }
                inside[usize::from(*err)] = partial.then_some(index);
            }
            let tail = &whole[whole.len().saturating_sub(count)..];
            let of = |want: bool| tail.iter().filter(|(err, _)| *err == want).map(|(_, text)| text.as_str()).collect::<String>();
            let (out, err, problem) = printed(&log, Some(count), false);
            prop_assert_eq!(out, of(false));
            prop_assert_eq!(err, of(true));
            prop_assert_eq!(problem, None);
        }
    }
}
