// SPDX-License-Identifier: Apache-2.0
//! `hull completion`: what the build made for each shell.

use std::io::Write;

use anyhow::{Context, Result};

use crate::arguments::Shell;

macro_rules! made {
    ($file:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/completions/", $file))
    };
}

/// Prints a shell's completions.
pub(crate) fn print(shell: Shell) -> Result<()> {
    let text = match shell {
        Shell::Bash => made!("hull.bash"),
        Shell::Zsh => made!("_hull"),
        Shell::Fish => made!("hull.fish"),
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")
}
