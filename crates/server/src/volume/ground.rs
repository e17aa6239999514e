// SPDX-License-Identifier: Apache-2.0
//! Whether a path can be looked at without waiting for anything outside of this kernel.
//!
//! The kernel's table of mounts tells the type of each file system without touching one. The path is followed part by part:
//! a part at which something foreign is mounted is not touched, nor what comes after it; a symlink is read, since it lies
//! on what was found local, and followed in the same way.
//!
//! A judgement, not a resolution: what is mounted or linked anew between it and the look costs a thread, as a dead disk does.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::mountinfo;
use crate::spec::SpecError;

/// File systems that are served by this kernel from its memory or its disks, by their names in mountinfo.
const LOCAL: &[&str] = &[
    "bcachefs",
    "binfmt_misc",
    "bpf",
    "btrfs",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "mqueue",
    "nilfs2",
    "nsfs",
    "ntfs3",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "udf",
    "vfat",
    "xfs",
    "zfs",
];

/// As the kernel's own limit.
const MOST_LINKS: usize = 40;

/// A file system that may not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) mount: PathBuf,
    pub(super) kind: String,
}

/// The mounts that matter: those that are foreign, and those of procfs, whose links lead out of this process's view.
#[derive(Debug, Default)]
pub(super) struct MountKinds(BTreeMap<PathBuf, String>);

// === impl MountKinds ===

impl MountKinds {
    /// Reads the table of this process.
    pub(super) fn read() -> Result<Self, SpecError> {
        Ok(Self::parse(&std::fs::read(mountinfo::TABLE).map_err(SpecError::mounts)?))
    }

    fn parse(table: &[u8]) -> Self {
        let mut kinds = BTreeMap::new();
        for row in mountinfo::rows(table) {
            let kind = String::from_utf8_lossy(row.kind);
            // What was mounted last on a point covers what was there.
            if kind != "proc" && LOCAL.contains(&kind.as_ref()) {
                kinds.remove(&row.point);
            } else {
                kinds.insert(row.point, kind.into_owned());
            }
        }
        Self(kinds)
    }

    /// What foreign file system a look at the path touches first, if any; with `tree` also below it.
    pub(super) fn foreign(&self, path: &Path, tree: bool) -> Option<Foreign> {
        let mut at = PathBuf::from("/");
        let mut rest = parts(path);
        let mut links = 0;
        if let Some(found) = self.mounted_at(&at) {
            return Some(found);
        }
        while let Some(part) = rest.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            if let Some(found) = self.mounted_at(&next) {
                return Some(found);
            }
            // An error here is an error for whoever looks; what would come after it is judged all the same.
            let is_link = std::fs::symlink_metadata(&next).is_ok_and(|meta| meta.is_symlink());
            let target = if is_link { std::fs::read_link(&next).ok() } else { None };
            let Some(target) = target else {
                at = next;
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return None;
            }
            if let Some(found) = self.leads_out(&at) {
                return Some(found);
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                rest.push_front(part);
            }
        }
        let below = |(point, kind): &(&PathBuf, &String)| tree && *kind != "proc" && point.starts_with(&at);
        self.0.iter().find(below).map(|(mount, kind)| Foreign { mount: mount.clone(), kind: kind.clone() })
    }

    fn mounted_at(&self, point: &Path) -> Option<Foreign> {
        let kind = self.0.get(point).filter(|kind| *kind != "proc")?;
        Some(Foreign { mount: point.to_owned(), kind: kind.clone() })
    }

    /// The links of a process (`/proc/PID/root`, `cwd`, `fd`) do not lead where their text says. Those of procfs itself do.
    fn leads_out(&self, dir: &Path) -> Option<Foreign> {
        let inside =
            |(point, kind): &(&PathBuf, &String)| *kind == "proc" && dir != *point && dir.starts_with(point);
        self.0.iter().find(inside).map(|(mount, kind)| Foreign { mount: mount.clone(), kind: kind.clone() })
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    /// The directory's own file system counts as local; these are mounted below it.
    fn kinds(dir: &Path, mounts: &[(&str, &str)]) -> MountKinds {
        let mut table =
            String::from("1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n2 1 0:5 / /proc rw - proc proc rw\n");
        for (point, kind) in mounts {
            let point = dir.join(point).display().to_string().replace(' ', "\\040");
            table.push_str(&format!("9 1 0:9 / {point} rw,noatime master:1 - {kind} server:/x rw\n"));
        }
        MountKinds::parse(table.as_bytes())
    }

    #[test]
    fn what_a_path_leads_onto_decides() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        for made in ["plain/sub", "vol/pod", "covered", "with space"] {
            std::fs::create_dir_all(dir.join(made)).unwrap();
        }
        symlink(dir.join("vol/pod/data"), dir.join("absolute")).unwrap();
        symlink("../vol/pod", dir.join("plain/relative")).unwrap();
        symlink("absolute", dir.join("twice")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let kinds = kinds(
            &dir,
            &[
                ("vol/pod", "nfs4"),
                ("covered", "fuse.sshfs"),
                ("covered", "tmpfs"),
                ("with space", "unheard-of"),
            ],
        );
        let vol = |kind: &str, mount: &str| Some(Foreign { mount: dir.join(mount), kind: kind.into() });
        let rows = [
            ("plain/sub", None),
            ("plain/missing/deep", None),
            ("vol", None),
            ("covered/x", None),
            ("loop", None),
            ("vol/pod", vol("nfs4", "vol/pod")),
            ("vol/pod/x/../../../plain", vol("nfs4", "vol/pod")),
            ("plain/sub/../../vol/./pod", vol("nfs4", "vol/pod")),
            ("plain/missing/../../vol/pod/x", vol("nfs4", "vol/pod")),
            ("plain/relative/x", vol("nfs4", "vol/pod")),
            ("twice", vol("nfs4", "vol/pod")),
            ("with space/x", vol("unheard-of", "with space")),
        ];
        for (path, expected) in rows {
            assert_eq!(kinds.foreign(&dir.join(path), false), expected, "{path}");
        }
        assert_eq!(
            kinds.foreign(&dir.join("vol"), true),
            vol("nfs4", "vol/pod"),
            "a tree has mounts below it"
        );
    }

    #[test]
    fn links_of_processes_lead_where_nobody_knows() {
        let kinds = kinds(Path::new("/nowhere"), &[]);
        assert_eq!(kinds.foreign(Path::new("/proc/self/status"), false), None);
        let found = kinds.foreign(Path::new("/proc/self/root/etc"), false).unwrap();
        assert_eq!(found.kind, "proc");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = MountKinds::parse(&bytes);
        }
    }
}
