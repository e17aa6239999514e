// SPDX-License-Identifier: Apache-2.0
//! The commands of the program.

pub(crate) mod check;
mod client;
pub(crate) mod completion;
pub(crate) mod import;
mod log;
mod manager;
pub(crate) mod ops;
pub(crate) mod serve;
pub(crate) mod sessions;
pub(crate) mod status;

use std::io::Write;

use anyhow::{Context, Result};

/// Prints one line; what is in it came from elsewhere.
fn say(line: &str) -> Result<()> {
    print(&hull_escape::escape(line))
}

/// Prints a JSON document.
fn say_json(document: &serde_json::Value) -> Result<()> {
    print(&hull_escape::json(&serde_json::to_string_pretty(document)?))
}

/// Prints lines whose foreign parts are escaped. A reader that left (`hull ops | head`) is no failure.
fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

/// The one place where the program speaks of a failure.
#[expect(clippy::print_stderr, reason = "a program's last words")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("hull: {}", hull_escape::escape(&hull_server::chain(error.as_ref())));
}
