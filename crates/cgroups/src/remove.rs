// SPDX-License-Identifier: Apache-2.0
//! Removing cgroups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file::{self, io_error};
use crate::layout::Layout;
use crate::{Error, Result, path, walk};

/// The pauses between attempts: the kernel answers EBUSY for a moment after the last process has gone.
const PAUSES_MS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

pub(crate) fn remove(layout: &Layout, path: &Path) -> Result<()> {
    path::below_root(path)?;
    let mut waited = Duration::ZERO;
    for pause in PAUSES_MS.map(Duration::from_millis).map(Some).into_iter().chain([None]) {
        // Looked at before each attempt: nothing of a populated cgroup is removed, in no hierarchy.
        let populated = walk::is_populated(layout, path)?;
        let busy = if populated { Some(path.to_owned()) } else { attempt(layout, path)? };
        match (busy, pause) {
            (None, _) => return Ok(()),
            (Some(_), Some(pause)) => {
                std::thread::sleep(pause);
                waited += pause;
            }
            (Some(_), None) if populated => {
                let pids = walk::processes(layout, path)?.into_iter().collect();
                return Err(Error::Populated { path: path.to_owned(), after: waited, pids });
            }
            (Some(dir), None) => {
                return Err(io_error("cannot remove", &dir, io::Error::from_raw_os_error(EBUSY)));
            }
        }
    }
    Ok(())
}

const EBUSY: i32 = 16;

/// Removes what can be removed, children first; tells one directory that is busy.
fn attempt(layout: &Layout, path: &Path) -> Result<Option<PathBuf>> {
    let (mut busy, mut failed) = (None, None);
    for dir in walk::dirs(layout, path)? {
        for dir in walk::tree(&dir)?.into_iter().rev() {
            let removed =
                hull_failpoint::failpoint!("cgroups.remove.rmdir").and_then(|()| fs::remove_dir(&dir));
            match removed {
                Ok(()) => {}
                Err(error) if file::is_gone(&error) => {}
                Err(error) if error.raw_os_error() == Some(EBUSY) => busy = Some(dir),
                // The others are removed all the same; the first failure is told.
                Err(source) => failed = failed.or(Some(io_error("cannot remove", &dir, source))),
            }
        }
    }
    failed.map_or(Ok(busy), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn removes_what_is_below_in_every_hierarchy_and_nothing_else() {
        for tree in [Tree::v1(), Tree::hybrid(), Tree::v2()] {
            tree.cgroups().create(Path::new("/pod/c/x/y")).unwrap();
            tree.cgroups().create(Path::new("/pod/d")).unwrap();
            tree.cgroups().remove(Path::new("/pod/c")).unwrap();
            for root in tree.cgroups().layout.roots() {
                assert!(!root.join("pod/c").exists() && root.join("pod/d").is_dir());
            }
            tree.cgroups().remove(Path::new("/pod/c")).unwrap();
            assert!(matches!(tree.cgroups().remove(Path::new("/")), Err(Error::InvalidPath { .. })));
        }
    }

    #[test]
    fn a_populated_cgroup_stays_whole() {
        let tree = Tree::v1();
        tree.cgroups().create(Path::new("/c/empty")).unwrap();
        tree.put("pids/c/full/cgroup.procs", "77\n");
        let error = tree.cgroups().remove(Path::new("/c")).unwrap_err();
        assert!(matches!(&error, Error::Populated { pids, .. } if *pids == [77]), "{error}");
        assert!(tree.root().join("memory/c/empty").is_dir() && tree.root().join("pids/c/empty").is_dir());
    }

    #[test]
    fn one_that_cannot_be_removed_does_not_keep_the_others() {
        let tree = Tree::v1();
        tree.cgroups().create(Path::new("/c")).unwrap();
        tree.put("cpu/c/file", "a plain directory is not empty with a file in it");
        let error = tree.cgroups().remove(Path::new("/c")).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("cpu/c")), "{error}");
        assert!(!tree.root().join("memory/c").exists());
    }
}
