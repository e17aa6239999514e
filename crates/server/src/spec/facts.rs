// SPDX-License-Identifier: Apache-2.0
//! What the machine, this daemon and the OCI runtime can do.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hull_cgroups::Mode;
use oci_spec::runtime::{Capabilities, Capability};

use super::{SpecError, capabilities};

/// What this machine and this daemon can do. Read once, at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The capabilities that the daemon can pass on: permitted and in the bounding set.
    pub capabilities: Capabilities,
    /// The daemon's own `oom_score_adj`.
    pub oom_score_adj: i32,
    /// The processor.
    pub arch: Arch,
    /// The kernel's version, major and minor.
    pub kernel: (u32, u32),
    /// How cgroups are mounted.
    pub cgroup: Mode,
    /// Whether swap is accounted, so that a swap limit can be set.
    pub swap_accounting: bool,
    /// Whether there is a hugetlb controller.
    pub hugetlb: bool,
    /// Whether AppArmor is enabled.
    pub apparmor: bool,
    /// Whether SELinux is enabled.
    pub selinux: bool,
}

/// Processors that the built-in seccomp profile knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64, with its 32-bit and x32 callers.
    X86_64,
    /// 64-bit ARM, with its 32-bit callers.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
    /// Another one: filtered for native calls alone.
    Other,
}

/// What an OCI runtime can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandlerFacts {
    /// Whether seccomp is compiled in.
    pub seccomp: bool,
    /// Whether the mount option `rro` works, in the runtime and in the kernel.
    pub recursive_read_only: bool,
    /// Whether pods can have a user namespace, and mounts other ids: in the runtime, in the kernel and on the
    /// file system of containers' roots.
    pub user_namespaces: bool,
    /// The least memory limit, in bytes, in which the runtime itself can start a process.
    pub min_memory: i64,
}

impl NodeFacts {
    /// Reads them from `/proc` and `/sys`. The cgroup mode comes from who manages cgroups.
    pub fn detect(cgroup: Mode) -> Result<Self, SpecError> {
        let status = read(Path::new("/proc/self/status"))?;
        let permitted = status_mask(&status, "CapPrm:") & status_mask(&status, "CapBnd:");
        let adj = read(Path::new("/proc/self/oom_score_adj"))?;
        let (swap, hugetlb) = match cgroup {
            Mode::V2 => (
                Path::new("/proc/swaps").exists() && has_v2_swap(),
                read(Path::new("/sys/fs/cgroup/cgroup.controllers"))
                    .is_ok_and(|all| all.split_whitespace().any(|name| name == "hugetlb")),
            ),
            Mode::V1 | Mode::Hybrid => (
                Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
                Path::new("/sys/fs/cgroup/hugetlb").is_dir(),
            ),
        };
        let enabled = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "Y");
        Ok(Self {
            capabilities: capabilities::from_mask(permitted),
            oom_score_adj: adj.trim().parse().unwrap_or(0),
            arch: Arch::current(),
            kernel: kernel_version(&rustix::system::uname().release().to_string_lossy()),
            cgroup,
            swap_accounting: swap,
            hugetlb,
            apparmor: enabled("/sys/module/apparmor/parameters/enabled"),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        })
    }

    /// Whether the daemon may raise limits and lower oom scores.
    pub fn can_raise_limits(&self) -> bool {
        self.capabilities.contains(&Capability::SysResource)
    }
}

impl Arch {
    /// The one this was compiled for.
    pub fn current() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::X86_64,
            "aarch64" => Self::Aarch64,
            "riscv64" => Self::Riscv64,
            _ => Self::Other,
        }
    }
}

impl Default for HandlerFacts {
    /// What every runtime in use can do. The memory is runc's need; crun gets by with 512 KiB.
    fn default() -> Self {
        Self { seccomp: true, recursive_read_only: false, user_namespaces: false, min_memory: 12 << 20 }
    }
}

/// Swap files exist for every cgroup but the root, if at all: the own cgroup tells.
fn has_v2_swap() -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new("/sys/fs/cgroup").join(path).join("memory.swap.max").exists()
}

fn read(path: &Path) -> Result<String, SpecError> {
    std::fs::read_to_string(path).map_err(|source| SpecError::Io {
        step: "read",
        path: PathBuf::from(path),
        source,
    })
}

fn status_mask(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    u64::from_str_radix(value.trim(), 16).unwrap_or(0)
}

/// `6.1.0-18-amd64` is (6, 1). What is no version is (0, 0): the oldest kernel there is.
pub(super) fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The capabilities of both sets.
pub(super) fn both(left: &Capabilities, right: &Capabilities) -> Capabilities {
    left.intersection(right).copied().collect::<HashSet<_>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        let cases = [
            ("6.1.0-18-amd64", (6, 1)),
            ("5.15", (5, 15)),
            ("6.18.44-fc-v657", (6, 18)),
            ("", (0, 0)),
            ("banana", (0, 0)),
            ("7", (7, 0)),
        ];
        for (release, version) in cases {
            assert_eq!(kernel_version(release), version, "{release}");
        }
    }

    #[test]
    fn own_facts_can_be_read() {
        let facts = NodeFacts::detect(Mode::V1).unwrap();
        assert!(facts.kernel >= (4, 0), "{:?}", facts.kernel);
        assert!((-1000..=1000).contains(&facts.oom_score_adj));
    }
}
