// SPDX-License-Identifier: Apache-2.0
//! Control groups, version 1 (one tree per controller), 2 (one tree) and hybrid.
//!
//! Paths are relative to the root of each hierarchy and are the same in all of them
//! (`/kubepods/burstable/podX/hull-ID`), as the OCI `cgroupsPath` in cgroupfs form.
//!
//! ```text
//! V2      /sys/fs/cgroup/PATH                          cgroup.controllers at the root
//! V1      /sys/fs/cgroup/{cpu,memory,pids,...}/PATH    also name=systemd; cpu,cpuacct may share one tree
//! Hybrid  as V1, and /sys/fs/cgroup/unified/PATH       runc puts its processes there too
//! ```
//!
//! Invariants:
//! - no path leaves its hierarchy: relative ones, `..` and NUL are refused before anything is touched;
//! - nothing that is populated is removed, and a process is only signalled by a pidfd that was seen in the
//!   cgroup after it was opened, so that a recycled pid is not hit;
//! - the root and the cgroup of the calling process are never killed or removed.
//!
//! The synchronous functions touch only kernel memory; they may still sleep for some milliseconds
//! ([`Cgroups::remove`] retries), so async callers run them by `spawn_blocking`.

mod create;
mod error;
mod file;
mod kill;
mod layout;
mod limits;
mod path;
mod remove;
mod stats;
#[cfg(test)]
mod testing;
mod walk;
#[expect(unsafe_code, reason = "AsyncFd has no safe constructor that takes an interest")]
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use error::{Error, Result};
pub use limits::Limits;

/// The machine's control groups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups {
    layout: Arc<layout::Layout>,
}

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

