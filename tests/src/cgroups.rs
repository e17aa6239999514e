// SPDX-License-Identifier: Apache-2.0
//! The cgroup driver of the suites' daemons, and where it puts their pods.
//!
//! `HULL_TEST_CGROUP_DRIVER=systemd` has every real daemon use systemd's: for a machine where that is pid 1.

use std::path::{Path, PathBuf};

/// Who makes cgroups for real daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The daemon.
    Cgroupfs,
    /// systemd.
    Systemd,
}

impl Driver {
    /// What the environment says; cgroupfs where it says nothing.
    ///
    /// # Panics
    /// When it names another.
    pub fn wanted() -> Self {
        match std::env::var("HULL_TEST_CGROUP_DRIVER").as_deref() {
            Ok("systemd") => Self::Systemd,
            Ok("cgroupfs") | Err(_) => Self::Cgroupfs,
            Ok(other) => panic!("HULL_TEST_CGROUP_DRIVER={other}: systemd or cgroupfs"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// The cgroup of everything that one daemon's pods have, as a path from each hierarchy's root.
    pub(crate) fn above_pods(self, unique: &str) -> String {
        match self {
            Self::Cgroupfs => format!("/hull-test-{unique}"),
            // One level: a dash would make two of it.
            Self::Systemd => format!("/hulltest{unique}.slice"),
        }
    }
}

/// The cgroup parent of a pod below [`Driver::above_pods`], as the kubelet would name it.
pub fn pod(above: &str, name: &str) -> String {
    match above.strip_prefix('/').and_then(|above| above.strip_suffix(".slice")) {
        Some(stem) => format!("{stem}-{}.slice", name.replace('-', "_")),
        None => format!("{above}/{name}"),
    }
}

/// Where a process is in the version 2 tree.
pub fn of_process(pid: u32) -> PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    Path::new(path).to_owned()
}

/// After a test that failed: units without processes stay until they are stopped.
pub(crate) fn stop(above: &str) {
    if let Some(slice) = above.strip_prefix('/').filter(|above| above.ends_with(".slice")) {
        let stop = ["stop", "--no-block", slice];
        let _ =
            std::process::Command::new("systemctl").args(stop).stderr(std::process::Stdio::null()).status();
    }
}
