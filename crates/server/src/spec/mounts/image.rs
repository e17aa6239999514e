// SPDX-License-Identifier: Apache-2.0
//! Volumes that have to do with images: an image mounted as a volume, and directories that an image declares as
//! volumes. An image is hostile: its paths are looked up with its root as the end of the world.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use hull_cri_api::v1;
use hull_failpoint::failpoint;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::spec::{SpecError, process};

const SUB_PATH: &str = "mounts.image_sub_path";
/// Directories that one image may have made.
const MOST_VOLUMES: usize = 256;

/// What a mount of an image must be.
pub(super) fn check(mount: &v1::Mount) -> Result<(), SpecError> {
    let at = &mount.container_path;
    let refuse = |field: &str, problem: &str| {
        Err(SpecError::invalid(field, format!("{problem} the mount of an image at {at}")))
    };
    if !mount.readonly {
        return refuse("mounts.readonly", "must be set for");
    }
    if !mount.host_path.is_empty() {
        return refuse("mounts.host_path", "must be empty for");
    }
    if mount.propagation != v1::MountPropagation::PropagationPrivate as i32 {
        return refuse("mounts.propagation", "must be private for");
    }
    let sub_path = Path::new(&mount.image_sub_path);
    let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if mount.image_sub_path.contains('\0') || !sub_path.components().all(is_plain) {
        let problem = format!(
            "ImageVolumeMountFailed: {:?} of the mount at {at} is absolute or leads upwards",
            mount.image_sub_path
        );
        return Err(SpecError::invalid(SUB_PATH, problem));
    }
    Ok(())
}

/// The path on the host of what is mounted. The words `ImageVolumeMountFailed` are what the kubelet looks for.
pub(super) fn resolve_source(root: Option<&Path>, mount: &v1::Mount) -> Result<PathBuf, SpecError> {
    let name = mount.image.as_ref().map_or("", |image| image.image.as_str());
    let Some(root) = root else {
        // A caller's mistake.
        return Err(SpecError::invalid("mounts.image", format!("image {name:?} has not been mounted")));
    };
    if mount.image_sub_path.is_empty() {
        return Ok(root.to_owned());
    }
    let found = open_in_root(root, Path::new(&mount.image_sub_path), OFlags::PATH).and_then(|found| {
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        rustix::fs::readlink(link, Vec::new())
    });
    match found {
        Ok(path) => {
            let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
            // Moved meanwhile: rather nothing than something else.
            if path.starts_with(root) { Ok(path) } else { Err(missing(name, mount, "has moved")) }
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Err(missing(name, mount, "is not there")),
        Err(error) => Err(missing(name, mount, &error.to_string())),
    }
}

fn missing(image: &str, mount: &v1::Mount, problem: &str) -> SpecError {
    let sub_path = &mount.image_sub_path;
    SpecError::invalid(
        SUB_PATH,
        format!("ImageVolumeMountFailed: {sub_path:?} of image {image:?}: {problem}"),
    )
}

/// Makes the directories that an image declares as volumes (0755, `owner`'s: the host's ids of the pod's root) where they are missing: programs count
/// on them. What is there already, of whatever kind, is left as it is. Blocks on files.
pub fn make_volumes(rootfs: &Path, volumes: &[String], owner: (u32, u32)) -> Result<(), SpecError> {
    for volume in volumes.iter().take(MOST_VOLUMES) {
        let path = process::clean(volume);
        if volume.contains('\0') || path == Path::new("/") {
            continue;
        }
        make_in_root(rootfs, &path, owner).map_err(|errno| SpecError::Io {
            step: "make a volume of the image,",
            path: path.clone(),
            source: errno.into(),
        })?;
    }
    Ok(())
}

fn make_in_root(rootfs: &Path, path: &Path, owner: (u32, u32)) -> rustix::io::Result<()> {
    let mut parent = PathBuf::from("/");
    for name in path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    }) {
        let next = parent.join(name);
        match open_in_root(rootfs, &next, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                failpoint!("spec.volumes.mkdir").map_err(|_| Errno::IO)?;
                let dir = match open_in_root(rootfs, &parent, OFlags::PATH | OFlags::DIRECTORY) {
                    // A link to what the image does not have.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                    dir => dir?,
                };
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::mkdirat(&dir, name, mode)?;
                // The mask of the process took bits away.
                rustix::fs::chmodat(&dir, name, mode, AtFlags::empty())?;
                if owner != (0, 0) {
                    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
                    rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            // A file where a directory should be: the image's own affair.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error),
        }
        parent = next;
    }
    Ok(())
}

fn open_in_root(root: &Path, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, dir, Mode::empty())?;
    rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn mount(sub_path: &str) -> v1::Mount {
        v1::Mount {
            container_path: "/v".into(),
            readonly: true,
            image: Some(v1::ImageSpec { image: "data:1".into(), ..Default::default() }),
            image_sub_path: sub_path.into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_a_mount_of_an_image_must_be() {
        let cases = [
            (
                v1::Mount { readonly: false, ..mount("") },
                "mounts.readonly: must be set for the mount of an image at /v",
            ),
            (
                v1::Mount { host_path: "/x".into(), ..mount("") },
                "mounts.host_path: must be empty for the mount of an image at /v",
            ),
            (
                v1::Mount { propagation: 1, ..mount("") },
                "mounts.propagation: must be private for the mount of an image at /v",
            ),
            (
                mount("/etc"),
                "mounts.image_sub_path: ImageVolumeMountFailed: \"/etc\" of the mount at /v is absolute or leads upwards",
            ),
            (
                mount("a/../../x"),
                "mounts.image_sub_path: ImageVolumeMountFailed: \"a/../../x\" of the mount at /v is absolute or leads upwards",
            ),
        ];
        for (mount, message) in cases {
            assert_eq!(check(&mount).unwrap_err().to_string(), message);
        }
        check(&mount("a/./b")).unwrap();
    }

    #[test]
    fn a_sub_path_does_not_leave_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(root.parent().unwrap().join("outside")).unwrap();
        symlink("/a/b", root.join("absolute")).unwrap();
        symlink("../../outside", root.join("a/up")).unwrap();
        let resolve = |sub_path: &str| resolve_source(Some(&root), &mount(sub_path));
        assert_eq!(resolve("").unwrap(), root);
        assert_eq!(resolve("a/b").unwrap(), root.join("a/b"));
        assert_eq!(resolve("absolute").unwrap(), root.join("a/b"));
        for bad in ["none", "a/up"] {
            let error = resolve(bad).unwrap_err().to_string();
            assert!(error.contains("ImageVolumeMountFailed") && error.ends_with("is not there"), "{error}");
        }
        assert!(resolve_source(None, &mount("")).is_err());
    }

    #[test]
    fn declared_volumes_are_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let outside = dir.path().join("outside");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        let volumes = ["/data/deep", "relative", "/../up", "/link/x", "/file/x", "/"].map(str::to_owned);
        make_volumes(&root, &volumes, (0, 0)).unwrap();
        for made in ["data/deep", "relative", "up"] {
            assert!(root.join(made).is_dir(), "{made}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "x");
    }
}
