// SPDX-License-Identifier: Apache-2.0
//! The control group in which the bare parts run: by it their CPU time is known, that of processes that
//! are nobody's children any more included.
//!
//! ```text
//! /hull-b-PID-0              named as the bench's directory; cpuacct.usage (v1) or cpu.stat (v2) counts all below
//!   self                     this program, while it runs bare parts
//!   CONTAINER                made by the runtime
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// Removed when dropped, as far as it is empty.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: String,
    /// Where CPU time is counted.
    counter: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// Makes that of the bench in `dir`.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let is_v2 = Path::new(ROOT).join("cgroup.controllers").exists();
        let counter = if is_v2 { PathBuf::from(ROOT) } else { Path::new(ROOT).join("cpuacct") };
        let name = name_of(dir);
        let group = Self { counter: counter.join(&name[1..]), name, is_v2 };
        let own = group.counter.join("self");
        fs::create_dir_all(&own).with_context(|| format!("make control group {}", own.display()))?;
        Ok(group)
    }

    /// The path from each hierarchy's root.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Moves this program in, or back to the root.
    pub(crate) fn enter(&self, enter: bool) -> Result<()> {
        let root = if self.is_v2 { Path::new(ROOT).to_owned() } else { Path::new(ROOT).join("cpuacct") };
        let group = if enter { self.counter.join("self") } else { root };
        let file = group.join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("write to {}", file.display()))
    }

    /// CPU time that everything in it has used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let file = self.counter.join(if self.is_v2 { "cpu.stat" } else { "cpuacct.usage" });
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let time = if self.is_v2 {
            text.lines().find_map(|line| number(line.strip_prefix("usage_usec ")?)).map(Duration::from_micros)
        } else {
            number(&text).map(Duration::from_nanos)
        };
        time.with_context(|| format!("{} tells no CPU time", file.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.enter(false);
        remove(&self.name);
    }
}

/// The control group of the bench in `dir`.
pub(crate) fn name_of(dir: &Path) -> String {
    format!("/{}", dir.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes it in every hierarchy, with all that is below, as far as nothing runs there.
pub(crate) fn remove(name: &str) {
    for place in places(name) {
        remove_tree(&place, 0);
    }
}

fn remove_tree(dir: &Path, depth: usize) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth < 4 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path(), depth + 1);
        }
    }
    let _ = fs::remove_dir(dir);
}

/// The directories of a control group: one for each hierarchy that has it.
pub(crate) fn places(name: &str) -> Vec<PathBuf> {
    let name = name.trim_start_matches('/');
    let hierarchies = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(PathBuf::from(ROOT))
        .chain(hierarchies)
        .map(|root| root.join(name))
        .filter(|path| path.is_dir())
        .collect()
}

/// Makes a group below another, as an exec's: in the hierarchy `only` or in all that have its parent.
pub(crate) fn make_below(parent: &str, name: &str, only: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for place in places(parent) {
        let hierarchy = place.components().nth(4).map(|part| part.as_os_str().to_string_lossy().into_owned());
        if only.is_some_and(|only| hierarchy.as_deref() != Some(only)) {
            continue;
        }
        let path = place.join(name);
        fs::create_dir(&path).with_context(|| format!("make control group {}", path.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // Empty, it takes no process (cgroup v1).
            if let Ok(text) = fs::read_to_string(place.join(file))
                && path.join(file).exists()
            {
                let _ = fs::write(path.join(file), text.trim());
            }
        }
        made.push(path);
    }
    Ok(made)
}