/// What a cgroup uses. What a machine does not account is 0 or `None`.
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
    ///
    /// # Errors
    /// [`Error::Missing`] where no cgroup file system is mounted there.
    pub fn detect() -> Result<Self> {
        Ok(Self { layout: Arc::new(layout::Layout::mounted(Path::new("/sys/fs/cgroup"))?) })
    }

    /// Looks at another mount point: for tests. Directories with the names of controllers pass for mounts.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is nothing like it.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { layout: Arc::new(layout::Layout::at(&root.into())?) })
    }

    /// How they are mounted.
    pub fn mode(&self) -> Mode {
        self.layout.mode
    }

    /// The directory of `path` in the hierarchy of a controller (`memory`, `pids`, ...); `None` if there is
    /// no such controller, or the path is invalid. The directory need not exist.
    ///
    /// `cpuacct` and `cpu`, `blkio` and `io` are found by either name; `freezer` and `devices` are part of
    /// every version 2 tree; `unified` is the version 2 tree itself.
    pub fn dir(&self, controller: &str, path: &Path) -> Option<PathBuf> {
        let below = path::relative(path).ok()?;
        Some(self.layout.root_of(controller)?.join(below))
    }

    /// Makes the cgroup with its parents in every hierarchy; tells which directories did not exist before,
    /// outermost first. On version 1 empty `cpuset.cpus` and `cpuset.mems` are filled from the parent; on
    /// version 2 new parents hand the available controllers down.
    ///
    /// # Errors
    /// [`Error::InvalidPath`]; [`Error::Io`], when what was made has been removed again.
    pub fn create(&self, path: &Path) -> Result<Vec<PathBuf>> {
        create::create(&self.layout, path)
    }

    /// Moves a process, with all its threads, into the cgroup in every hierarchy.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the cgroup is missing in any of them; [`Error::Io`] with `ESRCH` where
    /// the process is gone.
    pub fn add_process(&self, path: &Path, pid: i32) -> Result<()> {
        create::add_process(&self.layout, path, pid)
    }

    /// The processes in the cgroup and below it, without doubles, ascending. A missing cgroup has none.
    /// Zombies do not count; processes of foreign PID namespaces cannot be told and are left out.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::Io`].
    pub fn processes(&self, path: &Path) -> Result<Vec<i32>> {
        Ok(walk::processes(&self.layout, path)?.into_iter().collect())
    }

    /// The cgroups whose own name `wanted` takes, as paths from a hierarchy's root; each once, whatever hierarchies have
    /// it. Walks every hierarchy: not for the daemon's everyday work.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn find(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        walk::find(&self.layout, wanted)
    }

    /// Whether anything lives in it or below it. A missing cgroup is not populated.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::Io`]: it is then not known, and must not be taken for empty.
    pub fn is_populated(&self, path: &Path) -> Result<bool> {
        walk::is_populated(&self.layout, path)
    }

    /// Kills everything in it and below it, and waits until it is empty. A missing cgroup is a success.
    /// What is frozen is thawed, since it could not die.
    ///
    /// # Errors
    /// [`Error::Populated`] after `deadline`, with who does not end (uninterruptible sleep on a hung
    /// volume); [`Error::InvalidPath`] for the root and for a cgroup that holds the calling process.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn kill(&self, path: &Path, deadline: Duration) -> Result<()> {
        kill::kill(&self.layout, path, deadline).await
    }

    /// Removes the cgroup and those below it, in every hierarchy; a missing one is a success, a populated one an error.
    ///
    /// # Errors
    /// [`Error::Populated`], when nothing was removed; [`Error::InvalidPath`] also for the root;
    /// [`Error::Io`] with the first failure, when the other hierarchies have been removed all the same.
    pub fn remove(&self, path: &Path) -> Result<()> {
        remove::remove(&self.layout, path)
    }

    /// Makes the cgroup of an exec below its container's. Remove it with [`Cgroups::remove`].
    ///
    /// # Errors
    /// [`Error::NotFound`] where the container has no cgroup; [`Error::InvalidPath`] where `name` is not
    /// one name; [`Error::Missing`] where the scope's hierarchy is not mounted; [`Error::Io`].
    pub fn create_exec(&self, container: &Path, name: &str, scope: ExecScope) -> Result<()> {
        create::create_exec(&self.layout, container, name, scope)
    }

    /// Reads what the cgroup uses. A missing cgroup is [`Error::NotFound`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidPath`], [`Error::Io`] (also for a number that cannot be read).
    pub fn stats(&self, path: &Path) -> Result<Stats> {
        stats::stats(&self.layout, path)
    }

    /// How many processes of the cgroup and those below it the kernel killed for want of memory; `None` where
    /// it does not count. Version 1 counts each cgroup for itself.
    ///
    /// # Errors
    /// As [`Cgroups::stats`].
    pub fn oom_kills(&self, path: &Path) -> Result<Option<u64>> {
        stats::oom_kills(&self.layout, path)
    }

    /// What stands in the cgroup's files for cpu, cpuset and memory limits, and in those of `also`: controller
    /// (`hugetlb`; `unified` for any file of version 2) and name. A file that is not there is left out.
    ///
    /// # Errors
    /// As [`Cgroups::stats`], and [`Error::InvalidPath`] for the root.
    pub fn limits(&self, path: &Path, also: &[(&str, &str)]) -> Result<Limits> {
        limits::keep(&self.layout, path, also)
    }

    /// Writes back what [`Cgroups::limits`] read, where it is different now.
    ///
    /// # Errors
    /// [`Error::Io`] for the last file that refused; the others have been written all the same.
    pub fn restore_limits(&self, limits: &Limits) -> Result<()> {
        limits::restore(limits)
    }

    /// Takes the limit of processor time away; the period stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidPath`] also for the root, [`Error::Missing`] without a cpu
    /// controller, [`Error::Io`].
    pub fn lift_cpu_quota(&self, path: &Path) -> Result<()> {
        limits::lift_cpu_quota(&self.layout, path)
    }

    /// Limits huge pages of one size (`2MB`, as the kernel's files are named) to so many bytes.
    ///
    /// # Errors
    /// As [`Cgroups::lift_cpu_quota`], for the hugetlb controller.
    pub fn set_hugepages(&self, path: &Path, size: &str, bytes: u64) -> Result<()> {
        limits::set_hugepages(&self.layout, path, size, bytes)
    }

    /// The name of the file that limits huge pages of one size.
    pub fn hugepage_file(&self, size: &str) -> String {
        limits::hugepage_file(self.layout.mode, size)
    }
}
