// SPDX-License-Identifier: Apache-2.0
//! Installing the programs that Hull drives, on Debian and its relatives, and only those that are missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// What must be there for every command, and the Debian package that brings it.
const NEEDED: [(Need, &str); 12] = [
    (Need::Program("runc"), "runc"),
    (Need::Program("crun"), "crun"),
    (Need::Program("conmon"), "conmon"),
    (Need::CniPlugins, "containernetworking-plugins"),
    (Need::StaticBusybox, "busybox-static"),
    (Need::Program("iptables"), "iptables"),
    (Need::Program("nft"), "nftables"),
    (Need::Program("docker-registry"), "docker-registry"),
    (Need::Program("ip"), "iproute2"),
    (Need::Program("setpriv"), "util-linux"),
    (Need::Program("mount"), "mount"),
    (Need::Program("cc"), "gcc"),
];

/// What critest and its images need beside that.
const CONFORMANCE: [(Need, &str); 4] = [
    (Need::Program("nginx"), "nginx-light"),
    (Need::Program("ipcmk"), "util-linux"),
    (Need::Program("ldd"), "libc-bin"),
    (Need::StaticLibc, "libc6-dev"),
];

/// What a kubelet and an API server need beside the images of conformance: a signing key, host ports.
const KUBELET: [(Need, &str); 2] =
    [(Need::Program("openssl"), "openssl"), (Need::Program("iptables"), "iptables")];

/// What youki is built with.
const YOUKI: [(Need, &str); 1] = [(Need::Header("/usr/include/seccomp.h"), "libseccomp-dev")];

/// What a current runc is built with.
const RUNC: [(Need, &str); 3] = [
    (Need::Program("cc"), "gcc"),
    (Need::Program("pkg-config"), "pkg-config"),
    (Need::Library("libseccomp"), "libseccomp-dev"),
];

/// What a virtual environment of Python is made with.
const PYTHON: [(Need, &str); 2] = [(Need::Program("python3"), "python3"), (Need::PythonVenv, "python3-venv")];

/// What the guest of `cargo xtask test-cgroup2` is made of.
const CGROUP2: [(Need, &str); 6] = [
    (Need::Program("qemu-system-x86_64"), "qemu-system-x86"),
    (Need::Program("depmod"), "kmod"),
    (Need::Program("mkswap"), "util-linux"),
    (Need::Program("dbus-daemon"), "dbus"),
    (Need::File("/usr/lib/systemd/systemd"), "systemd"),
    (Need::File("/usr/share/dbus-1/system.conf"), "dbus-system-bus-common"),
];

