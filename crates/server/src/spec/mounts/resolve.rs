// SPDX-License-Identifier: Apache-2.0
//! Checks the kubelet's mounts and finds their sources on the host.
//!
//! ```text
//! check_mounts --> find_host_path of each, which may hang: by `volume` --> resolve_mounts
//! ```

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use hull_failpoint::failpoint;
use hull_netns::UserMappings;

use super::propagation::MountTable;
use super::{Propagation, ResolvedMount, destination, image};
use crate::spec::{HandlerFacts, NodeFacts, SpecError, userns};

/// Options of a bind mount that a request may name.
const MOUNT_OPTIONS: [&str; 3] = ["noexec", "nodev", "nosuid"];

/// Checks the kubelet's mounts, all of them before anything is created; their sources are still as the kubelet names
/// them. `users` are the ids of the pod's own user namespace. Pure.
///
/// Errors: relative or empty paths, and [`SpecError::Unsupported`] for relabelling on a node with SELinux, and for mapped
/// ids and recursive read-only where the handler cannot.
pub fn check_mounts(
    mounts: &[v1::Mount],
    users: Option<&UserMappings>,
    facts: &NodeFacts,
    handler: &HandlerFacts,
) -> Result<Vec<ResolvedMount>, SpecError> {
    mounts.iter().map(|it| check(it, users, facts, handler)).collect()
}

/// The mounts with their sources: `host_paths` as [`find_host_path`] found them, in the order of those mounts that are not
/// of images; `images` are the mounted roots of images that are volumes, by the number of the mount.
///
/// Errors: a source whose file system does not propagate as wanted ([`SpecError::NotShared`]).
pub fn resolve_mounts(
    mounts: &[v1::Mount],
    checked: Vec<ResolvedMount>,
    host_paths: Vec<PathBuf>,
    images: &HashMap<usize, PathBuf>,
) -> Result<Vec<ResolvedMount>, SpecError> {
    let mut table = None;
    let mut host_paths = host_paths.into_iter();
    let mut resolved = Vec::with_capacity(checked.len());
    for (index, mut mount) in checked.into_iter().enumerate() {
        mount.source = match mounts.get(index).filter(|mount| is_image(mount)) {
            Some(asked) => image::resolve_source(images.get(&index).map(PathBuf::as_path), asked)?,
            // A caller's mistake.
            None => {
                host_paths.next().ok_or_else(|| SpecError::invalid("mounts", "a host path is not found"))?
            }
        };
        if mount.propagation != Propagation::Private {
            let table = match &table {
                Some(table) => table,
                None => table.insert(MountTable::read()?),
            };
            table.check(&mount)?;
        }
        resolved.push(mount);
    }
    Ok(resolved)
}

fn check(
    mount: &v1::Mount,
    users: Option<&UserMappings>,
    facts: &NodeFacts,
    handler: &HandlerFacts,
) -> Result<ResolvedMount, SpecError> {
    let at = &mount.container_path;
    if is_image(mount) {
        image::check(mount)?;
    } else if !mount.image_sub_path.is_empty() {
        let problem = format!("the mount at {at} is not one of an image");
        return Err(SpecError::invalid("mounts.image_sub_path", problem));
    }
    let ids = mapped_ids(mount, users, handler)?;
    if mount.selinux_relabel && facts.selinux {
        let reason = format!("mount at {at}: SELinux is enabled on this node, and labels are not set yet");
        return Err(SpecError::unsupported("mounts.selinux_relabel", reason));
    }
    let propagation = match v1::MountPropagation::try_from(mount.propagation) {
        Ok(v1::MountPropagation::PropagationPrivate) => Propagation::Private,
        Ok(v1::MountPropagation::PropagationHostToContainer) => Propagation::HostToContainer,
        Ok(v1::MountPropagation::PropagationBidirectional) => Propagation::Bidirectional,
        Err(_) => {
            let problem = format!("unknown value {} of the mount at {at}", mount.propagation);
            return Err(SpecError::invalid("mounts.propagation", problem));
        }
    };
    check_recursive_read_only(mount, propagation, handler)?;
    if !is_image(mount) && (!mount.host_path.starts_with('/') || mount.host_path.contains('\0')) {
        let problem = format!("{:?} of the mount at {at} is not an absolute path", mount.host_path);
        return Err(SpecError::invalid("mounts.host_path", problem));
    }
    Ok(ResolvedMount {
        destination: destination(mount)?,
        source: PathBuf::from(&mount.host_path),
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation,
        ids,
        options: mount_options(mount)?,
    })
}

