// SPDX-License-Identifier: Apache-2.0
//! Where the hierarchies are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Mode, Result};

/// The controllers of version 1, as named in `/proc/cgroups`, and the named hierarchy of systemd.
const V1_NAMES: [&str; 15] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
    "rdma",
    "misc",
    "systemd",
];

/// The machine's hierarchies.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) mode: Mode,
    /// Version 1, in the order of their directories' names.
    pub(crate) v1: Vec<Hierarchy>,
    /// The tree of version 2: the root itself, or in hybrid mode `unified`.
    pub(crate) v2: Option<PathBuf>,
    /// What the version 2 tree offers.
    v2_controllers: Vec<String>,
}

/// One tree of version 1.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    pub(crate) root: PathBuf,
    controllers: Vec<String>,
}

impl Layout {
    /// What is mounted: a directory without a root cgroup in it is litter on the tmpfs and does not count.
    pub(crate) fn mounted(root: &Path) -> Result<Self> {
        Self::look(root, |dir, _| dir.join("cgroup.procs").exists())
    }

    /// As [`Layout::mounted`], but a directory of the right name is enough.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        Self::look(root, |dir, controllers| {
            dir.join("cgroup.procs").exists()
                || controllers.iter().all(|name| V1_NAMES.contains(&name.as_str()))
        })
    }

    fn look(root: &Path, is_hierarchy: impl Fn(&Path, &[String]) -> bool) -> Result<Self> {
        let offers = |dir: &Path| {
            let text = fs::read_to_string(dir.join("cgroup.controllers")).ok()?;
            Some(text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        if let Some(v2_controllers) = offers(root) {
            let (root, v2) = (root.to_owned(), Some(root.to_owned()));
            return Ok(Self { root, mode: Mode::V2, v1: Vec::new(), v2, v2_controllers });
        }
        let unified = root.join("unified");
        let v2_controllers = offers(&unified);
        let mut v1 = Vec::new();
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let (dir, name) = (entry.path(), entry.file_name());
            // A link (`cpu` to `cpu,cpuacct`) would count a hierarchy twice.
            if dir == unified || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let controllers: Vec<_> = name.to_string_lossy().split(',').map(str::to_owned).collect();
            if is_hierarchy(&dir, &controllers) {
                v1.push(Hierarchy { root: dir, controllers });
            }
        }
        if v1.is_empty() {
            return Err(Error::Missing { root: root.to_owned() });
        }
        v1.sort_by(|a, b| a.root.cmp(&b.root));
        let (mode, v2, v2_controllers) = match v2_controllers {
            Some(offered) => (Mode::Hybrid, Some(unified), offered),
            None => (Mode::V1, None, Vec::new()),
        };
        Ok(Self { root: root.to_owned(), mode, v1, v2, v2_controllers })
    }

    /// The roots of all hierarchies.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|tree| tree.root.as_path()).chain(self.v2.as_deref())
    }

    /// The root of a version 1 controller's hierarchy.
    pub(crate) fn v1_root(&self, controller: &str) -> Option<&Path> {
        let tree = self.v1.iter().find(|tree| tree.controllers.iter().any(|name| name == controller));
        tree.map(|tree| tree.root.as_path())
    }

    /// The root of a controller's hierarchy, of either version.
    pub(crate) fn root_of(&self, controller: &str) -> Option<&Path> {
        if controller == "unified" {
            return self.v2.as_deref();
        }
        let other = match controller {
            "blkio" => "io",
            "io" => "blkio",
            "cpuacct" => "cpu",
            other => other,
        };
        if let Some(root) = self.v1_root(controller).or_else(|| self.v1_root(other)) {
            return Some(root);
        }
        let offered = self.v2_controllers.iter().any(|name| name == controller || name == other);
        // These two are part of every cgroup of version 2, without being controllers.
        let inherent = self.mode == Mode::V2 && matches!(controller, "freezer" | "devices");
        self.v2.as_deref().filter(|_| offered || inherent)
    }

    /// Whether a directory of a hierarchy belongs to the tree of version 2.
    pub(crate) fn is_v2(&self, dir: &Path) -> bool {
        self.v2.as_deref().is_some_and(|root| dir.starts_with(root))
    }

    /// Whether a directory of a hierarchy belongs to the cpuset tree of version 1.
    pub(crate) fn is_v1_cpuset(&self, dir: &Path) -> bool {
        self.v1_root("cpuset").is_some_and(|root| dir.starts_with(root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cgroups;
    use crate::testing::Tree;

    #[test]
    fn tells_how_they_are_mounted() {
        let v2 = Tree::v2();
        assert_eq!(v2.cgroups().mode(), Mode::V2);
        let hybrid = Tree::hybrid();
        assert_eq!(hybrid.cgroups().mode(), Mode::Hybrid);
        assert_eq!(Tree::v1().cgroups().mode(), Mode::V1);

        let empty = tempfile::tempdir().unwrap();
        let error = Cgroups::at(empty.path()).unwrap_err();
        assert!(matches!(&error, Error::Missing { root } if root == empty.path()), "{error}");
        assert!(matches!(Cgroups::at("/nonexistent"), Err(Error::Missing { .. })));
        assert!(Layout::mounted(Tree::v1().root()).is_err(), "nothing is mounted there");
    }

    #[test]
    fn shared_hierarchies_are_found_by_each_name_and_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cpu,cpuacct", "net_cls,net_prio", "memory", "elogind", "notes"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("elogind/cgroup.procs"), "").unwrap();
        std::os::unix::fs::symlink("cpu,cpuacct", dir.path().join("cpu")).unwrap();
        let cgroups = Cgroups::at(dir.path()).unwrap();
        let at = |controller| cgroups.dir(controller, Path::new("/p"));
        assert_eq!(at("cpu"), Some(dir.path().join("cpu,cpuacct/p")));
        assert_eq!(at("cpuacct"), at("cpu"));
        assert_eq!(at("net_prio"), Some(dir.path().join("net_cls,net_prio/p")));
        assert_eq!(at("elogind"), Some(dir.path().join("elogind/p")));
        assert_eq!(at("pids"), None);
        assert_eq!(at("notes"), None, "neither a mount nor the name of a controller");
        assert_eq!(cgroups.layout.roots().count(), 4);
    }

    #[test]
    fn one_tree_holds_every_controller_that_it_offers() {
        let tree = Tree::v2();
        let at = |controller| tree.cgroups().dir(controller, Path::new("/p"));
        for controller in ["cpu", "cpuacct", "memory", "pids", "io", "blkio", "freezer", "devices", "unified"]
        {
            assert_eq!(at(controller), Some(tree.root().join("p")), "{controller}");
        }
        assert_eq!(at("rdma"), None);
        assert_eq!(tree.cgroups().dir("memory", Path::new("/../p")), None);
    }

    #[test]
    fn hybrid_prefers_version_1() {
        let tree = Tree::hybrid();
        let at = |controller| tree.cgroups().dir(controller, Path::new("/p"));
        assert_eq!(at("memory"), Some(tree.root().join("memory/p")));
        assert_eq!(at("hugetlb"), Some(tree.root().join("unified/p")));
        assert_eq!(at("unified"), Some(tree.root().join("unified/p")));
        assert_eq!(at("rdma"), None);
    }
}
