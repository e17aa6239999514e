// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask dist`: what is installed on a node, in one directory.
//!
//! ```text
//! target/dist/
//!   bin/{hull,crictl-lite}                                  release build, stripped
//!   share/man/man1/*.1                                      made by the build scripts from the command lines
//!   share/bash-completion/completions/{hull,crictl-lite}
//!   share/zsh/site-functions/{_hull,_crictl-lite}
//!   share/fish/vendor_completions.d/{hull,crictl-lite}.fish
//!   lib/systemd/system/hull.service                         how systemd runs it, see docs/kubelet.md
//! ```
//! The layout is the one below `/usr` (or `/usr/local`): `cp -a target/dist/. /usr/local/` installs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{self, headline};
use crate::test::artifacts::Built;

const PROGRAMS: [&str; 2] = ["hull", "crictl-lite"];

pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    if let Some(other) = args.first() {
        bail!("unknown option {other:?} of `cargo xtask dist`");
    }
    let built = build(root)?;
    let dist = root.join("target/dist");
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("remove {}", dist.display()))?;
    }
    for name in PROGRAMS {
        let program = built
            .programs
            .iter()
            .find(|path| path.ends_with(name))
            .with_context(|| format!("the build made no program named {name}"))?;
        place(program, &dist.join("bin").join(name))?;
        let documents = documents(&built, name)?;
        for page in files(&documents.join("man"))? {
            place(&page, &dist.join("share/man/man1").join(page.file_name().unwrap_or_default()))?;
        }
        let share = dist.join("share");
        for (made, installed) in [
            (format!("{name}.bash"), format!("bash-completion/completions/{name}")),
            (format!("_{name}"), format!("zsh/site-functions/_{name}")),
            (format!("{name}.fish"), format!("fish/vendor_completions.d/{name}.fish")),
        ] {
            place(&documents.join("completions").join(made), &share.join(installed))?;
        }
    }
    place(&root.join("contrib/systemd/hull.service"), &dist.join("lib/systemd/system/hull.service"))?;
    println!("{}", dist.display());
    Ok(())
}

fn build(root: &Path) -> Result<Built> {
    headline("Building what is installed on a node");
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "build",
        "--release",
        "--package",
        "hull-server",
        "--package",
        "hull-crictl-lite",
        "--message-format=json-render-diagnostics",
    ]);
    println!("$ {}", run::shown(&command));
    Built::by(&mut command)
}

/// Where the build script of a program put its documents.
fn documents(built: &Built, name: &str) -> Result<PathBuf> {
    let page = format!("man/{name}.1");
    built
        .out_dirs
        .iter()
        .find(|dir| dir.join(&page).is_file())
        .cloned()
        .with_context(|| format!("no build script made {page}"))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn place(file: &Path, target: &Path) -> Result<()> {
    let parent = target.parent().context("a target has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::copy(file, target).with_context(|| format!("copy {} to {}", file.display(), target.display()))?;
    Ok(())
}