/// Checks the further options of a bind mount. They only ever take rights away: "exec" would undo what the node's own
/// mount forbids, and all else has a field of its own.
fn mount_options(mount: &v1::Mount) -> Result<Vec<&'static str>, SpecError> {
    const FIELD: &str = "mounts.mount_options";
    let mut options = Vec::new();
    for asked in &mount.mount_options {
        let Some(option) = MOUNT_OPTIONS.into_iter().find(|option| option == asked) else {
            let at = &mount.container_path;
            let hint = match asked.as_str() {
                "ro" | "rw" => "; use the field readonly",
                "rro" => "; use the field recursive_read_only",
                "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => {
                    "; use the field propagation"
                }
                "idmap" | "ridmap" => "; use the fields uidMappings and gidMappings",
                _ => "",
            };
            let problem =
                format!("{asked:?} of the mount at {at} is not one of {}{hint}", MOUNT_OPTIONS.join(", "));
            return Err(SpecError::invalid(FIELD, problem));
        };
        if !options.contains(&option) {
            options.push(option);
        }
    }
    Ok(options)
}

/// An image's root is made for the pod's user namespace, and needs no mapping of its own.
fn mapped_ids(
    mount: &v1::Mount,
    users: Option<&UserMappings>,
    handler: &HandlerFacts,
) -> Result<Option<UserMappings>, SpecError> {
    let at = &mount.container_path;
    if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        return Ok(None);
    }
    for (field, given) in
        [("mounts.uidMappings", &mount.uid_mappings), ("mounts.gidMappings", &mount.gid_mappings)]
    {
        if given.is_empty() {
            let problem = format!("the mount at {at} maps the other kind of ids alone");
            return Err(SpecError::invalid(field, problem));
        }
    }
    let ids = userns::mappings(&mount.uid_mappings, &mount.gid_mappings);
    if let Err(error) = ids.validate_ranges() {
        return Err(SpecError::invalid("mounts.uidMappings", format!("mount at {at}: {error}")));
    }
    if is_image(mount) {
        if users == Some(&ids) {
            return Ok(None);
        }
        let problem = format!("the ids of the image at {at} are the pod's, and can be no others");
        return Err(SpecError::invalid("mounts.uidMappings", problem));
    }
    if !handler.user_namespaces {
        let reason = format!("mount at {at}: the runtime handler or the kernel cannot map the ids of mounts");
        return Err(SpecError::unsupported("mounts.uidMappings", reason));
    }
    Ok(Some(ids))
}

/// Whether an image is what is mounted.
pub fn is_image(mount: &v1::Mount) -> bool {
    mount.image.as_ref().is_some_and(|image| !image.image.is_empty())
}

/// The word `RROUnsupported` is what the kubelet looks for.
fn check_recursive_read_only(
    mount: &v1::Mount,
    propagation: Propagation,
    handler: &HandlerFacts,
) -> Result<(), SpecError> {
    const FIELD: &str = "mounts.recursive_read_only";
    let at = &mount.container_path;
    if !mount.recursive_read_only {
        return Ok(());
    }
    if !mount.readonly {
        return Err(SpecError::invalid(FIELD, format!("the mount at {at} must be readonly too")));
    }
    if propagation != Propagation::Private {
        return Err(SpecError::invalid(FIELD, format!("the mount at {at} must have private propagation")));
    }
    if !handler.recursive_read_only {
        let reason = format!("RROUnsupported: mount at {at}: the runtime handler or the kernel cannot");
        return Err(SpecError::unsupported(FIELD, reason));
    }
    Ok(())
}

/// Follows the symlinks of a host path, and creates a missing one as a directory (0755), which stays: others may have
/// begun to use it; unless it is not to be made. Blocks, on a dead file server for ever.
pub fn find_host_path(path: &Path, make: bool) -> Result<PathBuf, SpecError> {
    let failed = |step| move |source| SpecError::Io { step, path: path.to_owned(), source };
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !make => {
            let problem = format!("{} does not exist, and this node does not make it", path.display());
            Err(SpecError::invalid("mounts.host_path", problem))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            failpoint!("spec.mounts.create").map_err(failed("create the host path of a mount,"))?;
            hull_files::make_foreign_dir(path).map_err(failed("create the host path of a mount,"))?;
            std::fs::canonicalize(path).map_err(failed("resolve the host path of a mount,"))
        }
        found => found.map_err(failed("resolve the host path of a mount,")),
    }
}
