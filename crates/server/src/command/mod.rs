// SPDX-License-Identifier: Apache-2.0
//! The commands of the program.

pub(crate) mod check;
mod client;
pub(crate) mod completion;
pub(crate) mod import;
mod manager;
pub(crate) mod ops;
pub(crate) mod serve;
pub(crate) mod sessions;
pub(crate) mod status;

use std::io::Write;

use anyhow::{Context, Result};

/// Prints a command's answer. A reader that left (`hull ops | head`) is no failure.
fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

/// The one place where the program speaks of a failure.
#[expect(clippy::print_stderr, reason = "a program's last words")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("hull: {}", hull_server::chain(error.as_ref()));
}
