// SPDX-License-Identifier: Apache-2.0
//! How answers are printed: tables for people, canonical JSON and YAML for programs.

pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod yaml;

use std::io::Write as _;

use serde_json::Value;

use crate::cli::Format;
use crate::error::Error;

/// Writes `text` to standard output as it is: what is foreign in it must be escaped.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output and flushes them.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(output_error)
}

/// Writes one line to standard output; what is in it comes from elsewhere.
pub(crate) fn print_line(line: &str) -> Result<(), Error> {
    print(&format!("{}\n", hull_escape::escape(line)))
}

/// Writes each item on a line of its own.
pub(crate) fn print_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    print(&lines.into_iter().map(|line| format!("{}\n", hull_escape::escape(line))).collect::<String>())
}

/// A failure to write to standard output.
pub(crate) fn output_error(cause: std::io::Error) -> Error {
    Error::Io { what: "write to standard output".to_owned(), cause }
}

/// Prints as `format` says: `value` is asked for with JSON and YAML, `table` with the table.
pub(crate) fn show(
    format: Format,
    value: impl FnOnce() -> Result<Value, Error>,
    table: impl FnOnce() -> String,
) -> Result<(), Error> {
    match format {
        Format::Table => print(&table()),
        Format::Json => print(&json::text(&value()?)),
        Format::Yaml => print(&yaml::emit(&value()?)),
    }
}
