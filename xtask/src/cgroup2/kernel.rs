// SPDX-License-Identifier: Apache-2.0
//! Debian's generic kernel, unpacked below `target/` and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{self, headline};

const META: &str = "linux-image-amd64";

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What is booted.
    pub(crate) image: PathBuf,
    /// `.../lib/modules`.
    pub(crate) modules: PathBuf,
    /// `6.1.0-56-amd64`.
    pub(crate) release: String,
}

/// The kernel that an earlier run has unpacked, or the current one.
pub(crate) fn get(dir: &Path) -> Result<Kernel> {
    let whole = dir.join("kernel");
    if let Ok(kernel) = find(&whole) {
        return Ok(kernel);
    }
    headline("Getting Debian's kernel");
    let half = dir.join("kernel.part");
    for path in [&whole, &half] {
        if path.exists() {
            fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    fs::create_dir_all(&half).with_context(|| format!("make {}", half.display()))?;
    let package = match package() {
        Ok(package) => package,
        Err(_) => {
            run::run(Command::new("apt-get").args(["-qq", "update"]))?;
            package()?
        }
    };
    // As root: the directory is not open to apt's own user.
    let download = ["-qq", "-o", "APT::Sandbox::User=root", "download", &package];
    run::run(Command::new("apt-get").args(download).current_dir(&half))?;
    let archive = fs::read_dir(&half)
        .with_context(|| format!("read {}", half.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} brought no package"))?;
    run::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&half))?;
    fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
    let kernel = find(&half)?;
    let depmod = run::which("depmod").context("depmod is missing: install kmod")?;
    run::run(Command::new(depmod).arg("-b").arg(&half).arg(&kernel.release))?;
    fs::rename(&half, &whole).with_context(|| format!("rename {}", half.display()))?;
    find(&whole)
}

/// The package that the meta package stands for today.
fn package() -> Result<String> {
    let text = run::capture(Command::new("apt-cache").args(["depends", META]))?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned);
    name.with_context(|| format!("apt knows no {META}: is this Debian, on amd64?"))
}

fn find(dir: &Path) -> Result<Kernel> {
    let boot = dir.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("read {}", boot.display()))?;
    for entry in entries.flatten() {
        if let Some(release) = entry.file_name().to_str().and_then(|name| name.strip_prefix("vmlinuz-")) {
            let modules = [dir.join("lib/modules"), dir.join("usr/lib/modules")];
            let modules = modules.into_iter().find(|path| path.join(release).is_dir());
            let modules = modules.with_context(|| format!("no modules of {release} in {}", dir.display()))?;
            return Ok(Kernel { image: entry.path(), modules, release: release.to_owned() });
        }
    }
    bail!("no kernel in {}", boot.display())
}

impl Kernel {
    /// The files of these modules and of those that they need, in the order in which they can be loaded.
    pub(crate) fn with_needed(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let dir = self.modules.join(&self.release);
        let list = dir.join("modules.dep");
        let text = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
        Ok(in_order(&text, names)?.into_iter().map(|file| dir.join(file)).collect())
    }
}

/// `modules.dep`: `FILE: NEEDED...`, each after those that it needs itself when read from the end.
fn in_order(text: &str, names: &[&str]) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for name in names {
        let line = text.lines().filter_map(|line| line.split_once(':')).find(|(file, _)| {
            let file = file.rsplit('/').next().unwrap_or_default();
            file.strip_suffix(".ko") == Some(name)
        });
        let (file, needed) =
            line.with_context(|| format!("this kernel has no module {name} that is not compressed"))?;
        for file in needed.split_whitespace().rev().chain([file]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        let text = "k/a.ko: k/b.ko k/c.ko\nk/b.ko: k/c.ko\nk/c.ko:\nk/d.ko: k/c.ko\nk/e.ko.xz:\n";
        assert_eq!(in_order(text, &["a", "d"]).unwrap(), ["k/c.ko", "k/b.ko", "k/a.ko", "k/d.ko"]);
        for missing in ["x", "e"] {
            assert!(in_order(text, &[missing]).unwrap_err().to_string().contains(missing));
        }
    }
}
