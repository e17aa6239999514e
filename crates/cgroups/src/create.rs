// SPDX-License-Identifier: Apache-2.0
//! Making cgroups and moving processes into them.
//!
//! Others make and remove the same parents meanwhile: the pods that share one, another daemon, the kubelet. A directory
//! that was there a moment ago may be gone, in one hierarchy or in all, at each step of a creation, which then starts over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file::{self, io_error};
use crate::layout::Layout;
use crate::{Error, ExecScope, Mode, Result, path};

/// What a parent of version 2 hands down, where it is offered: what limits and statistics need.
const HANDED_DOWN: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];

/// How often a creation starts over after a parent was removed under it.
const TRIES: u32 = 50;
/// The pause before it does: whoever removes a shared parent needs a moment for all its hierarchies.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn create(layout: &Layout, path: &Path) -> Result<Vec<PathBuf>> {
    let below = path::relative(path)?;
    let mut made = Vec::new();
    let mut tries = 0;
    loop {
        tries += 1;
        match create_once(layout, &below, &mut made) {
            Ok(()) => break,
            Err(error) if tries < TRIES && was_removed(&error) => std::thread::sleep(PAUSE),
            Err(error) => {
                undo(&made);
                return Err(error);
            }
        }
    }
    made.sort_by_key(|dir| dir.components().count());
    Ok(made)
}

fn create_once(layout: &Layout, below: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let mut prefix = PathBuf::new();
    for component in below.components() {
        prefix.push(component);
        layout.roots().try_for_each(|root| make(layout, &root.join(&prefix), made))?;
    }
    Ok(())
}

/// Whether a directory vanished between two steps.
fn was_removed(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if file::is_gone(source))
}

pub(crate) fn create_exec(layout: &Layout, container: &Path, name: &str, scope: ExecScope) -> Result<()> {
    let below = path::below_root(container)?;
    path::child(container, name)?;
    let missing = || Error::Missing { root: layout.root.join("pids") };
    let roots: Vec<_> = match scope {
        ExecScope::All => layout.roots().collect(),
        // One tree holds every process, whether it counts them or not.
        ExecScope::Pids if layout.mode == Mode::V2 => layout.roots().collect(),
        ExecScope::Pids => vec![layout.root_of("pids").ok_or_else(missing)?],
    };
    // A runtime may leave hierarchies out (crun without the unified one): the exec follows its container.
    let parents: Vec<_> = roots.iter().map(|root| root.join(&below)).filter(|dir| dir.is_dir()).collect();
    if parents.is_empty() {
        return Err(Error::NotFound { path: container.to_owned() });
    }
    let mut made = Vec::new();
    for parent in parents {
        let dir = parent.join(name);
        // Not through `make`: handing controllers down would close a container of version 2 to processes.
        if let Err(error) = make_dir(&dir, &mut made).and_then(|()| fill_cpuset(layout, &dir)) {
            undo(&made);
            // The container ended meanwhile.
            return Err(if was_removed(&error) {
                Error::NotFound { path: container.to_owned() }
            } else {
                error
            });
        }
    }
    Ok(())
}

pub(crate) fn add_process(layout: &Layout, path: &Path, pid: i32) -> Result<()> {
    let below = path::relative(path)?;
    // Zero would move the writer, this very daemon.
    if pid <= 0 {
        let source = io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is no process id"));
        return Err(io_error("cannot add a process to", path, source));
    }
    let dirs: Vec<_> = layout.roots().map(|root| root.join(&below)).collect();
    // Looked at first, so that a process is not moved in some hierarchies alone.
    if let Some(missing) = dirs.iter().find(|dir| !dir.is_dir()) {
        return Err(Error::NotFound { path: missing.clone() });
    }
    for dir in dirs {
        let procs = dir.join("cgroup.procs");
        match file::write(&procs, &pid.to_string()) {
            Ok(()) => {}
            Err(error) if file::is_gone(&error) => return Err(Error::NotFound { path: dir }),
            Err(source) => return Err(io_error("cannot add a process to", &dir, source)),
        }
    }
    Ok(())
}

fn make(layout: &Layout, dir: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    // Not in hybrid mode, where the version 2 tree is there for its events and its kill alone.
    if layout.mode == Mode::V2
        && !dir.is_dir()
        && let Some(parent) = dir.parent()
    {
        hand_down(parent)?;
    }
    make_dir(dir, made)?;
    fill_cpuset(layout, dir)
}

