// SPDX-License-Identifier: Apache-2.0
//! Installing the programs that Hull drives, on Debian and its relatives, and only those that are missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// What must be there, and the Debian package that brings it.
const NEEDED: [(Need, &str); 10] = [
    (Need::Program("runc"), "runc"),
    (Need::Program("crun"), "crun"),
    (Need::Program("conmon"), "conmon"),
    (Need::CniPlugins, "containernetworking-plugins"),
    (Need::StaticBusybox, "busybox-static"),
    (Need::Program("iptables"), "iptables"),
    (Need::Program("ip"), "iproute2"),
    (Need::Program("setpriv"), "util-linux"),
    (Need::Program("mount"), "mount"),
    (Need::Program("cc"), "gcc"),
];

#[derive(Debug, Clone, Copy)]
enum Need {
    Program(&'static str),
    CniPlugins,
    StaticBusybox,
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Program(name) => run::which(name).is_some(),
            Self::CniPlugins => cni_bin_dir().is_some(),
            Self::StaticBusybox => busybox_is_static(Path::new("/bin/busybox")),
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
    let needle = b"ld-linux";
    std::fs::read(path).is_ok_and(|bytes| !bytes.windows(needle.len()).any(|window| window == needle))
}

/// Brings what is missing.
///
/// Fails when something is missing and we are not root, or there is no apt-get, naming the packages.
pub(crate) fn missing_packages() -> Result<()> {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(need, _)| !need.is_met()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if run::uid()? != 0 {
        bail!("these packages are missing: {list}. Install them, or run this as root");
    }
    let Some(apt) = run::which("apt-get") else {
        bail!("these programs are missing and there is no apt-get here: install (Debian's names) {list}");
    };
    run::headline(&format!("Installing {list}"));
    run::run(apt_get(&apt).arg("update"))?;
    run::run(apt_get(&apt).args(["install", "--yes", "--no-install-recommends"]).args(&missing))
        .with_context(|| format!("install {list}"))?;
    let still: Vec<&str> =
        NEEDED.iter().filter(|(need, _)| !need.is_met()).map(|(_, package)| *package).collect();
    if !still.is_empty() {
        bail!("installed, and yet what these packages bring is not found: {}", still.join(" "));
    }
    Ok(())
}

fn apt_get(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_no_static_busybox() {
        // The test itself is linked dynamically.
        let own = std::env::current_exe().unwrap();
        assert!(!busybox_is_static(&own));
        assert!(!busybox_is_static(Path::new("/no/such/file")));
    }
}
