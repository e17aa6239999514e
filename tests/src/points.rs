// SPDX-License-Identifier: Apache-2.0
//! Every failpoint that the sources have, as the build found them.

/// A failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Its name; `*` stands for a part that is known at run time alone.
    pub name: &'static str,
    /// `CRATE/src/FILE:LINE`.
    pub place: &'static str,
}

/// All of them, by name.
pub fn all() -> Vec<Point> {
    let line = |line: &'static str| {
        let (name, place) = line.split_once(' ').expect("name and place");
        Point { name, place }
    };
    include_str!(concat!(env!("OUT_DIR"), "/points.txt")).lines().map(line).collect()
}

impl Point {
    /// Whether a name that was hit is this point.
    pub fn is(&self, hit: &str) -> bool {
        match self.name.split_once('*') {
            None => self.name == hit,
            Some((before, after)) => {
                hit.len() > before.len() + after.len() && hit.starts_with(before) && hit.ends_with(after)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_sources_are_read() {
        let points = all();
        for name in ["record.write.rename", "sandbox.run.network", "process.spawn.exec", "oci.*.spawn"] {
            assert!(points.iter().any(|point| point.name == name), "{name} is in no source");
        }
        assert!(points.iter().any(|point| point.is("oci.start.spawn")));
        assert!(!points.iter().any(|point| point.is("oci..spawn")));
    }

    #[test]
    fn names_say_where() {
        let crates: BTreeSet<&str> = all().iter().filter_map(|point| point.place.split('/').next()).collect();
        // Crates that write, spawn, mount or speak to a network; a crate without a point escapes the matrix.
        for name in
            ["cgroups", "conmon-client", "image-store", "netns", "oci-runtime", "pod-network", "process"]
                .into_iter()
                .chain(["record", "registry", "server", "streaming"])
        {
            assert!(crates.contains(name), "crate {name} has no failpoint");
        }
    }
}