fn make_dir(dir: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let result = hull_failpoint::failpoint!("cgroups.create.mkdir").and_then(|()| fs::create_dir(dir));
    match result {
        // A second try makes again what was removed after the first.
        Ok(()) if made.iter().any(|known| known == dir) => {}
        Ok(()) => made.push(dir.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return existing(dir, error),
        Err(source) => return Err(io_error("cannot make", dir, source)),
    }
    Ok(())
}

/// What was in the way of a directory is that directory; or it has just been removed, which is
/// [`io::ErrorKind::NotFound`]; or it is something else, which is an error.
fn existing(dir: &Path, taken: io::Error) -> Result<()> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(error) if file::is_gone(&error) => Err(io_error("cannot make", dir, error)),
        Ok(_) | Err(_) => Err(io_error("cannot make", dir, taken)),
    }
}

/// Enables controllers for the children of a cgroup that is about to get one.
///
/// One that is refused is no error: the cgroup's own parent may not hand it down, and the OCI runtime
/// reports what it needs for a limit that was asked for.
fn hand_down(dir: &Path) -> Result<()> {
    let control = dir.join("cgroup.subtree_control");
    let enabled = file::read(&control)?.unwrap_or_default();
    let offered = file::read(&dir.join("cgroup.controllers"))?.unwrap_or_default();
    for name in offered.split_ascii_whitespace().filter(|name| HANDED_DOWN.contains(name)) {
        if enabled.split_ascii_whitespace().any(|word| word == name) {
            continue;
        }
        // One by one: the kernel takes all words of a write or none.
        if let Err(error) = file::write(&control, &format!("+{name}")) {
            tracing::debug!(cgroup = %dir.display(), controller = name, %error, "a controller is not handed down");
        }
    }
    Ok(())
}

/// A new cpuset of version 1 is empty and takes no process until it has processors and memory nodes.
fn fill_cpuset(layout: &Layout, dir: &Path) -> Result<()> {
    let Some(parent) = dir.parent().filter(|_| layout.is_v1_cpuset(dir)) else { return Ok(()) };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(name);
        if file::read(&own)?.is_none_or(|text| !text.trim().is_empty()) {
            continue;
        }
        let inherited = file::read(&parent.join(name))?.unwrap_or_default();
        if !inherited.trim().is_empty() {
            file::write(&own, inherited.trim()).map_err(|source| io_error("cannot write", &own, source))?;
        }
    }
    Ok(())
}

