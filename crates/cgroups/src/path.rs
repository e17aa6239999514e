// SPDX-License-Identifier: Apache-2.0
//! Which paths name a cgroup.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// A cgroup's path without its leading slash; empty for the root. Nothing in it leads upwards.
pub(crate) fn relative(path: &Path) -> Result<PathBuf> {
    let invalid = |problem| Error::InvalidPath { path: path.to_owned(), problem };
    if !path.is_absolute() {
        return Err(invalid("it does not start with a slash"));
    }
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(invalid("it contains a NUL byte"));
    }
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(invalid("it contains `..`")),
        }
    }
    Ok(below)
}

/// As [`relative`], for what must not be done to the root.
pub(crate) fn below_root(path: &Path) -> Result<PathBuf> {
    let below = relative(path)?;
    if below.as_os_str().is_empty() {
        return Err(Error::InvalidPath { path: path.to_owned(), problem: "it is the root of the hierarchy" });
    }
    Ok(below)
}

/// The path of a cgroup called `name` below another.
pub(crate) fn child(parent: &Path, name: &str) -> Result<PathBuf> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        // Compared as text: components read over a trailing slash.
        (Some(Component::Normal(only)), None) if only == name && !name.contains('\0') => {
            Ok(parent.join(name))
        }
        _ => Err(Error::InvalidPath { path: parent.join(name), problem: "its last part is not one name" }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_absolute_paths_without_ways_up_are_taken() {
        for (path, expected) in [
            ("/", Some("")),
            ("/a/b", Some("a/b")),
            ("//a//b/", Some("a/b")),
            ("/a/./b", Some("a/b")),
            ("/a/..b", Some("a/..b")),
            ("a", None),
            ("", None),
            ("/a/../b", None),
            ("/..", None),
            ("/a\0b", None),
        ] {
            assert_eq!(relative(Path::new(path)).ok(), expected.map(PathBuf::from), "{path:?}");
        }
        assert!(below_root(Path::new("/")).is_err() && below_root(Path::new("/.")).is_err());
    }

    #[test]
    fn an_exec_is_one_name() {
        let parent = Path::new("/c");
        assert_eq!(child(parent, "exec-1").unwrap(), Path::new("/c/exec-1"));
        for name in ["", ".", "..", "a/b", "/a", "a/", "a\0"] {
            assert!(child(parent, name).is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_path_escapes(path in "[/.a]{0,12}") {
            if let Ok(below) = relative(Path::new(&path)) {
                prop_assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
