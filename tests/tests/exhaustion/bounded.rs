// SPDX-License-Identifier: Apache-2.0
//! A control group that bounds what the daemon has: itself, helpers, runtimes, and monitors before they are moved.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_tests::unique;

pub(crate) struct Bounded {
    dir: PathBuf,
    root: PathBuf,
    used: &'static str,
    most: &'static str,
    unbounded: &'static str,
}

impl Bounded {
    /// Of threads and processes.
    pub(crate) fn tasks(pid: u32) -> Self {
        match Path::new("/sys/fs/cgroup/pids") {
            v1 if v1.is_dir() => Self::new(v1, pid, ["pids.current", "pids.max", "max"]),
            _ => Self::new(Path::new("/sys/fs/cgroup"), pid, ["pids.current", "pids.max", "max"]),
        }
    }

    /// Of bytes of memory.
    pub(crate) fn memory(pid: u32) -> Self {
        match Path::new("/sys/fs/cgroup/memory") {
            v1 if v1.is_dir() => Self::new(v1, pid, ["memory.usage_in_bytes", "memory.limit_in_bytes", "-1"]),
            _ => Self::new(Path::new("/sys/fs/cgroup"), pid, ["memory.current", "memory.max", "max"]),
        }
    }

    fn new(root: &Path, pid: u32, [used, most, unbounded]: [&'static str; 3]) -> Self {
        let dir = root.join(format!("hull-test-bounded-{}", unique()));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
        Self { dir, root: root.to_owned(), used, most, unbounded }
    }

    pub(crate) fn used(&self) -> usize {
        fs::read_to_string(self.dir.join(self.used)).unwrap().trim().parse().unwrap()
    }

    pub(crate) fn set(&self, most: Option<usize>) {
        let most = most.map_or_else(|| self.unbounded.to_owned(), |most| most.to_string());
        fs::write(self.dir.join(self.most), most).unwrap();
    }
}

impl Drop for Bounded {
    /// A daemon that was killed leaves programs behind that are about to end.
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.dir.exists() && Instant::now() < end {
            let left = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
            for pid in left.lines() {
                let _ = fs::write(self.root.join("cgroup.procs"), pid);
            }
            if fs::remove_dir(&self.dir).is_err() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
