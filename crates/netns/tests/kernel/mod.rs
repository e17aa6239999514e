// SPDX-License-Identifier: Apache-2.0
//! Private folders for the kernel's namespaces, checked for remains.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_netns::contract::Subject;
use hull_netns::{
    CreateRequest, Helper, IdMapping, LinuxConfig, LinuxNetNs, NetNsManager, UserMappings, helper,
};
use nix::mount::{MntFlags, umount2};

/// Private folders, checked for remains and unmounted at the end.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) dir: tempfile::TempDir,
}

impl Kernel {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn config(&self) -> LinuxConfig {
        LinuxConfig {
            netns_dir: self.dir.path().join("netns"),
            prefix: "hull-".to_owned(),
            ns_dir: self.dir.path().join("ns"),
            helper: Helper {
                program: env!("CARGO_BIN_EXE_hull-netns-helper").into(),
                args: vec![helper::ARGUMENT.into()],
            },
        }
    }

    pub(crate) fn manager(&self) -> LinuxNetNs {
        LinuxNetNs::new(self.config())
    }

    pub(crate) fn pin(&self, id: &str) -> PathBuf {
        self.dir.path().join("netns").join(format!("hull-{id}"))
    }

    pub(crate) fn mounts(&self) -> Vec<String> {
        mounts_below(self.dir.path())
    }

    /// Nothing is left but the one mount of the folder on itself, which is then taken away.
    fn finish(self) {
        let netns_dir = self.dir.path().join("netns");
        assert!(fs::read_dir(&netns_dir).map_or(true, |mut entries| entries.next().is_none()));
        let ns_dir = self.dir.path().join("ns");
        assert!(fs::read_dir(&ns_dir).map_or(true, |mut entries| entries.next().is_none()));
        let left = self.mounts();
        assert!(left.len() <= 1, "stacked or left mounts: {left:#?}");
        if !left.is_empty() {
            umount2(&netns_dir, MntFlags::MNT_DETACH).unwrap();
        }
        assert!(self.mounts().is_empty());
        self.dir.close().unwrap();
    }
}

impl Subject for Kernel {
    fn open(&self) -> Arc<dyn NetNsManager> {
        Arc::new(self.manager())
    }

    fn leave_file(&self, _: &Arc<dyn NetNsManager>, id: &str) {
        fs::create_dir_all(self.dir.path().join("netns")).unwrap();
        File::create(self.pin(id)).unwrap();
    }
}

pub(crate) fn root_tests_enabled() -> bool {
    if std::env::var_os("HULL_ROOT_TESTS").is_none_or(|value| value != "1") {
        return false;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(uid.split_whitespace().nth(2) == Some("0"), "HULL_ROOT_TESTS=1 needs root");
    true
}

fn mounts_below(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    info.lines().filter(|l| l.split(' ').nth(4).unwrap().starts_with(dir)).map(str::to_owned).collect()
}

pub(crate) fn run(test: impl AsyncFnOnce(&Kernel)) {
    let kernel = Kernel::new();
    runtime().block_on(test(&kernel));
    kernel.finish();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn everything(id: &str) -> CreateRequest {
    CreateRequest {
        id: id.to_owned(),
        network: true,
        ipc: true,
        uts: true,
        hostname: "pod-a".to_owned(),
        ..Default::default()
    }
}

/// As [`everything`], in a user namespace.
pub(crate) fn with_user(id: &str) -> CreateRequest {
    let ids = vec![IdMapping { container_id: 0, host_id: 100_000, length: 65536 }];
    CreateRequest { user: Some(UserMappings { uids: ids.clone(), gids: ids }), ..everything(id) }
}

macro_rules! root_test {
    ($name:ident, $body:expr) => {
        #[test]
        fn $name() {
            if !$crate::kernel::root_tests_enabled() {
                eprintln!("skipped: set HULL_ROOT_TESTS=1");
                return;
            }
            $crate::kernel::run($body);
        }
    };
}
pub(crate) use root_test;
