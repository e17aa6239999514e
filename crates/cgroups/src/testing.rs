// SPDX-License-Identifier: Apache-2.0
//! Directory trees that look like mounted cgroups.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::Cgroups;

const V1: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "freezer", "blkio", "pids", "systemd"];

/// A temporary tree and the cgroups found in it.
#[derive(Debug)]
pub(crate) struct Tree {
    dir: TempDir,
    cgroups: Cgroups,
}

impl Tree {
    pub(crate) fn v1() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn hybrid() -> Self {
        Self::with(|root| put(root, "unified/cgroup.controllers", "hugetlb\n"))
    }

    pub(crate) fn v2() -> Self {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "cgroup.controllers", "cpuset cpu io memory pids\n");
        Self { cgroups: Cgroups::at(dir.path()).unwrap(), dir }
    }

    fn with(more: impl Fn(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in V1 {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        more(dir.path());
        Self { cgroups: Cgroups::at(dir.path()).unwrap(), dir }
    }

    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// How many hierarchies there are.
    pub(crate) fn roots(&self) -> usize {
        self.cgroups.layout.roots().count()
    }

    /// Writes a file, with its directories.
    pub(crate) fn put(&self, path: &str, text: &str) {
        put(self.root(), path, text);
    }

    pub(crate) fn get(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
