// SPDX-License-Identifier: Apache-2.0
//! The helper of this crate's tests. In the daemon `hull` is its own helper.

use std::process::ExitCode;

fn main() -> ExitCode {
    hull_netns::helper::run_if_asked(std::env::args_os()).unwrap_or(ExitCode::FAILURE)
}
