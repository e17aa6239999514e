// SPDX-License-Identifier: Apache-2.0
//! Makes the shell completions and the manual pages from the command line's own definition.
//!
//! ```text
//! $OUT_DIR/completions/{crictl-lite.bash,_crictl-lite,crictl-lite.fish}    printed by `crictl-lite completion`
//! $OUT_DIR/man/crictl-lite*.1                                              collected by `cargo xtask dist`
//! ```
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the modules are the program's; only the definition is used here"
)]

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use clap::CommandFactory;
use clap_complete::Shell;

#[path = "src/cli.rs"]
mod cli;
#[path = "src/values.rs"]
mod values;

fn main() -> Result<(), Box<dyn Error>> {
    for file in ["build.rs", "src/cli.rs", "src/bench/args.rs", "src/values.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?;
    let (completions, man) = (Path::new(&out).join("completions"), Path::new(&out).join("man"));
    // Pages of commands that are no more must not stay.
    for dir in [&completions, &man] {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli::Cli::command(), "crictl-lite", &completions)?;
    }
    clap_mangen::generate_to(cli::Cli::command(), &man)?;
    Ok(())
}
