// SPDX-License-Identifier: Apache-2.0
//! Limits that are changed while a cgroup lives: kept before a change, put back when it fails half-way.
//!
//! | limit      | version 1                                           | version 2                       |
//! |------------|-----------------------------------------------------|---------------------------------|
//! | cpu        | `cpu.shares`, `cpu.cfs_period_us`, `cpu.cfs_quota_us` | `cpu.weight`, `cpu.max`       |
//! | cpuset     | `cpuset.cpus`, `cpuset.mems`                        | the same                        |
//! | memory     | `memory.limit_in_bytes`, `memory.memsw.limit_in_bytes` | `memory.max`, `memory.swap.max` |
//! | huge pages | `hugetlb.SIZE.limit_in_bytes`                       | `hugetlb.SIZE.max`              |

use std::path::{Path, PathBuf};

use crate::file::{self, io_error};
use crate::layout::Layout;
use crate::{Error, Mode, Result, path, walk};

/// What stood in the limit files of a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    files: Vec<(PathBuf, String)>,
}

const V1: [(&str, &str); 7] = [
    ("cpu", "cpu.shares"),
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpuset", "cpuset.cpus"),
    ("cpuset", "cpuset.mems"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.memsw.limit_in_bytes"),
];

const V2: [(&str, &str); 6] = [
    ("cpu", "cpu.weight"),
    ("cpu", "cpu.max"),
    ("cpuset", "cpuset.cpus"),
    ("cpuset", "cpuset.mems"),
    ("memory", "memory.max"),
    ("memory", "memory.swap.max"),
];

/// A limit may have to wait for another one (memory must not exceed memory and swap; a quota's share not the
/// parent's): what failed is tried again after the others.
const ROUNDS: usize = 3;

pub(crate) fn keep(layout: &Layout, path: &Path, also: &[(&str, &str)]) -> Result<Limits> {
    let below = existing(layout, path)?;
    let known: &[(&str, &str)] = if layout.mode == Mode::V2 { &V2 } else { &V1 };
    let mut files = Vec::new();
    for (controller, name) in known.iter().chain(also) {
        let dir = layout.root_of(controller).map(|root| root.join(&below));
        let Some(file) = dir.and_then(|dir| path::child(&dir, name).ok()) else { continue };
        if let Some(text) = file::read(&file)? {
            files.push((file, text.trim_end().to_owned()));
        }
    }
    Ok(Limits { files })
}

pub(crate) fn restore(limits: &Limits) -> Result<()> {
    let mut left: Vec<&(PathBuf, String)> = limits.files.iter().collect();
    let mut failure = None;
    for _ in 0..ROUNDS {
        let mut failed = Vec::new();
        for entry in left {
            let (path, text) = entry;
            // One that is gone limits nothing any more.
            let Some(now) = file::read(path)? else { continue };
            if now.trim_end() == text {
                continue;
            }
            if let Err(source) = file::write(path, text) {
                failure = Some(io_error("cannot put back", path, source));
                failed.push(entry);
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        left = failed;
    }
    failure.map_or(Ok(()), Err)
}

pub(crate) fn lift_cpu_quota(layout: &Layout, path: &Path) -> Result<()> {
    let (name, text) = match layout.mode {
        Mode::V2 => ("cpu.max", "max"),
        Mode::V1 | Mode::Hybrid => ("cpu.cfs_quota_us", "-1"),
    };
    set(layout, path, "cpu", name, text)
}

pub(crate) fn set_hugepages(layout: &Layout, path: &Path, size: &str, bytes: u64) -> Result<()> {
    set(layout, path, "hugetlb", &hugepage_file(layout.mode, size), &bytes.to_string())
}

/// The file that limits huge pages of a size (`2MB`).
pub(crate) fn hugepage_file(mode: Mode, size: &str) -> String {
    match mode {
        Mode::V2 => format!("hugetlb.{size}.max"),
        Mode::V1 | Mode::Hybrid => format!("hugetlb.{size}.limit_in_bytes"),
    }
}

fn set(layout: &Layout, path: &Path, controller: &str, name: &str, text: &str) -> Result<()> {
    let below = existing(layout, path)?;
    let root = layout.root_of(controller).ok_or_else(|| Error::Missing { root: layout.root.clone() })?;
    let file = path::child(&root.join(below), name)?;
    file::write(&file, text).map_err(|source| io_error("cannot write", &file, source))
}

fn existing(layout: &Layout, path: &Path) -> Result<PathBuf> {
    let below = path::below_root(path)?;
    if walk::dirs(layout, path)?.is_empty() {
        return Err(Error::NotFound { path: path.to_owned() });
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cgroups;
    use crate::testing::Tree;

    const C: &str = "/pod/c";

    #[test]
    fn what_was_changed_is_put_back() {
        let v1 = Tree::v1();
        for (file, text) in [
            ("cpu/pod/c/cpu.shares", "102\n"),
            ("cpu/pod/c/cpu.cfs_quota_us", "-1\n"),
            ("cpuset/pod/c/cpuset.cpus", "0-1\n"),
            ("memory/pod/c/memory.limit_in_bytes", "4096\n"),
            ("hugetlb/pod/c/hugetlb.2MB.limit_in_bytes", "0\n"),
        ] {
            v1.put(file, text);
        }
        let cgroups = Cgroups::at(v1.root()).unwrap();
        let kept = cgroups.limits(Path::new(C), &[("hugetlb", "hugetlb.2MB.limit_in_bytes")]).unwrap();
        // Of the same length as before: unlike the kernel's, these files keep what a shorter write leaves.
        v1.put("cpu/pod/c/cpu.shares", "204");
        v1.put("memory/pod/c/memory.limit_in_bytes", "8192");
        cgroups.set_hugepages(Path::new(C), "2MB", 2 << 20).unwrap();
        assert_eq!(v1.get("hugetlb/pod/c/hugetlb.2MB.limit_in_bytes"), "2097152");
        cgroups.restore_limits(&kept).unwrap();
        assert_eq!(v1.get("cpu/pod/c/cpu.shares"), "102");
        assert_eq!(v1.get("memory/pod/c/memory.limit_in_bytes"), "4096");
        // What had not changed was not written.
        assert_eq!(v1.get("cpuset/pod/c/cpuset.cpus"), "0-1\n");
    }

    #[test]
    fn files_of_version_2_and_those_named() {
        let v2 = Tree::v2();
        v2.put("pod/c/cpu.max", "max 100000\n");
        v2.put("pod/c/memory.high", "max\n");
        let cgroups = v2.cgroups();
        let kept = cgroups.limits(Path::new(C), &[("unified", "memory.high"), ("unified", "../x")]).unwrap();
        assert_eq!(kept.files.len(), 2, "{kept:?}");
        v2.put("pod/c/cpu.max", "500");
        cgroups.lift_cpu_quota(Path::new(C)).unwrap();
        assert_eq!(v2.get("pod/c/cpu.max"), "max");
        v2.put("pod/c/memory.high", "500");
        std::fs::remove_file(v2.root().join("pod/c/cpu.max")).unwrap();
        cgroups.restore_limits(&kept).unwrap();
        assert_eq!(v2.get("pod/c/memory.high"), "max");
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_not_found() {
        let tree = Tree::v1();
        let cgroups = tree.cgroups();
        let path = Path::new("/none");
        assert!(matches!(cgroups.limits(path, &[]), Err(Error::NotFound { .. })));
        assert!(matches!(cgroups.lift_cpu_quota(path), Err(Error::NotFound { .. })));
        assert!(matches!(cgroups.set_hugepages(Path::new("/"), "2MB", 0), Err(Error::InvalidPath { .. })));
    }
}
