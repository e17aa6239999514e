// SPDX-License-Identifier: Apache-2.0
//! Device nodes and who may use them.
//!
//! [`find_devices`] looks at the host's nodes; the builder makes a node and a cgroup rule of each.
//! The runtime itself adds the harmless ones (null, zero, full, random, urandom, tty, ptmx).

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use serde::{Deserialize, Serialize};

use super::{SpecError, process};

/// A device that exists on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedDevice {
    /// The path in the container.
    pub path: PathBuf,
    /// Character or block.
    pub kind: DeviceKind,
    /// The device's number, first half.
    pub major: u32,
    /// The device's number, second half.
    pub minor: u32,
    /// Permission bits of the node.
    pub mode: u32,
    /// The node's owner.
    pub uid: u32,
    /// The node's group.
    pub gid: u32,
    /// What the cgroup allows: some of `r`, `w`, `m`.
    pub access: String,
}

/// Character or block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Bytes in a row.
    Char,
    /// Blocks at any place.
    Block,
}

/// Directories and nodes in /dev that belong to the host or that a container has of its own.
const NOT_FOR_PRIVILEGED: [&str; 5] = ["pts", "shm", "fd", "mqueue", "console"];

/// A directory this deep, or with this many nodes, is no directory of devices.
const DEEPEST: usize = 8;
const MOST: usize = 4096;

const FIELD: &str = "devices";

/// The devices of a container. A privileged one gets all of the host's /dev first; what it asks for by name, as
/// [`find_devices`] found it, comes over that. Blocks on files in /dev.
pub fn resolve_devices(
    asked: Vec<Vec<ResolvedDevice>>,
    privileged: bool,
) -> Result<Vec<ResolvedDevice>, SpecError> {
    let mut found = Vec::new();
    if privileged {
        let dev = Path::new("/dev");
        walk(dev, dev, "rwm", &NOT_FOR_PRIVILEGED, 0, &mut found)?;
    }
    for new in asked.into_iter().flatten() {
        found.retain(|old: &ResolvedDevice| old.path != new.path);
        found.push(new);
    }
    Ok(found)
}

/// A single node, under another path.
pub(super) fn look(host: &Path, inside: &Path, access: &str) -> Result<ResolvedDevice, SpecError> {
    let meta = fs::metadata(host).map_err(|source| io_error("look at device", host, source))?;
    node(&meta, inside, access)
        .ok_or_else(|| SpecError::invalid(FIELD, format!("{} is not a device", host.display())))
}

/// Finds a device on the host: a node, or every node below a directory. Blocks, on a dead file server for ever.
pub fn find_devices(device: &v1::Device) -> Result<Vec<ResolvedDevice>, SpecError> {
    let access = match device.permissions.as_str() {
        "" => "rwm",
        given if given.chars().all(|c| "rwm".contains(c)) => given,
        given => {
            let problem = format!("permissions {given:?} of {} are not some of \"rwm\"", device.host_path);
            return Err(SpecError::invalid(FIELD, problem));
        }
    };
    let host = Path::new(&device.host_path);
    let inside = if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
    for path in [&device.host_path, inside] {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(SpecError::invalid(FIELD, format!("{path:?} is not an absolute path")));
        }
    }
    let inside = process::clean(inside);
    // Followed: /dev/disk/by-id and the like are links.
    let meta = match fs::metadata(host) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SpecError::invalid(FIELD, format!("{} does not exist", host.display())));
        }
        meta => meta.map_err(|source| io_error("look at device", host, source))?,
    };
    if let Some(node) = node(&meta, &inside, access) {
        return Ok(vec![node]);
    }
    if !meta.is_dir() {
        return Err(SpecError::invalid(FIELD, format!("{} is not a device", device.host_path)));
    }
    let mut found = Vec::new();
    walk(host, &inside, access, &[], 0, &mut found)?;
    if found.is_empty() {
        return Err(SpecError::invalid(FIELD, format!("there is no device below {}", device.host_path)));
    }
    Ok(found)
}

/// Collects the nodes below a directory, in order of name. Links are not followed: what they lead to
/// is found by itself, or lies outside. A node that vanishes meanwhile (hotplug) is no error.
fn walk(
    host: &Path,
    inside: &Path,
    access: &str,
    skip: &[&str],
    depth: usize,
    found: &mut Vec<ResolvedDevice>,
) -> Result<(), SpecError> {
    let mut names: Vec<_> = fs::read_dir(host)
        .map_err(|source| io_error("list devices in", host, source))?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    for name in names.iter().filter(|name| !skip.iter().any(|it| *name == it)) {
        let (host, inside) = (host.join(name), inside.join(name));
        let Ok(meta) = fs::symlink_metadata(&host) else { continue };
        if meta.is_dir() && depth < DEEPEST {
            walk(&host, &inside, access, &[], depth + 1, found)?;
        } else if let Some(node) = node(&meta, &inside, access) {
            found.push(node);
        }
        if found.len() > MOST {
            return Err(SpecError::invalid(FIELD, format!("more than {MOST} devices")));
        }
    }
    Ok(())
}

