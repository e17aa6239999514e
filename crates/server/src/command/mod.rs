// SPDX-License-Identifier: Apache-2.0
//! The commands of the program.

pub(crate) mod completion;
pub(crate) mod import;
pub(crate) mod serve;

/// The one place where the program speaks of a failure.
#[expect(clippy::print_stderr, reason = "a program's last words")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("hull: {}", hull_server::chain(error.as_ref()));
}
