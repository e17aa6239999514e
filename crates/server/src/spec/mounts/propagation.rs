// SPDX-License-Identifier: Apache-2.0
//! Whether a host path lies on a mount that propagates as a container wants it to.
//!
//! Optional fields of the table of mounts `shared:N` and `master:N` tell the propagation (proc(5)).

use std::path::{Path, PathBuf};

use super::{Propagation, ResolvedMount};
use crate::mountinfo;
use crate::spec::SpecError;

/// The mounts of this process, in the order in which they were made.
#[derive(Debug)]
pub(super) struct MountTable(Vec<MountPoint>);

#[derive(Debug)]
struct MountPoint {
    path: PathBuf,
    shared: bool,
    slave: bool,
}

impl MountTable {
    pub(super) fn read() -> Result<Self, SpecError> {
        Ok(Self::parse(&std::fs::read(mountinfo::TABLE).map_err(SpecError::mounts)?))
    }

    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self(mountinfo::rows(bytes).map(MountPoint::from).collect())
    }

    /// Whether the mount's source propagates as the mount wants.
    pub(super) fn check(&self, mount: &ResolvedMount) -> Result<(), SpecError> {
        // The last of those made at the longest matching path is the one on top.
        let holder = self
            .0
            .iter()
            .filter(|point| mount.source.starts_with(&point.path))
            .max_by_key(|point| point.path.components().count());
        let (fine, needed) = match (mount.propagation, holder) {
            (Propagation::Private, _) => (true, ""),
            (Propagation::Bidirectional, point) => (point.is_some_and(|it| it.shared), "a shared mount"),
            (Propagation::HostToContainer, point) => {
                (point.is_some_and(|it| it.shared || it.slave), "a shared or slave mount")
            }
        };
        if fine {
            return Ok(());
        }
        Err(SpecError::NotShared {
            source_path: mount.source.clone(),
            destination: mount.destination.clone(),
            mount_point: holder.map_or_else(|| Path::new("/").to_owned(), |point| point.path.clone()),
            needed,
        })
    }
}

impl From<mountinfo::Row<'_>> for MountPoint {
    fn from(row: mountinfo::Row<'_>) -> Self {
        let has = |prefix: &[u8]| row.optional.iter().any(|field| field.starts_with(prefix));
        Self { shared: has(b"shared:"), slave: has(b"master:"), path: row.point }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &[u8] = b"1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n\
        2 1 0:5 / /private rw - tmpfs tmpfs rw\n\
        3 1 0:6 / /slave rw,noatime master:1 - tmpfs tmpfs rw\n\
        4 1 0:7 / /with\\040space rw - tmpfs tmpfs rw\n\
        5 1 0:8 / /private rw shared:9 master:2 propagate_from:1 - tmpfs tmpfs rw\n\
        broken\n";

    fn check(source: &str, propagation: Propagation) -> Result<(), SpecError> {
        MountTable::parse(TABLE).check(&ResolvedMount {
            destination: PathBuf::from("/data"),
            source: PathBuf::from(source),
            readonly: false,
            recursive_read_only: false,
            propagation,
            ids: None,
            options: Vec::new(),
        })
    }

    #[test]
    fn the_mount_that_holds_the_path_decides() {
        use Propagation::{Bidirectional, HostToContainer, Private};
        let cases = [
            ("/data", Bidirectional, true),
            ("/data", HostToContainer, true),
            ("/slave/x", HostToContainer, true),
            ("/slave/x", Bidirectional, false),
            ("/slaves", Bidirectional, true),
            ("/with space", HostToContainer, false),
            ("/with space", Private, true),
            ("/private/deep/er", Bidirectional, true),
        ];
        for (source, propagation, fine) in cases {
            assert_eq!(check(source, propagation).is_ok(), fine, "{source} {propagation:?}");
        }
    }

    #[test]
    fn the_error_tells_what_to_do() {
        let error = check("/slave/x", Propagation::Bidirectional).unwrap_err();
        assert_eq!(
            error.to_string(),
            "mount of /slave/x at /data: the file system mounted at /slave is not a shared mount; \
             `mount --make-rshared /slave` on the host makes it so"
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = MountTable::parse(&bytes);
        }
    }
}
