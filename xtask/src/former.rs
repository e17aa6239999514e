// SPDX-License-Identifier: Apache-2.0
//! A former version of the daemon, for the tests of two versions on one node: built from its commit, kept in
//! `target/former`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{self, PrivateDir, headline};

/// The program, built now if it is not there yet.
///
/// # Errors
/// There is no such commit here, or it does not build.
pub(crate) fn program(root: &Path, commit: &str) -> Result<PathBuf> {
    let named = Command::new("git")
        .current_dir(root)
        .args(["rev-parse", "--verify", "--quiet", &format!("{commit}^{{commit}}")])
        .output()
        .context("run git")?;
    if !named.status.success() {
        bail!("--former {commit}: there is no such commit in {}", root.display());
    }
    let commit = String::from_utf8_lossy(&named.stdout).trim().to_owned();
    let kept = root.join("target/former");
    let program = kept.join(format!("hull-{commit}"));
    if program.is_file() {
        return Ok(program);
    }
    headline(&format!("Building the daemon of {commit}"));
    let dir = PrivateDir::new("hull-former")?;
    let archive = dir.path().join("tree.tar");
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(&tree).with_context(|| format!("make {}", tree.display()))?;
    run::run(Command::new("git").current_dir(root).args(["archive", "--output"]).arg(&archive).arg(&commit))?;
    run::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree))?;
    // What it compiled of others is kept for the next commit.
    let target = kept.join("target");
    run::run(Command::new("cargo").current_dir(&tree).env("CARGO_TARGET_DIR", &target).args([
        "build",
        "--quiet",
        "--package",
        "hull-server",
        "--bin",
        "hull",
    ]))?;
    let built = target.join("debug/hull");
    std::fs::copy(&built, &program).with_context(|| format!("copy {}", built.display()))?;
    Ok(program)
}