#[derive(Debug, Clone, Copy)]
enum Need {
    File(&'static str),
    Program(&'static str),
    /// By its name for pkg-config.
    Library(&'static str),
    CniPlugins,
    StaticBusybox,
    StaticLibc,
    Header(&'static str),
    PythonVenv,
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::File(path) => Path::new(path).is_file(),
            Self::Program(name) => run::which(name).is_some(),
            Self::Library(name) => run::capture(Command::new("pkg-config").args(["--exists", name])).is_ok(),
            Self::CniPlugins => cni_bin_dir().is_some(),
            Self::StaticBusybox => busybox_is_static(Path::new("/bin/busybox")),
            Self::StaticLibc => can_link_statically(),
            Self::Header(path) => Path::new(path).is_file(),
            Self::PythonVenv => {
                run::capture(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
            }
        }
    }
}

/// Where the reference CNI plugins are: Debian's place, or the one that upstream archives use.
pub(crate) fn cni_bin_dir() -> Option<&'static str> {
    ["/usr/lib/cni", "/opt/cni/bin"].into_iter().find(|dir| {
        ["bridge", "host-local", "portmap", "loopback"].iter().all(|name| Path::new(dir).join(name).is_file())
    })
}

/// An image made of a dynamic busybox would not start: the loader is not in it.
fn busybox_is_static(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| needs_loader(&bytes) == Some(false))
}

/// Whether an ELF program names a dynamic loader: has a program header of type PT_INTERP. `None`: not ELF.
///
/// ```text
///            64 bit   32 bit            each program header begins with its type, 4 bytes;
/// e_phoff     32..40   28..32           PT_INTERP is 3
/// e_phentsize 54..56   42..44
/// e_phnum     56..58   44..46           (elf(5))
/// ```
fn needs_loader(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    if !bytes.starts_with(b"\x7fELF") {
        return None;
    }
    let wide = *bytes.get(4)? == 2;
    let big = *bytes.get(5)? == 2;
    let number = |at: usize, size: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if big { field.iter().fold(0, add) } else { field.iter().rev().fold(0, add) })
    };
    let (offset, size, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    for index in 0..count {
        let at = usize::try_from(offset.checked_add(index * size)?).ok()?;
        if number(at, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

/// The compiler knows where it would find the archive; one that it does not find it names bare.
fn can_link_statically() -> bool {
    run::capture(Command::new("cc").arg("-print-file-name=libc.a")).is_ok_and(|path| path.contains('/'))
}

/// Brings what is missing of what every command needs.
///
/// Fails when something is missing and we are not root, or there is no apt-get, naming the packages.
pub(crate) fn missing_packages() -> Result<()> {
    bring(&NEEDED)
}

/// Brings what is missing for `cargo xtask conformance`; fails as [`missing_packages`].
pub(crate) fn conformance_packages() -> Result<()> {
    bring(&[&NEEDED[..], &CONFORMANCE].concat())
}

/// Brings what is missing for `cargo xtask kubelet`; fails as [`missing_packages`].
pub(crate) fn kubelet_packages() -> Result<()> {
    bring(&[&NEEDED[..], &CONFORMANCE, &KUBELET].concat())
}

/// Brings what youki is built with; fails as [`missing_packages`].
pub(crate) fn youki_packages() -> Result<()> {
    bring(&YOUKI)
}

/// Brings what is missing to build a current runc; fails as [`missing_packages`].
pub(crate) fn runc_packages() -> Result<()> {
    bring(&RUNC)
}

/// Brings what is missing for a virtual environment of Python; fails as [`missing_packages`].
pub(crate) fn python_packages() -> Result<()> {
    bring(&PYTHON)
}

/// Brings what is missing for `cargo xtask test-cgroup2`; fails as [`missing_packages`].
pub(crate) fn cgroup2_packages() -> Result<()> {
    bring(&[&NEEDED[..], &CGROUP2].concat())
}

fn bring(needed: &[(Need, &'static str)]) -> Result<()> {
    let missing = || -> Vec<&str> {
        needed.iter().filter(|(need, _)| !need.is_met()).map(|(_, package)| *package).collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if run::uid()? != 0 {
        bail!("these packages are missing: {list}. Install them, or run this as root");
    }
    let Some(apt) = run::which("apt-get") else {
        bail!("these programs are missing and there is no apt-get here: install (Debian's names) {list}");
    };
    run::headline(&format!("Installing {list}"));
    run::run(apt_get(&apt).arg("update"))?;
    run::run(apt_get(&apt).args(["install", "--yes", "--no-install-recommends"]).args(&packages))
        .with_context(|| format!("install {list}"))?;
    let still = missing();
    if !still.is_empty() {
        bail!("installed, and yet what these packages bring is not found: {}", still.join(" "));
    }
    Ok(())
}

fn apt_get(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
    // The programs are wanted, not the services that some packages would start with them.
    command.env("RUNLEVEL", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_no_static_busybox() {
        // The test itself is linked dynamically.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(needs_loader(&own), Some(true));
        assert!(!busybox_is_static(Path::new("/no/such/file")));
    }

    /// A program of 64 bits with these types of program headers.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = types.len() as u8;
        for kind in types {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.resize(bytes.len() + 52, 0);
        }
        bytes
    }

    #[test]
    fn a_loader_is_found_in_the_headers_alone() {
        assert_eq!(needs_loader(&elf(&[1, 3, 1])), Some(true));
        let mut plain = elf(&[1, 1]);
        plain.extend_from_slice(b"/lib64/ld-linux-x86-64.so.2");
        assert_eq!(needs_loader(&plain), Some(false), "a static glibc has the name in its text");
        assert_eq!(needs_loader(b"#!/bin/sh"), None);
        assert_eq!(needs_loader(&elf(&[1])[..66]), None, "cut off");
    }
}
