// SPDX-License-Identifier: Apache-2.0
//! Who lives in a cgroup, and which cgroups are below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::file::{self, io_error};
use crate::layout::Layout;
use crate::{Result, path};

/// The directories of a cgroup that exist, one for each hierarchy.
pub(crate) fn dirs(layout: &Layout, path: &Path) -> Result<Vec<PathBuf>> {
    let below = path::relative(path)?;
    Ok(layout.roots().map(|root| root.join(&below)).filter(|dir| dir.is_dir()).collect())
}

/// A directory and all below it, parents first. What vanishes on the way is left out.
pub(crate) fn tree(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&parent) {
            Ok(entries) => entries,
            Err(error) if file::is_gone(&error) => continue,
            Err(source) => return Err(io_error("cannot list", &parent, source)),
        };
        for entry in entries {
            match entry {
                Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => found.push(entry.path()),
                Ok(_) => {}
                Err(error) if file::is_gone(&error) => {}
                Err(source) => return Err(io_error("cannot list", &parent, source)),
            }
        }
    }
    Ok(found)
}

/// The cgroups of certain names, by their paths from the hierarchy's root.
pub(crate) fn find(layout: &Layout, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for root in layout.roots() {
        for dir in tree(root)? {
            let name = dir.file_name().and_then(|name| name.to_str());
            if name.is_some_and(wanted)
                && let Ok(below) = dir.strip_prefix(root)
            {
                found.insert(Path::new("/").join(below));
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The processes in a cgroup and below it, in any hierarchy.
pub(crate) fn processes(layout: &Layout, path: &Path) -> Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    for dir in dirs(layout, path)? {
        collect(&dir, &mut pids)?;
    }
    Ok(pids)
}

/// Whether anything lives in a cgroup or below it.
pub(crate) fn is_populated(layout: &Layout, path: &Path) -> Result<bool> {
    for dir in dirs(layout, path)? {
        // One read, which also knows of processes in foreign PID namespaces and of those about to die.
        if layout.is_v2(&dir)
            && let Some(populated) = events(&dir)?
        {
            if populated {
                return Ok(true);
            }
            continue;
        }
        let mut pids = BTreeSet::new();
        if collect(&dir, &mut pids)? || !pids.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The word `populated` of `cgroup.events` (cgroup-v2, "Core Interface Files"); the root has none.
pub(crate) fn events(dir: &Path) -> Result<Option<bool>> {
    let text = file::read(&dir.join("cgroup.events"))?;
    Ok(text.as_deref().and_then(populated))
}

pub(crate) fn populated(events: &str) -> Option<bool> {
    let word = events.lines().find_map(|line| line.strip_prefix("populated "))?;
    Some(word.trim() != "0")
}

/// Adds the processes of a directory and those below it; tells whether there are some without a pid here.
fn collect(dir: &Path, pids: &mut BTreeSet<i32>) -> Result<bool> {
    let mut foreign = false;
    for dir in tree(dir)? {
        let text = file::read(&dir.join("cgroup.procs"))?.unwrap_or_default();
        for pid in text.lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
            // Processes of a PID namespace outside ours show as 0.
            if pid > 0 {
                pids.insert(pid);
            } else {
                foreign = true;
            }
        }
    }
    Ok(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::testing::Tree;

    #[test]
    fn processes_of_all_hierarchies_and_below_are_told_once() {
        for tree in [Tree::v1(), Tree::hybrid()] {
            let path = Path::new("/pod/c");
            assert_eq!(tree.cgroups().processes(path).unwrap(), [0; 0], "missing");
            tree.put("memory/pod/c/cgroup.procs", "12\n7\n");
            tree.put("pids/pod/c/cgroup.procs", "7\n");
            tree.put("pids/pod/c/exec/deep/cgroup.procs", "30\n0\n");
            tree.put("pids/pod/cgroup.procs", "99\n");
            assert_eq!(tree.cgroups().processes(path).unwrap(), [7, 12, 30]);
            assert!(tree.cgroups().is_populated(path).unwrap());
        }
        let tree = Tree::v2();
        tree.put("c/cgroup.procs", "5\n");
        tree.put("c/x/cgroup.procs", "4\n5\n");
        assert_eq!(tree.cgroups().processes(Path::new("/c")).unwrap(), [4, 5]);
    }

    #[test]
    fn populated_comes_from_the_events_where_there_are_some() {
        let tree = Tree::v2();
        let populated = || tree.cgroups().is_populated(Path::new("/c")).unwrap();
        assert!(!populated(), "missing");
        tree.put("c/cgroup.procs", "");
        assert!(!populated());
        tree.put("c/cgroup.events", "populated 1\nfrozen 0\n");
        assert!(populated());
        tree.put("c/cgroup.events", "populated 0\nfrozen 0\n");
        assert!(!populated());
    }

    #[test]
    fn names_are_found_in_every_hierarchy_once() {
        let tree = Tree::v1();
        for dir in ["pids/a/hull-1", "memory/a/hull-1", "memory/b/c/hull-2", "memory/b/other"] {
            tree.put(&format!("{dir}/cgroup.procs"), "");
        }
        let found = tree.cgroups().find(&|name| name.starts_with("hull-")).unwrap();
        assert_eq!(found, [Path::new("/a/hull-1"), Path::new("/b/c/hull-2")]);
    }

    #[test]
    fn a_process_without_a_pid_here_still_populates() {
        let tree = Tree::v1();
        tree.put("pids/c/cgroup.procs", "0\n");
        assert_eq!(tree.cgroups().processes(Path::new("/c")).unwrap(), [0; 0]);
        assert!(tree.cgroups().is_populated(Path::new("/c")).unwrap());
    }

    #[test]
    fn every_function_refuses_paths_that_leave_the_hierarchy() {
        let tree = Tree::v1();
        let (cgroups, path) = (tree.cgroups(), Path::new("/a/../../etc"));
        let results = [
            cgroups.create(path).err(),
            cgroups.add_process(path, 1).err(),
            cgroups.processes(path).err(),
            cgroups.is_populated(path).err(),
            cgroups.remove(path).err(),
            cgroups.create_exec(path, "x", crate::ExecScope::All).err(),
            cgroups.create_exec(Path::new("/a"), "../x", crate::ExecScope::All).err(),
            cgroups.stats(path).err(),
            cgroups.oom_kills(path).err(),
        ];
        for (n, result) in results.into_iter().enumerate() {
            assert!(matches!(result, Some(Error::InvalidPath { .. })), "{n}: {result:?}");
        }
    }
}