/// Takes back what a failed creation made, the innermost first.
fn undo(made: &[PathBuf]) {
    for dir in made.iter().rev() {
        if let Err(error) = fs::remove_dir(dir) {
            tracing::warn!(cgroup = %dir.display(), %error, "a half-made cgroup stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn makes_every_hierarchy_and_tells_what_is_new_outermost_first() {
        let tree = Tree::hybrid();
        fs::create_dir(tree.root().join("memory/kubepods")).unwrap();
        let made = tree.cgroups().create(Path::new("/kubepods/c")).unwrap();
        assert_eq!(made.len(), 2 * tree.roots() - 1);
        let first_inner = made.iter().position(|dir| dir.ends_with("kubepods/c")).unwrap();
        assert!(made[..first_inner].iter().all(|dir| dir.ends_with("kubepods")));
        assert!(made[first_inner..].iter().all(|dir| dir.ends_with("kubepods/c")));
        assert!(!made.contains(&tree.root().join("memory/kubepods")), "it was there");
        assert!(tree.cgroups().create(Path::new("/kubepods/c")).unwrap().is_empty(), "all was there");
    }

    /// What the daemon does when the last pod of a shared parent goes while the first of another comes.
    #[test]
    fn parents_that_are_removed_meanwhile_are_made_again() {
        for tree in [Tree::v1(), Tree::hybrid()] {
            let layout = &tree.cgroups().layout;
            let ended = std::sync::atomic::AtomicBool::new(false);
            let prune = |path: &str| {
                layout.roots().for_each(|root| drop(fs::remove_dir(root.join(path))));
            };
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        prune("a/b");
                        prune("a");
                        // Pods come and go; they do not spin. A creation on a busy machine needs a chance.
                        std::thread::sleep(Duration::from_millis(10));
                    }
                });
                let made: Vec<_> = (0..200)
                    .map(|n| {
                        let path = PathBuf::from(format!("/a/b/c{n}"));
                        let made = tree.cgroups().create(&path);
                        let whole =
                            layout.roots().all(|root| root.join(path.strip_prefix("/").unwrap()).is_dir());
                        tree.cgroups().remove(&path).unwrap();
                        made.map(|made| {
                            (made.iter().filter(|dir| dir.ends_with(format!("c{n}"))).count(), whole)
                        })
                    })
                    .collect();
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
                for made in made {
                    assert_eq!(made.unwrap(), (tree.roots(), true));
                }
            });
        }
    }

    #[test]
    fn what_vanishes_while_it_is_in_the_way_is_gone_and_not_there() {
        let tree = Tree::v1();
        let taken = || io::Error::from(io::ErrorKind::AlreadyExists);
        let dir = tree.root().join("pids/a");
        assert!(was_removed(&existing(&dir, taken()).unwrap_err()));
        fs::create_dir(&dir).unwrap();
        existing(&dir, taken()).unwrap();
        tree.put("pids/file", "");
        assert!(!was_removed(&existing(&tree.root().join("pids/file"), taken()).unwrap_err()));
    }

    #[test]
    fn a_failed_creation_leaves_nothing() {
        let tree = Tree::v1();
        // The last hierarchy refuses.
        tree.put("systemd/a", "a file is in the way");
        let error = tree.cgroups().create(Path::new("/a/b")).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("systemd/a")), "{error}");
        assert!(!tree.root().join("cpu/a").exists() && !tree.root().join("pids/a").exists());
    }

    #[test]
    fn an_empty_cpuset_is_filled_along_the_path() {
        let tree = Tree::v1();
        tree.put("cpuset/cpuset.cpus", "0-3\n");
        tree.put("cpuset/cpuset.mems", "0\n");
        // What the kernel would put into new directories.
        tree.put("cpuset/a/cpuset.cpus", "\n");
        tree.put("cpuset/a/cpuset.mems", "0\n");
        tree.put("cpuset/a/b/cpuset.cpus", "\n");
        tree.cgroups().create(Path::new("/a/b")).unwrap();
        assert_eq!(tree.get("cpuset/a/cpuset.cpus"), "0-3");
        assert_eq!(tree.get("cpuset/a/cpuset.mems"), "0\n", "as its maker set it");
        assert_eq!(tree.get("cpuset/a/b/cpuset.cpus"), "0-3");
    }

    #[test]
    fn parents_of_version_2_hand_down_what_is_offered() {
        let tree = Tree::v2();
        tree.put("cgroup.subtree_control", "");
        tree.put("a/cgroup.controllers", "memory\n");
        tree.put("a/cgroup.subtree_control", "memory\n");
        tree.cgroups().create(Path::new("/a/b")).unwrap();
        assert_eq!(tree.get("a/cgroup.subtree_control"), "memory\n", "enabled already");
        assert_eq!(tree.get("cgroup.subtree_control"), "", "its child was there");
        tree.cgroups().create(Path::new("/c")).unwrap();
        // Each write to the plain file begins at its start: the last one shows.
        assert!(tree.get("cgroup.subtree_control").starts_with("+pids"));
    }

    #[test]
    fn an_exec_gets_its_cgroup_where_its_scope_says() {
        let (container, exec) = (Path::new("/c"), "c/exec-1");
        let has = |tree: &Tree, at: &str| tree.root().join(at).join(exec).is_dir();

        let tree = Tree::hybrid();
        let error = tree.cgroups().create_exec(container, "exec-1", ExecScope::Pids).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        tree.cgroups().create(container).unwrap();
        tree.cgroups().create_exec(container, "exec-1", ExecScope::Pids).unwrap();
        assert!(has(&tree, "pids") && !has(&tree, "memory") && !has(&tree, "unified"));
        tree.cgroups().create_exec(container, "exec-1", ExecScope::All).unwrap();
        assert!(has(&tree, "memory") && has(&tree, "cpuset") && has(&tree, "unified"));

        let tree = Tree::v2();
        tree.cgroups().create(container).unwrap();
        tree.cgroups().create_exec(container, "exec-1", ExecScope::Pids).unwrap();
        assert!(has(&tree, ""));
    }

    #[test]
    fn a_process_is_written_to_every_hierarchy_or_to_none() {
        let tree = Tree::v1();
        tree.cgroups().create(Path::new("/c")).unwrap();
        let procs: Vec<_> = tree.cgroups().layout.roots().map(|root| root.join("c/cgroup.procs")).collect();
        for file in &procs {
            fs::write(file, "").unwrap();
        }
        for pid in [0, -5] {
            assert!(tree.cgroups().add_process(Path::new("/c"), pid).is_err());
        }
        tree.cgroups().add_process(Path::new("/c"), 42).unwrap();
        assert!(procs.iter().all(|file| fs::read_to_string(file).unwrap() == "42"));
        fs::remove_dir_all(tree.root().join("systemd/c")).unwrap();
        let error = tree.cgroups().add_process(Path::new("/c"), 43).unwrap_err();
        assert!(matches!(&error, Error::NotFound { path } if path.ends_with("systemd/c")), "{error}");
        assert_eq!(fs::read_to_string(&procs[0]).unwrap(), "42");
    }
}
