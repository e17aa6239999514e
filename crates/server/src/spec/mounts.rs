// SPDX-License-Identifier: Apache-2.0
//! What is mounted in a container, in which order.
//!
//! The kernel's file systems come first, then the pod's files, then what the kubelet asks for. A
//! container's own mount on one of the first two takes its place; on or above one of the kernel's it
//! also takes the place of what would lie below. The whole list is sorted by depth (stable), so that
//! nothing is covered by its own parent.

use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use hull_netns::UserMappings;
use oci_spec::runtime::Mount;

use super::{PodFiles, SpecError, SpecInput, process, security_context, userns};

/// The group that terminals belong to, everywhere.
const TTY: u32 = 5;

mod image;
mod propagation;
mod resolve;
#[cfg(test)]
mod tests;

pub use image::make_volumes;
pub use resolve::{check_mounts, find_host_path, is_image, resolve_mounts};

/// A mount whose source has been found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedMount {
    /// The path in the container: absolute, without `.` and `..`.
    pub destination: PathBuf,
    /// The path on the host: exists, absolute, without symlinks; of a mount that is only checked, as the kubelet names it.
    pub source: PathBuf,
    /// Whether it may not be written.
    pub readonly: bool,
    /// Whether that goes for what is mounted below it, too.
    pub recursive_read_only: bool,
    /// Which mounts made later on one side are seen on the other.
    pub propagation: Propagation,
    /// What ids of the source are inside, as in a user namespace with these ids; `None`: as the kernel has them.
    pub ids: Option<UserMappings>,
    /// Further options of the bind mount.
    pub options: Vec<&'static str>,
}

/// Which mounts made later on one side of a bind mount are seen on the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// The host's in the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

impl Propagation {
    fn option(self) -> &'static str {
        match self {
            Self::Private => "rprivate",
            Self::HostToContainer => "rslave",
            Self::Bidirectional => "rshared",
        }
    }
}

/// `linux.rootfsPropagation`: the root must not cut off what a mount in it wants. Empty unless needed:
/// runtimes differ in what they take.
pub(super) fn rootfs_propagation(mounts: &[ResolvedMount]) -> Option<&'static str> {
    let any = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    match (any(Propagation::Bidirectional), any(Propagation::HostToContainer)) {
        (true, _) => Some("rshared"),
        (false, true) => Some("rslave"),
        (false, false) => None,
    }
}

/// `mounts`.
pub(super) fn container_mounts(
    input: &SpecInput<'_>,
    privileged: bool,
    users: Option<&UserMappings>,
) -> Result<Vec<Mount>, SpecError> {
    let own = input.mounts;
    if own.len() != input.container.mounts.len() {
        // A caller's mistake that would drop a volume without a word.
        return Err(SpecError::invalid("mounts", "not every mount has been resolved"));
    }
    let read_only_root = security_context(input.container).is_some_and(|it| it.readonly_rootfs);
    let covered = |mount: &Mount| own.iter().any(|it| mount.destination().starts_with(&it.destination));
    let replaced = |mount: &Mount| own.iter().any(|it| *mount.destination() == it.destination);

    let mut list: Vec<Mount> =
        kernel_mounts(input, privileged, users).into_iter().filter(|it| !covered(it)).collect();
    list.extend(shm(input.files).filter(|it| !covered(it)));
    list.extend(pod_files(input.files, read_only_root).filter(|it| !replaced(it)));
    for mount in own {
        list.push(own_mount(mount)?);
    }
    list.sort_by_key(|mount| mount.destination().components().count());
    Ok(list)
}

/// The kernel's file systems. `/sys` and the cgroups are writable for the privileged alone.
fn kernel_mounts(input: &SpecInput<'_>, privileged: bool, users: Option<&UserMappings>) -> Vec<Mount> {
    let access = if privileged { "rw" } else { "ro" };
    let sysfs = match (users, &input.namespaces.network) {
        // A sysfs shows a network namespace, and only its owner may mount one.
        (Some(_), None) => {
            let read_only = if input.handler.recursive_read_only { "rro" } else { "ro" };
            bind("/sys", Path::new("/sys"), &["rbind", "rprivate", "nosuid", "noexec", "nodev", read_only])
        }
        _ => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
    };
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if users.is_none_or(|users| users.host_gid(TTY).is_some()) {
        terminals.push("gid=5");
    }
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        sysfs,
        mount("/dev/pts", "devpts", "devpts", &terminals),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ]
}

/// The pod's shared memory.
fn shm(files: &PodFiles) -> impl Iterator<Item = Mount> {
    let options = ["bind", "rw", "nosuid", "nodev", "noexec"];
    files.shm.iter().map(move |source| bind("/dev/shm", source, &options))
}

/// The pod's files. Writable as in any other container, unless the root is not; the node's own is never: what one
/// container wrote to it would hold for the whole node.
fn pod_files(files: &PodFiles, read_only: bool) -> impl Iterator<Item = Mount> {
    let access = if read_only { "ro" } else { "rw" };
    [
        ("/etc/resolv.conf", &files.resolv_conf, access),
        ("/etc/hostname", &files.hostname, access),
        ("/etc/hosts", &files.hosts, "ro"),
    ]
    .into_iter()
    .filter_map(move |(destination, source, access)| {
        let options = ["bind", access, "nosuid", "nodev", "noexec"];
        source.as_ref().map(|source| bind(destination, source, &options))
    })
}

fn own_mount(mount: &ResolvedMount) -> Result<Mount, SpecError> {
    let destination = mount.destination.to_str().filter(|it| it.starts_with('/') && *it != "/");
    let Some(destination) = destination else {
        let problem = format!("{} cannot be mounted on", mount.destination.display());
        return Err(SpecError::invalid("mounts.container_path", problem));
    };
    if !mount.source.is_absolute() {
        let problem = format!("{} is not an absolute path", mount.source.display());
        return Err(SpecError::invalid("mounts.host_path", problem));
    }
    let access = match (mount.readonly, mount.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let mut options = vec!["rbind", mount.propagation.option(), access];
    options.extend(&mount.options);
    let Some(ids) = &mount.ids else { return Ok(bind(destination, &mount.source, &options)) };
    options.push("idmap");
    let mut mapped = bind(destination, &mount.source, &options);
    mapped.set_uid_mappings(Some(userns::oci(&ids.uids)?)).set_gid_mappings(Some(userns::oci(&ids.gids)?));
    Ok(mapped)
}

fn bind(destination: &str, source: &Path, options: &[&str]) -> Mount {
    let mut bind = mount(destination, "bind", "", options);
    bind.set_source(Some(source.to_owned()));
    bind
}

/// A mount entry.
pub(super) fn mount(destination: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(|it| (*it).to_owned()).collect()));
    mount
}

/// A mount's path in the container, cleaned.
fn destination(mount: &v1::Mount) -> Result<PathBuf, SpecError> {
    let path = &mount.container_path;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(SpecError::invalid("mounts.container_path", format!("{path:?} is not an absolute path")));
    }
    let clean = process::clean(path);
    if clean == Path::new("/") {
        return Err(SpecError::invalid("mounts.container_path", "the container's root cannot be mounted on"));
    }
    Ok(clean)
}
