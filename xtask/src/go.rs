// SPDX-License-Identifier: Apache-2.0
//! The public programs that are written in Go: built here from a pinned module, kept in `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{self, PrivateDir, headline};

/// crictl and critest come from one module.
pub(crate) const CRI_TOOLS: &str = "v1.36.0";
const MODULE: &str = "sigs.k8s.io/cri-tools";
/// Seconds that fetching and compiling may take.
const DEADLINE: &str = "600";

/// The public client.
///
/// # Errors
/// When Go is missing, or the module cannot be fetched.
pub(crate) fn crictl(root: &Path) -> Result<PathBuf> {
    tool(root, "crictl", &["build"])
}

/// The public conformance suite: a test binary.
///
/// # Errors
/// As [`crictl`]'s.
pub(crate) fn critest(root: &Path) -> Result<PathBuf> {
    tool(root, "critest", &["test", "-c"])
}

fn tool(root: &Path, name: &str, verb: &[&str]) -> Result<PathBuf> {
    let target = root.join("target/tools").join(format!("{name}-{CRI_TOOLS}"));
    if target.is_file() {
        return Ok(target);
    }
    headline(&format!("Building {name} {CRI_TOOLS}"));
    let go = run::which("go").with_context(|| {
        format!("{name} is built from its source, and Go is not installed: install it (https://go.dev/dl)")
    })?;
    // A module of our own that requires it: `go install MODULE@VERSION` also wants the list of versions,
    // which not every module proxy hands out.
    let dir = PrivateDir::new("hull-go")?;
    let module = format!("module hull.invalid/{name}\n\nrequire {MODULE} {CRI_TOOLS}\n");
    std::fs::write(dir.path().join("go.mod"), module).context("write go.mod")?;
    let parent = target.parent().context("no directory for tools")?;
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    // What was cut short must not be taken for the whole the next time.
    let fresh = parent.join(format!("{name}-{}.new", std::process::id()));
    run::run(
        Command::new("timeout")
            .args(["--foreground", DEADLINE])
            .arg(go)
            .args(verb)
            .args(["-mod=mod", "-buildvcs=false", "-o"])
            .arg(&fresh)
            .arg(format!("{MODULE}/cmd/{name}"))
            .current_dir(dir.path()),
    )?;
    std::fs::rename(&fresh, &target).with_context(|| format!("keep {}", target.display()))?;
    Ok(target)
}
