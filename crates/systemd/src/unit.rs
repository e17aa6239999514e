// SPDX-License-Identifier: Apache-2.0
//! Names of slices and scopes, and where they are in the cgroup tree.
//!
//! ```text
//! kubepods-burstable-pod1.slice      a dash is a level of the tree (systemd.slice(5)):
//! /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice
//!
//! hull-ID.scope in that slice: the slice's path, and its own name
//! ```

use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

const SLICE: &str = ".slice";
const SCOPE: &str = ".scope";
/// The longest name of a unit (systemd.unit(5)): a file's.
const LONGEST: usize = 255;

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Holds slices and scopes.
    Slice,
    /// Holds processes that systemd did not start.
    Scope,
}

/// A unit by its place in the cgroup tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What it is.
    pub kind: Kind,
    /// Its name, with the suffix.
    pub name: String,
    /// The slice it is in; `-.slice` for the root.
    pub slice: String,
}

impl Unit {
    /// The unit whose cgroup this path is; `None` where systemd has no slice or scope there, as with every
    /// path of the cgroupfs driver.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_owned();
        let kind = match () {
            () if name.ends_with(SLICE) => Kind::Slice,
            () if name.ends_with(SCOPE) => Kind::Scope,
            () => return None,
        };
        check(&name).ok()?;
        let above = path.parent()?;
        let slice = match above.file_name() {
            None => "-.slice".to_owned(),
            Some(above) => above.to_str()?.to_owned(),
        };
        // A directory that is merely named like one, in a tree that is not systemd's.
        (slice_path(&slice).ok()? == above && (kind == Kind::Scope || slice_path(&name).ok()? == path))
            .then_some(Self { kind, name, slice })
    }
}

/// The path of a slice below the root of the cgroup tree.
///
/// # Errors
/// [`Error::InvalidUnit`] for what systemd would not take.
pub fn slice_path(name: &str) -> Result<PathBuf> {
    let invalid = |problem| Error::InvalidUnit { name: name.to_owned(), problem };
    check(name)?;
    let Some(stem) = name.strip_suffix(SLICE) else { return Err(invalid("a slice's name ends in .slice")) };
    let mut path = PathBuf::from("/");
    if stem == "-" {
        return Ok(path);
    }
    if stem.split('-').any(str::is_empty) {
        return Err(invalid(
            "between two dashes, before the first and after the last there must be something",
        ));
    }
    for (at, _) in stem.match_indices('-') {
        path.push(format!("{}{SLICE}", stem.get(..at).unwrap_or(stem)));
    }
    path.push(name);
    Ok(path)
}

/// The slice that is meant by a name, or by its whole path in the tree.
///
/// # Errors
/// [`Error::InvalidUnit`] for another path, and for the root: nobody's containers are put there.
pub fn slice_of_parent(parent: &str) -> Result<PathBuf> {
    let invalid = |problem| Error::InvalidUnit { name: parent.to_owned(), problem };
    let mut parts = Path::new(parent).components().filter(|part| *part != Component::RootDir);
    let Some(Component::Normal(name)) = parts.next_back() else {
        return Err(invalid("it names no slice"));
    };
    let path = slice_path(name.to_str().unwrap_or_default())?;
    if path == Path::new("/") {
        return Err(invalid("the root slice holds no containers"));
    }
    let is_name = parts.next_back().is_none() && !parent.contains('/');
    if !is_name && Path::new("/").join(parent) != path {
        return Err(invalid("the slices in this path are not those that its last name says"));
    }
    Ok(path)
}

/// What every unit's name obeys.
fn check(name: &str) -> Result<()> {
    let invalid = |problem| Err(Error::InvalidUnit { name: name.to_owned(), problem });
    if name.len() > LONGEST {
        return invalid("a unit's name is at most 255 bytes long");
    }
    let good = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
    if !name.chars().all(good) {
        return invalid("a unit's name holds letters, digits and :-_.\\ only");
    }
    if name == SLICE || name == SCOPE {
        return invalid("there is nothing before the suffix");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dash_is_a_level() {
        for (name, path) in [
            ("-.slice", Some("/")),
            ("a.slice", Some("/a.slice")),
            (
                "kubepods-burstable-pod1_2.slice",
                Some("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"),
            ),
            ("a.scope", None),
            ("a", None),
            (".slice", None),
            ("-a.slice", None),
            ("a-.slice", None),
            ("a--b.slice", None),
            ("a/b.slice", None),
            ("a b.slice", None),
            ("ä.slice", None),
            ("", None),
        ] {
            assert_eq!(slice_path(name).ok(), path.map(PathBuf::from), "{name:?}");
        }
        assert!(slice_path(&format!("{}.slice", "a".repeat(250))).is_err());
    }

    #[test]
    fn a_parent_is_a_name_or_the_path_that_the_name_says() {
        let path = "/kubepods.slice/kubepods-pod1.slice";
        for good in ["kubepods-pod1.slice", path, "kubepods.slice/kubepods-pod1.slice"] {
            assert_eq!(slice_of_parent(good).unwrap(), Path::new(path), "{good}");
        }
        for bad in [
            "",
            "/",
            "-.slice",
            "/kubepods/pod1",
            "/other.slice/kubepods-pod1.slice",
            "/kubepods-pod1.slice",
            "../a.slice",
        ] {
            assert!(slice_of_parent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cgroup_of_systemd_is_told_from_a_directory() {
        let unit = Unit::of(Path::new("/a.slice/a-b.slice/hull-1.scope")).unwrap();
        assert_eq!(
            (unit.kind, unit.name.as_str(), unit.slice.as_str()),
            (Kind::Scope, "hull-1.scope", "a-b.slice")
        );
        let unit = Unit::of(Path::new("/a.slice")).unwrap();
        assert_eq!((unit.kind, unit.slice.as_str()), (Kind::Slice, "-.slice"));
        for other in ["/", "/hull/1", "/kubepods/pod1", "/x/hull-1.scope", "/a.slice/b.slice", "a.slice"] {
            assert_eq!(Unit::of(Path::new(other)), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_slice_that_has_a_path_is_found_again_by_it(stem in "[a-z0-9_.-]{1,24}") {
            let name = format!("{stem}.slice");
            if let Ok(path) = slice_path(&name) && path != Path::new("/") {
                prop_assert_eq!(Unit::of(&path).map(|unit| unit.name), Some(name.clone()));
                prop_assert_eq!(slice_of_parent(&name).ok(), Some(path.clone()));
                prop_assert_eq!(slice_of_parent(path.to_str().unwrap()).ok(), Some(path));
            }
        }

        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,40}") {
            let _ = (slice_path(&text), slice_of_parent(&text), Unit::of(Path::new(&text)));
        }
    }
}
