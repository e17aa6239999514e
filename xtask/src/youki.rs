// SPDX-License-Identifier: Apache-2.0
//! youki, which no distribution has: built from crates.io, kept in `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{self, headline};

const VERSION: &str = "0.7.0";
/// cgroup v2 without its device filter, which would need libbpf and a C compiler for the kernel's machine.
const FEATURES: &str = "v1,v2,seccomp";

/// The program. Building it takes about three minutes of processor time, and libseccomp's headers.
///
/// # Errors
/// When it cannot be fetched or compiled.
pub(crate) fn program(root: &Path) -> Result<PathBuf> {
    let dir = root.join("target/tools").join(format!("youki-{VERSION}"));
    let program = dir.join("bin/youki");
    if program.is_file() {
        return Ok(program);
    }
    headline(&format!("Building youki {VERSION}"));
    // Beside our own target directory: it shares nothing with it. Quickly built rather than fast.
    run::run(
        Command::new("cargo")
            .args(["install", "youki", "--version", VERSION, "--locked", "--no-track", "--quiet"])
            .args(["--no-default-features", "--features", FEATURES, "--root"])
            .arg(&dir)
            .env("CARGO_TARGET_DIR", dir.join("build"))
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off"),
    )
    .context("youki is built with libseccomp: is libseccomp-dev installed?")?;
    let _ = std::fs::remove_dir_all(dir.join("build"));
    Ok(program)
}
