// SPDX-License-Identifier: Apache-2.0
//! What there is of everything that could leak, after so many pods: counted between two groups of pods, when none
//! is left.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cgroup;
use crate::run;

/// Before it is counted: what ends behind the last reply (watchers, monitors) needs a moment.
const MOMENT: Duration = Duration::from_secs(1);

/// The things that are counted, as tables and plots name them.
pub(crate) const COUNTED: [&str; 9] = [
    "descriptors",
    "threads",
    "processes",
    "mounts",
    "namespaces",
    "links",
    "firewall rules",
    "cgroups",
    "files",
];

/// After so many pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) pods: u32,
    /// Proportional set size of the daemon.
    pub(crate) memory_kib: u64,
    /// In the order of [`COUNTED`].
    pub(crate) counts: [u64; COUNTED.len()],
}

/// Counts. Links, rules, mounts and processes are those of the bench's own namespaces, all of which the daemon shares.
pub(crate) fn sample(pods: u32, pid: u32, home: &Path, group: &str) -> Result<Sample> {
    std::thread::sleep(MOMENT);
    let entries = |dir: String| -> Result<u64> {
        Ok(fs::read_dir(&dir).with_context(|| format!("list {dir}"))?.count() as u64)
    };
    let processes = fs::read_dir("/proc").context("list /proc")?.flatten();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    Ok(Sample {
        pods,
        memory_kib: memory_kib(pid)?,
        counts: [
            entries(format!("/proc/{pid}/fd"))?,
            entries(format!("/proc/{pid}/task"))?,
            processes.filter(|entry| is_process(&entry.file_name().to_string_lossy())).count() as u64,
            mounts.lines().count() as u64,
            files(&home.join("netns")) + files(&home.join("run/ns")),
            lines(Command::new("ip").args(["-o", "link"]))?,
            lines(Command::new("nft").args(["list", "ruleset"]))?,
            cgroup::places(group).iter().map(|place| directories(place)).sum(),
            files(&home.join("lib")) + files(&home.join("run")),
        ],
    })
}

/// The proportional set size of a process.
pub(crate) fn memory_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.with_context(|| format!("{path} has no Pss"))
}

fn lines(command: &mut Command) -> Result<u64> {
    Ok(run::capture(command)?.lines().count() as u64)
}

/// Everything below a directory that is no directory.
fn files(dir: &Path) -> u64 {
    walk(dir, &|is_dir| !is_dir)
}

fn directories(dir: &Path) -> u64 {
    walk(dir, &|is_dir| is_dir)
}

fn walk(dir: &Path, counts: &dyn Fn(bool) -> bool) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        u64::from(counts(is_dir)) + if is_dir { walk(&entry.path(), counts) } else { 0 }
    };
    entries.map(count).sum()
}

/// What there is more of at the end than after the first pods, in words. A thread more or less is the pool's business,
/// and memory is judged at rest.
pub(crate) fn grown(samples: &[Sample]) -> Vec<String> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Vec::new() };
    let changes = COUNTED.iter().zip(first.counts.iter().zip(&last.counts));
    changes
        .filter(|(name, (first, last))| **name != "threads" && last > first)
        .map(|(name, (was, is))| format!("{name} grew from {was} to {is}"))
        .collect()
}

/// The series as a document: a list for each thing.
pub(crate) fn json(samples: &[Sample]) -> Value {
    let mut all = json!({
        "pods": samples.iter().map(|sample| sample.pods).collect::<Vec<_>>(),
        "memoryKib": samples.iter().map(|sample| sample.memory_kib).collect::<Vec<_>>(),
    });
    for (n, name) in COUNTED.iter().enumerate() {
        all[*name] = samples.iter().map(|sample| sample.counts[n]).collect::<Vec<_>>().into();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_named() {
        let sample = |counts| Sample { pods: 1, memory_kib: 1, counts };
        let first = sample([9, 5, 2, 30, 0, 2, 12, 3, 40]);
        assert_eq!(grown(&[first.clone(), sample([9, 7, 2, 30, 0, 2, 12, 3, 39])]), Vec::<String>::new());
        let grown = grown(&[first, sample([10, 5, 2, 30, 1, 2, 12, 3, 40])]);
        assert_eq!(grown, ["descriptors grew from 9 to 10", "namespaces grew from 0 to 1"]);
    }

    #[test]
    fn files_and_directories_are_counted_apart() {
        let dir = run::PrivateDir::new("xtask-series").unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), "").unwrap();
        assert_eq!((files(dir.path()), directories(dir.path())), (1, 2));
        assert_eq!(files(&dir.path().join("none")), 0);
    }
}
