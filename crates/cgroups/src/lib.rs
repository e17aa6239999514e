// SPDX-License-Identifier: Apache-2.0
//! Control groups, version 1 (one tree per controller), 2 (one tree) and hybrid.
//!
//! Paths are relative to the root of each hierarchy and are the same in all of them
//! (`/kubepods/burstable/podX/hull-ID`), as the OCI `cgroupsPath` in cgroupfs form.

mod error;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{Error, Result};

/// The machine's control groups.
#[derive(Debug, Clone)]
pub struct Cgroups {}

/// How the machine's control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One tree per controller.
    V1,
    /// Version 1 controllers and a version 2 tree beside them.
    Hybrid,
    /// One tree.
    V2,
}

/// Which hierarchies an exec's own cgroup is made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecScope {
    /// The `pids` hierarchy alone (on version 2: the tree).
    Pids,
    /// Every hierarchy; cpuset gets its parent's cpus and mems.
    All,
}

/// What a cgroup uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time in nanoseconds since the cgroup was made.
    pub cpu_usage_ns: u64,
    /// Bytes of memory charged.
    pub memory_usage: u64,
    /// Usage without inactive file pages.
    pub memory_working_set: u64,
    /// Anonymous memory.
    pub memory_rss: u64,
    /// The limit, if there is one.
    pub memory_limit: Option<u64>,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that needed a read.
    pub major_page_faults: u64,
    /// Swap in use, where the node accounts it.
    pub swap_usage: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Cgroups {
    /// Looks at `/sys/fs/cgroup`.
    pub fn detect() -> Result<Self> {
        todo!()
    }
    /// Looks at another mount point: for tests.
    pub fn at(_root: impl Into<PathBuf>) -> Result<Self> {
        todo!()
    }
    /// How they are mounted.
    pub fn mode(&self) -> Mode {
        todo!()
    }
    /// The directory of `path` in the hierarchy of a controller (`memory`, `pids`, ...); `None` if there is no such controller.
    pub fn dir(&self, _controller: &str, _path: &Path) -> Option<PathBuf> {
        todo!()
    }
    /// Makes the cgroup with its parents in every hierarchy; tells which directories did not exist before, outermost first.
    pub fn create(&self, _path: &Path) -> Result<Vec<PathBuf>> {
        todo!()
    }
    /// Moves a process into the cgroup in every hierarchy.
    pub fn add_process(&self, _path: &Path, _pid: i32) -> Result<()> {
        todo!()
    }
    /// The processes in the cgroup and below it, without doubles. A missing cgroup has none.
    pub fn processes(&self, _path: &Path) -> Result<Vec<i32>> {
        todo!()
    }
    /// Whether anything lives in it or below it.
    pub fn is_populated(&self, _path: &Path) -> Result<bool> {
        todo!()
    }
    /// Kills everything in it and below it, and waits until it is empty. A missing cgroup is a success.
    pub async fn kill(&self, _path: &Path, _deadline: Duration) -> Result<()> {
        todo!()
    }
    /// Removes the cgroup and those below it, in every hierarchy; a missing one is a success, a populated one an error.
    pub fn remove(&self, _path: &Path) -> Result<()> {
        todo!()
    }
    /// Makes the cgroup of an exec below its container's.
    pub fn create_exec(&self, _container: &Path, _name: &str, _scope: ExecScope) -> Result<()> {
        todo!()
    }
    /// Reads what the cgroup uses. A missing cgroup is [`Error::NotFound`].
    pub fn stats(&self, _path: &Path) -> Result<Stats> {
        todo!()
    }
}
