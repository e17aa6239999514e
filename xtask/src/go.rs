// SPDX-License-Identifier: Apache-2.0
//! The public programs that are written in Go: built here from a pinned module, kept in `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::install;
use crate::run::{self, PrivateDir, headline};

/// The kubelet, the API server and kubectl come from one module.
pub(crate) const KUBERNETES: &str = "v1.37.2";
/// crictl and critest come from one module.
pub(crate) const CRI_TOOLS: &str = "v1.37.0";
/// Seconds that fetching and compiling an ordinary tool may take.
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
    /// Versions of the modules that the module's own `go.mod` replaces by directories below its `staging/`.
    staging: Option<&'static str>,
    /// Seconds that fetching and compiling may take.
    deadline: &'static str,
}

const CRICTL: Tool = Tool {
    name: "crictl",
    module: "sigs.k8s.io/cri-tools",
    version: CRI_TOOLS,
    package: "/cmd/crictl",
    verb: &["build"],
    staging: None,
    deadline: DEADLINE,
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
    ..CRICTL
};

/// Kubernetes publishes its staging modules beside the main one, under a version of their own.
const KUBELET: Tool = Tool {
    name: "kubelet",
    module: "k8s.io/kubernetes",
    version: KUBERNETES,
    package: "/cmd/kubelet",
    verb: &[
        "build",
        "-ldflags",
        "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 \
         -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37",
    ],
    staging: Some("v0.37.2"),
    deadline: "3600",
};

const KUBE_APISERVER: Tool = Tool { name: "kube-apiserver", package: "/cmd/kube-apiserver", ..KUBELET };

const KUBECTL: Tool = Tool { name: "kubectl", package: "/cmd/kubectl", ..KUBELET };

const ETCD: Tool = Tool {
    name: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    version: "v3.6.6",
    package: "",
    // Static: it also serves gRPC health checks from inside a container without libraries.
    verb: &["build", "-tags", "netgo,osusergo", "-ldflags", "-s -w -linkmode external -extldflags -static"],
    staging: None,
    deadline: "1200",
};

const CONTAINERD: Tool = Tool {
    name: "containerd",
    module: "github.com/containerd/containerd/v2",
    version: "v2.4.2",
    package: "/cmd/containerd",
    verb: &["build", "-tags", "no_btrfs,no_zfs,no_devmapper", "-ldflags", "-s -w"],
    staging: None,
    deadline: "1800",
};

const CONTAINERD_SHIM: Tool =
    Tool { name: "containerd-shim-runc-v2", package: "/cmd/containerd-shim-runc-v2", ..CONTAINERD };

/// The programs of a node and its API server.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    pub(crate) kubelet: PathBuf,
    pub(crate) apiserver: PathBuf,
    pub(crate) kubectl: PathBuf,
    pub(crate) etcd: PathBuf,
}

/// The kubelet, the API server, kubectl and etcd. Building them takes about 10 minutes on two cores.
///
/// # Errors
/// As [`crictl`]'s.
pub(crate) fn kubernetes(root: &Path) -> Result<Kubernetes> {
    Ok(Kubernetes {
        kubelet: tool(root, &KUBELET)?,
        apiserver: tool(root, &KUBE_APISERVER)?,
        kubectl: tool(root, &KUBECTL)?,
        etcd: tool(root, &ETCD)?,
    })
}

/// containerd, to compare with. Its shim lies beside it under the name by which containerd looks for it in PATH.
///
/// # Errors
/// As [`crictl`]'s.
pub(crate) fn containerd(root: &Path) -> Result<PathBuf> {
    let program = tool(root, &CONTAINERD)?;
    let shim = tool(root, &CONTAINERD_SHIM)?;
    let named = shim.with_file_name(CONTAINERD_SHIM.name);
    let _ = std::fs::remove_file(&named);
    std::os::unix::fs::symlink(&shim, &named).with_context(|| format!("link {}", named.display()))?;
    Ok(program)
}

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

/// Downloads the module: its answer names its `go.mod` and its directory.
fn download(go: &Path, tool: &Tool, dir: &Path) -> Result<serde_json::Value> {
    let module = format!("{}@{}", tool.module, tool.version);
    let answer = run::capture(Command::new(go).args(["mod", "download", "-json", &module]).current_dir(dir))?;
    serde_json::from_str(&answer).context("the answer of go mod download")
}

/// The language version and the replacements of a `go.mod` with staging modules.
fn replacements(go_mod: &str, version: &str) -> String {
    let mut lines = String::new();
    for line in go_mod.lines().map(str::trim) {
        if line.starts_with("go ") || line.starts_with("godebug ") {
            lines.push_str(&format!("\n{line}\n"));
        }
        let replaced = line.trim_start_matches("replace ").split_once(" => ./staging/");
        if let Some((module, _)) = replaced {
            lines.push_str(&format!("replace {module} => {module} {version}\n"));
        }
    }
    lines
}

fn path(root: &Path, tool: &Tool) -> PathBuf {
    root.join("target/tools").join(format!("{}-{}", tool.name, tool.version))
}

fn tool(root: &Path, tool: &Tool) -> Result<PathBuf> {
    let target = path(root, tool);
    if target.is_file() {
        return Ok(target);
    }
    let Tool { name, module, version, package, verb, staging, deadline } = tool;
    headline(&format!("Building {name} {version}"));
    let go = run::which("go").with_context(|| {
        format!("{name} is built from its source, and Go is not installed: install it (https://go.dev/dl)")
    })?;
    // A module of our own that requires it: `go install MODULE@VERSION` also wants the list of versions,
    // which not every module proxy hands out.
    let dir = PrivateDir::new("hull-go")?;
    let mut text = format!("module hull.invalid/{name}\n\nrequire {module} {version}\n");
    if staging.is_none() {
        // From 1.17 on the modules that only dependencies of dependencies name are not asked for.
        text.push_str("\ngo 1.26.0\n");
    }
    let module_files = download(&go, tool, dir.path())?;
    let file_of = |key: &str| module_files[key].as_str().with_context(|| format!("{module} has no {key}"));
    if let Some(version) = staging {
        let file = file_of("GoMod")?;
        let go_mod = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
        text.push_str(&replacements(&go_mod, version));
    }
    // Its own sums spare questions to the checksum database, which does not know every module.
    let sums = Path::new(file_of("Dir")?).join("go.sum");
    if let Ok(sums) = std::fs::read(&sums) {
        std::fs::write(dir.path().join("go.sum"), sums).context("write go.sum")?;
    }
    std::fs::write(dir.path().join("go.mod"), text).context("write go.mod")?;
    let parent = target.parent().context("no directory for tools")?;
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    // What was cut short must not be taken for the whole the next time.
    let fresh = parent.join(format!("{name}-{}.new", std::process::id()));
    run::run(
        Command::new("timeout")
            .args(["--foreground", deadline])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_modules_are_taken_from_where_they_are_published() {
        let text = "module k8s.io/kubernetes\n\ngo 1.26.0\n\ngodebug default=go1.26\n\nreplace (\n\t\
                    k8s.io/api => ./staging/src/k8s.io/api\n\tother.io/x => ../x\n)\n";
        let lines = replacements(text, "v0.37.2");
        let lines: Vec<_> = lines.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(
            lines,
            ["go 1.26.0", "godebug default=go1.26", "replace k8s.io/api => k8s.io/api v0.37.2"]
        );
    }
}
