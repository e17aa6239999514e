// SPDX-License-Identifier: Apache-2.0
//! Clients on other implementations of gRPC than Rust's and Go's, installed from their registries into `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::install;
use crate::run::{self, headline};

/// On gRPC's C core, with the compiler of its messages.
const GRPCIO: [&str; 2] = ["grpcio==1.85.3", "grpcio-tools==1.85.1"];

/// Returns a Python interpreter that has grpcio: a virtual environment, made where there is none.
///
/// # Errors
/// When Python is missing and cannot be installed, or the packages cannot be fetched.
pub(crate) fn grpcio(root: &Path) -> Result<PathBuf> {
    let dir = root.join("target/tools").join(GRPCIO[0].replace("==", "-"));
    let (python, complete) = (dir.join("bin/python"), dir.join("complete"));
    if complete.is_file() {
        return Ok(python);
    }
    install::python_packages()?;
    headline(&format!("Installing {}", GRPCIO.join(" and ")));
    run::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    run::run(
        Command::new("timeout")
            .args(["--foreground", "300"])
            .arg(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"])
            .args(GRPCIO),
    )?;
    // What was cut short must not be taken for the whole the next time.
    std::fs::write(&complete, "").with_context(|| format!("write {}", complete.display()))?;
    Ok(python)
}
