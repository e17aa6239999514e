// SPDX-License-Identifier: Apache-2.0
//! Makes what the daemon carries and what is installed beside it.
//!
//! ```text
//! $OUT_DIR/pause                                     src/pause/program.rs as a static program for the same target
//! $OUT_DIR/completions/{hull.bash,_hull,hull.fish}   printed by `hull completion`
//! $OUT_DIR/man/hull*.1                               collected by `cargo xtask dist`
//! ```
#![allow(
    dead_code,
    unreachable_pub,
    reason = "of the program's command line only the definition is used here"
)]

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use clap_complete::Shell;

#[path = "src/arguments.rs"]
mod arguments;

const PAUSE: &str = "src/pause/program.rs";

fn main() -> Result<(), Box<dyn Error>> {
    for file in ["build.rs", "src/arguments.rs", PAUSE] {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = PathBuf::from(var("OUT_DIR")?);
    pause(&out.join("pause"))?;
    documents(&out)
}

fn var(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or(format!("cargo sets {name} for build scripts"))
}

/// Completions and manual pages, from the command line's own definition.
fn documents(out: &Path) -> Result<(), Box<dyn Error>> {
    let (completions, man) = (out.join("completions"), out.join("man"));
    // Pages of commands that are no more must not stay.
    for dir in [&completions, &man] {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut arguments::Arguments::command(), "hull", &completions)?;
    }
    clap_mangen::generate_to(arguments::Arguments::command(), &man)?;
    Ok(())
}

fn pause(program: &Path) -> Result<(), Box<dyn Error>> {
    let target = env::var("TARGET")?;
    let mut rustc = Command::new(var("RUSTC")?);
    rustc
        .args(["--edition=2024", "--crate-name=pause", "--crate-type=bin", "--target", &target])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols"])
        .args(["-C", "relocation-model=static"])
        // No table of sections at page boundaries and no build id: a few hundred bytes in all.
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static"])
        .args(["-C", "link-arg=-Wl,--build-id=none", "-C", "link-arg=-Wl,-n"])
        .arg("-o")
        .arg(program)
        .arg(PAUSE);
    // A linker that cargo was told to use for the target is the one that can link for it.
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    let output = rustc.output().map_err(|error| format!("cannot run {rustc:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the pause for {target} does not compile: {rustc:?}\n{said}").into());
    }
    Ok(())
}
