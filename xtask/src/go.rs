// SPDX-License-Identifier: Apache-2.0
//! The public programs that are written in Go: built here from a pinned module, kept in `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::install;
use crate::run::{self, PrivateDir, headline};

/// crictl and critest come from one module.
pub(crate) const CRI_TOOLS: &str = "v1.37.0";
/// Seconds that fetching and compiling may take.
const DEADLINE: &str = "600";

/// A program, and where it comes from.
#[derive(Debug)]
struct Tool {
    name: &'static str,
    module: &'static str,
    version: &'static str,
    /// Below the module.
    package: &'static str,
    /// What `go` is told to do.
    verb: &'static [&'static str],
}

const CRICTL: Tool = Tool {
    name: "crictl",
    module: "sigs.k8s.io/cri-tools",
    version: CRI_TOOLS,
    package: "/cmd/crictl",
    verb: &["build"],
};

/// A test binary.
const CRITEST: Tool = Tool { name: "critest", package: "/cmd/critest", verb: &["test", "-c"], ..CRICTL };

/// The first that can map the ids of mounts is 1.2.
const RUNC: Tool = Tool {
    name: "runc",
    module: "github.com/opencontainers/runc",
    version: "v1.5.3",
    package: "",
    verb: &["build", "-tags", "seccomp"],
};

/// The public client.
///
/// # Errors
/// When Go is missing, or the module cannot be fetched.
pub(crate) fn crictl(root: &Path) -> Result<PathBuf> {
    tool(root, &CRICTL)
}

/// The public conformance suite.
///
/// # Errors
/// As [`crictl`]'s.
pub(crate) fn critest(root: &Path) -> Result<PathBuf> {
    tool(root, &CRITEST)
}

/// A runc that can do what Debian's cannot: map the ids of mounts.
///
/// # Errors
/// As [`crictl`]'s; when what it is linked with is missing and cannot be installed.
pub(crate) fn runc(root: &Path) -> Result<PathBuf> {
    if !path(root, &RUNC).is_file() {
        install::runc_packages()?;
    }
    tool(root, &RUNC)
}

fn path(root: &Path, tool: &Tool) -> PathBuf {
    root.join("target/tools").join(format!("{}-{}", tool.name, tool.version))
}

fn tool(root: &Path, tool: &Tool) -> Result<PathBuf> {
    let target = path(root, tool);
    if target.is_file() {
        return Ok(target);
    }
    let Tool { name, module, version, package, verb } = tool;
    headline(&format!("Building {name} {version}"));
    let go = run::which("go").with_context(|| {
        format!("{name} is built from its source, and Go is not installed: install it (https://go.dev/dl)")
    })?;
    // A module of our own that requires it: `go install MODULE@VERSION` also wants the list of versions,
    // which not every module proxy hands out.
    let dir = PrivateDir::new("hull-go")?;
    let text = format!("module hull.invalid/{name}\n\nrequire {module} {version}\n");
    std::fs::write(dir.path().join("go.mod"), text).context("write go.mod")?;
    let parent = target.parent().context("no directory for tools")?;
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    // What was cut short must not be taken for the whole the next time.
    let fresh = parent.join(format!("{name}-{}.new", std::process::id()));
    run::run(
        Command::new("timeout")
            .args(["--foreground", DEADLINE])
            .arg(go)
            .args(*verb)
            .args(["-mod=mod", "-buildvcs=false", "-o"])
            .arg(&fresh)
            .arg(format!("{module}{package}"))
            .current_dir(dir.path()),
    )?;
    std::fs::rename(&fresh, &target).with_context(|| format!("keep {}", target.display()))?;
    Ok(target)
}
