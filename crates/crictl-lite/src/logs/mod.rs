// SPDX-License-Identifier: Apache-2.0
//! Container logs: reading them, joining their lines, following them as they grow.
//!
//! A log is a file of lines
//!
//! ```text
//! 2026-11-23T18:00:00.123456789Z stdout F text of the line
//! ^ time, RFC 3339               ^      ^ ^ what the container wrote
//!                                |      F: its line ends here; P: the next line of this stream goes on
//!                                stream
//! ```
//!
//! What the container wrote to its standard output goes to ours, and its standard error to ours. Lines
//! are passed on piece by piece: a container that writes a gigabyte without a line end costs no memory.

pub(crate) mod follow;
pub(crate) mod lines;
pub(crate) mod parse;
pub(crate) mod print;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::error::Error;
use crate::logs::lines::Lines;
use crate::logs::print::{Printer, Start};

/// Opens the log and finds where its last `tail` lines begin; without `tail`, the beginning.
pub(crate) fn open(path: &Path, tail: Option<usize>) -> io::Result<(Lines, Start)> {
    let file = File::open(path)?;
    let start = match tail {
        Some(count) => print::last_lines(&mut Lines::new(file.try_clone()?)?, count)?,
        None => Start::beginning(),
    };
    Ok((Lines::at(file, start.earliest())?, start))
}

/// Prints the log as it is now, to its end.
pub(crate) fn print_all(
    path: &Path,
    tail: Option<usize>,
    printer: &mut Printer<impl Write, impl Write>,
) -> Result<(), Error> {
    let (mut lines, start) = open(path, tail).map_err(|cause| read_error(path, cause))?;
    printer.start_at(start);
    drain(path, &mut lines, printer)?;
    printer.unterminated(lines.offset(), lines.rest());
    Ok(())
}

/// Prints what can be read now.
fn drain(path: &Path, lines: &mut Lines, printer: &mut Printer<impl Write, impl Write>) -> Result<(), Error> {
    while let Some(line) = lines.next().map_err(|cause| read_error(path, cause))? {
        printer.line(&line).map_err(crate::output::output_error)?;
    }
    printer.flush().map_err(crate::output::output_error)
}

/// A failure to read the log.
fn read_error(path: &Path, cause: io::Error) -> Error {
    Error::Io { what: format!("read log {}", path.display()), cause }
}
