// SPDX-License-Identifier: Apache-2.0
//! Where pods and containers are in the cgroup tree, with either driver.
//!
//! ```text
//!            cgroupfs                              systemd
//! pod        what the kubelet says: /kubepods/..   .../kubepods-burstable-podUID.slice, made of the name
//!            or /hull/POD                          or /hull.slice/hull-POD.slice
//! container  hull-ID                               hull-ID.scope, made by the OCI runtime
//! monitor    hull-conmon-ID                        hull-conmon-ID.scope, made by Hull
//! runtime is told  the path                        SLICE:hull:ID and --systemd-cgroup
//! ```
//! Only paths are recorded: that one ends in `.slice` or `.scope` says that it is systemd's. So a container keeps
//! its driver when the configuration changes, and a new one gets that of its pod.

use std::path::{Path, PathBuf};

use hull_systemd::unit::{self, Kind, Unit};

use crate::config::CgroupDriver;
use crate::error::{Error, Result};

/// What stands before the id in the name of a container's cgroup.
const PREFIX: &str = "hull";

/// Where pods go that name no parent.
const OWN: &str = "/hull";
const OWN_SLICE: &str = "hull.slice";

/// The pod's cgroup as the kubelet names it.
pub(crate) fn parent(operation: &'static str, driver: CgroupDriver, parent: &str) -> Result<PathBuf> {
    let field = "config.linux.cgroup_parent";
    let invalid = |problem: String| Error::InvalidArgument { operation, field: field.to_owned(), problem };
    match driver {
        CgroupDriver::Systemd if !parent.ends_with(".slice") => Err(invalid(format!(
            "{parent} is no systemd slice, but cgroup_driver is \"systemd\": set the kubelet's cgroupDriver to \
             systemd; a slice is named as in kubepods-burstable-podUID.slice"
        ))),
        CgroupDriver::Systemd => unit::slice_of_parent(parent).map_err(|error| invalid(error.to_string())),
        CgroupDriver::Cgroupfs if parent.ends_with(".slice") => Err(invalid(format!(
            "{parent} is a systemd slice, but cgroup_driver is \"cgroupfs\": set the kubelet's cgroupDriver to cgroupfs"
        ))),
        CgroupDriver::Cgroupfs => {
            let absolute = if parent.starts_with('/') { parent.to_owned() } else { format!("/{parent}") };
            let path = crate::sandbox::request::clean_absolute(operation, field, &absolute)?;
            if path == Path::new("/") {
                return Err(invalid("must not be the root".to_owned()));
            }
            Ok(path)
        }
    }
}

/// The cgroup of a pod that names no parent: Hull's own to make and to remove.
pub(crate) fn own_parent(driver: CgroupDriver, id: &str) -> PathBuf {
    match driver {
        CgroupDriver::Cgroupfs => Path::new(OWN).join(id),
        CgroupDriver::Systemd => Path::new("/").join(OWN_SLICE).join(format!("{PREFIX}-{id}.slice")),
    }
}

/// Whether a path is where the cgroups of [`own_parent`] are.
pub(crate) fn holds_own_parents(path: &Path) -> bool {
    path.ends_with(OWN.trim_start_matches('/')) || path.ends_with(OWN_SLICE)
}

/// The cgroup of a container, or of a pod's pause.
pub(crate) fn container(parent: &Path, id: &str) -> PathBuf {
    below(parent, format!("{PREFIX}-{id}"))
}

/// The cgroup of its monitor.
pub(crate) fn monitor(parent: &Path, id: &str) -> PathBuf {
    below(parent, format!("{PREFIX}-conmon-{id}"))
}

fn below(parent: &Path, name: String) -> PathBuf {
    parent.join(if is_systemd(parent) { format!("{name}.scope") } else { name })
}

/// Whether systemd manages this cgroup.
pub(crate) fn is_systemd(path: &Path) -> bool {
    Unit::of(path).is_some()
}

/// What the OCI runtime is told: the path, or slice, prefix and name, of which it makes the same scope.
pub(crate) fn for_runtime(cgroup: &Path) -> PathBuf {
    let scope = Unit::of(cgroup).filter(|unit| unit.kind == Kind::Scope);
    let parts =
        scope.as_ref().and_then(|unit| Some((unit, unit.name.strip_suffix(".scope")?.split_once('-')?)));
    match parts {
        Some((unit, (prefix, name))) => PathBuf::from(format!("{}:{prefix}:{name}", unit.slice)),
        None => cgroup.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_driver_takes_its_own_form_and_refuses_the_other() {
        use CgroupDriver::{Cgroupfs, Systemd};
        for (driver, given, expected) in [
            (Cgroupfs, "/kubepods/burstable/pod1", Ok("/kubepods/burstable/pod1")),
            (Cgroupfs, "kubepods/pod1/", Ok("/kubepods/pod1")),
            (Cgroupfs, "kubepods-pod1.slice", Err("set the kubelet's cgroupDriver to cgroupfs")),
            (Cgroupfs, "/", Err("must not be the root")),
            (Cgroupfs, "/a/../b", Err("leaves its directory")),
            (Systemd, "kubepods-pod1.slice", Ok("/kubepods.slice/kubepods-pod1.slice")),
            (Systemd, "/kubepods.slice/kubepods-pod1.slice", Ok("/kubepods.slice/kubepods-pod1.slice")),
            (Systemd, "/kubepods/burstable/pod1", Err("set the kubelet's cgroupDriver to systemd")),
            (Systemd, "/kubepods/pod1.slice", Err("the slices in this path are not those")),
            (Systemd, "a b.slice", Err("is no unit of systemd")),
            (Systemd, "-.slice", Err("root slice")),
        ] {
            let answer = parent("RunPodSandbox", driver, given).map_err(|error| error.to_string());
            match expected {
                Ok(path) => assert_eq!(answer, Ok(PathBuf::from(path)), "{given}"),
                Err(words) => {
                    let error = answer.unwrap_err();
                    assert!(error.starts_with("RunPodSandbox: config.linux.cgroup_parent: "), "{error}");
                    assert!(error.contains(words), "{error}");
                }
            }
        }
    }

    #[test]
    fn the_runtime_makes_the_scope_that_is_looked_at() {
        let slice = Path::new("/kubepods.slice/kubepods-pod1.slice");
        assert_eq!(container(slice, "0a"), slice.join("hull-0a.scope"));
        assert_eq!(monitor(slice, "0a"), slice.join("hull-conmon-0a.scope"));
        assert_eq!(for_runtime(&container(slice, "0a")), Path::new("kubepods-pod1.slice:hull:0a"));
        let plain = Path::new("/kubepods/pod1");
        assert_eq!(container(plain, "0a"), Path::new("/kubepods/pod1/hull-0a"));
        assert_eq!(for_runtime(&container(plain, "0a")), Path::new("/kubepods/pod1/hull-0a"));
        assert!(is_systemd(&container(slice, "0a")) && !is_systemd(&container(plain, "0a")));
    }

    #[test]
    fn a_pod_without_a_parent_gets_one_of_the_drivers_kind() {
        for (driver, path) in
            [(CgroupDriver::Cgroupfs, "/hull/0a"), (CgroupDriver::Systemd, "/hull.slice/hull-0a.slice")]
        {
            let own = own_parent(driver, "0a");
            assert_eq!(own, Path::new(path));
            assert!(holds_own_parents(own.parent().unwrap()));
            assert_eq!(is_systemd(&own), driver == CgroupDriver::Systemd);
        }
        assert!(!holds_own_parents(Path::new("/kubepods.slice")));
    }
}