fn node(meta: &Metadata, inside: &Path, access: &str) -> Option<ResolvedDevice> {
    let kind = match meta.file_type() {
        it if it.is_char_device() => DeviceKind::Char,
        it if it.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    Some(ResolvedDevice {
        path: inside.to_owned(),
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_owned(),
    })
}

fn io_error(step: &'static str, path: &Path, source: std::io::Error) -> SpecError {
    SpecError::Io { step, path: path.to_owned(), source }
}

/// `linux.devices`.
pub(super) fn nodes(devices: &[ResolvedDevice]) -> Option<Vec<LinuxDevice>> {
    let convert = |device: &ResolvedDevice| {
        let mut node = LinuxDevice::default();
        node.set_path(device.path.clone())
            .set_typ(device.kind.typ())
            .set_major(i64::from(device.major))
            .set_minor(i64::from(device.minor))
            .set_file_mode(Some(device.mode))
            .set_uid(Some(device.uid))
            .set_gid(Some(device.gid));
        node
    };
    Some(devices.iter().map(convert).collect::<Vec<_>>()).filter(|list| !list.is_empty())
}

/// `linux.resources.devices`: nothing but what is listed, or everything for the privileged.
pub(super) fn rules(devices: &[ResolvedDevice], privileged: bool) -> Vec<LinuxDeviceCgroup> {
    if privileged {
        return vec![rule(true, None, "rwm")];
    }
    let mut rules = vec![rule(false, None, "rwm")];
    rules.extend(devices.iter().map(allow));
    rules
}

/// The rule that lets a device be used.
pub(super) fn allow(device: &ResolvedDevice) -> LinuxDeviceCgroup {
    rule(true, Some(device), &device.access)
}

fn rule(allow: bool, device: Option<&ResolvedDevice>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(device.map(|it| it.kind.typ()))
        .set_major(device.map(|it| i64::from(it.major)))
        .set_minor(device.map(|it| i64::from(it.minor)))
        .set_access(Some(access.to_owned()));
    rule
}

impl DeviceKind {
    /// `c`, `u` (the same) or `b`.
    pub(super) fn named(letter: &str) -> Option<Self> {
        match letter {
            "c" | "u" => Some(Self::Char),
            "b" => Some(Self::Block),
            _ => None,
        }
    }

    fn typ(self) -> LinuxDeviceType {
        match self {
            Self::Char => LinuxDeviceType::C,
            Self::Block => LinuxDeviceType::B,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cri(host: &str, container: &str, permissions: &str) -> v1::Device {
        v1::Device {
            host_path: host.into(),
            container_path: container.into(),
            permissions: permissions.into(),
        }
    }

    fn resolve(devices: &[v1::Device], privileged: bool) -> Result<Vec<ResolvedDevice>, SpecError> {
        resolve_devices(devices.iter().map(find_devices).collect::<Result<_, _>>()?, privileged)
    }

    #[test]
    fn a_node_is_found() {
        let got = resolve(&[cri("/dev/null", "/dev/nothing", "rw")], false).unwrap();
        assert_eq!(got.len(), 1);
        let null = &got[0];
        assert_eq!((null.kind, null.major, null.minor), (DeviceKind::Char, 1, 3));
        assert_eq!((null.path.as_path(), null.access.as_str()), (Path::new("/dev/nothing"), "rw"));
        // The last of two for one path stays.
        let both = [cri("/dev/null", "/dev/x", ""), cri("/dev/zero", "/dev/x", "r")];
        let got = resolve(&both, false).unwrap();
        assert_eq!((got.len(), got[0].minor, got[0].access.as_str()), (1, 5, "r"));
    }

    #[test]
    fn what_is_refused() {
        let cases = [
            (
                cri("/dev/null", "/dev/null", "rx"),
                "devices: permissions \"rx\" of /dev/null are not some of \"rwm\"",
            ),
            (cri("dev/null", "", ""), "devices: \"dev/null\" is not an absolute path"),
            (cri("/dev/hull-none", "", ""), "devices: /dev/hull-none does not exist"),
            (cri("/etc/passwd", "", ""), "devices: /etc/passwd is not a device"),
        ];
        for (device, message) in cases {
            assert_eq!(resolve(&[device], false).unwrap_err().to_string(), message);
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(resolve(&[cri(empty.path().to_str().unwrap(), "", "")], false).is_err());
    }

    #[test]
    fn a_privileged_container_gets_the_hosts() {
        let got = resolve(&[], true).unwrap();
        assert!(got.iter().any(|it| it.path == Path::new("/dev/null")));
        for private in ["/dev/pts", "/dev/shm", "/dev/console", "/dev/mqueue"] {
            assert!(got.iter().all(|it| !it.path.starts_with(private)), "{private}");
        }
    }

    #[test]
    fn rules_deny_first() {
        let devices = resolve(&[cri("/dev/null", "", "rw")], false).unwrap();
        let shown = |privileged| {
            rules(&devices, privileged).iter().map(|it| (it.allow(), it.major())).collect::<Vec<_>>()
        };
        assert_eq!(shown(false), [(false, None), (true, Some(1))]);
        assert_eq!(shown(true), [(true, None)]);
        assert_eq!(nodes(&[]), None);
    }
}
