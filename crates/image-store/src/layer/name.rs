// SPDX-License-Identifier: Apache-2.0
//! Names of layer entries.

/// A cleaned name: components without `.`, `..` and empty ones.
pub(super) type Components<'a> = Vec<&'a [u8]>;

/// Cleans a name lexically; one that leaves the root, or has a NUL, is refused.
pub(super) fn clean(name: &[u8]) -> Result<Components<'_>, String> {
    if name.contains(&0) {
        return Err("its name has a NUL byte".to_owned());
    }
    let mut components: Components<'_> = Vec::new();
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop().ok_or("its name leaves the image's root")?;
            }
            name => components.push(name),
        }
    }
    Ok(components)
}

/// Where AUFS keeps files with several names, in the root of a layer; hard links of the layer name them there.
pub(super) const PLINKS: &[u8] = b".wh..wh.plnk";

/// What an entry's base name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Itself.
    Plain,
    /// The deletion of this name.
    Whiteout(&'a [u8]),
    /// Its directory hides what lower layers have there.
    Opaque,
    /// A file that AUFS kept for its hard links to it, in [`PLINKS`]: needed until the layer is unpacked.
    Aside,
    /// Another leftover of AUFS, or something in one.
    Skip,
}

pub(super) fn meaning<'a>(components: &[&'a [u8]]) -> Result<Meaning<'a>, String> {
    let Some((base, parents)) = components.split_last() else {
        return Ok(Meaning::Plain);
    };
    if parents == [PLINKS] && !base.starts_with(b".wh.") {
        return Ok(Meaning::Aside);
    }
    if parents.iter().any(|parent| parent.starts_with(b".wh..wh.")) {
        return Ok(Meaning::Skip);
    }
    match base.strip_prefix(b".wh.") {
        None => Ok(Meaning::Plain),
        Some(b".wh..opq") => Ok(Meaning::Opaque),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Meaning::Skip),
        Some(b"" | b"." | b"..") => Err("a whiteout of nothing".to_owned()),
        Some(name) => Ok(Meaning::Whiteout(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (name, cleaned) in [
            ("./etc/passwd", "etc/passwd"),
            ("/etc//passwd/", "etc/passwd"),
            ("a/../b", "b"),
            ("a/./b/..", "a"),
            ("./", ""),
            ("", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(name.as_bytes()).unwrap().join(&b'/'), cleaned.as_bytes(), "{name}");
        }
        for bad in ["..", "a/../..", "/../etc", "a\0b", "./../x"] {
            assert!(clean(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn markers_are_told_apart() {
        let of = |name: &'static str| meaning(&clean(name.as_bytes()).unwrap());
        assert_eq!(of("a/b"), Ok(Meaning::Plain));
        assert_eq!(of("a/.wh.b"), Ok(Meaning::Whiteout(b"b")));
        assert_eq!(of("a/.wh..hidden"), Ok(Meaning::Whiteout(b".hidden")));
        assert_eq!(of("a/.wh..wh..opq"), Ok(Meaning::Opaque));
        assert_eq!(of(".wh..wh.plnk"), Ok(Meaning::Skip));
        assert_eq!(of("./.wh..wh.plnk/1.2"), Ok(Meaning::Aside));
        assert_eq!(of(".wh..wh.plnk/d/1.2"), Ok(Meaning::Skip));
        assert_eq!(of("d/.wh..wh.plnk/1.2"), Ok(Meaning::Skip));
        assert_eq!(of(".wh..wh.plnk/.wh..wh.opq"), Ok(Meaning::Skip));
        assert_eq!(of(".wh..wh.aufs"), Ok(Meaning::Skip));
        for bad in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
