// SPDX-License-Identifier: Apache-2.0
//! How [`CniNetwork`](super::CniNetwork) is set up.

use std::path::PathBuf;
use std::time::Duration;

use super::target::is_interface;
use crate::{Error, Result};

/// How [`CniNetwork`](super::CniNetwork) is set up. [`CniConfig::default`] is what a node commonly has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfig {
    /// The folder of network configurations; made (0755) if missing, and watched.
    pub conf_dir: PathBuf,
    /// The folders of plugins, in the order in which they are looked through; watched.
    pub bin_dirs: Vec<PathBuf>,
    /// The folder of results, this daemon's own: whatever is in it is taken for ours.
    pub cache_dir: PathBuf,
    /// Only the network of this name is used; `None`: the first usable file's.
    pub default_network: Option<String>,
    /// The interface's name inside pods, at most 15 bytes.
    pub interface: String,
    /// How long ADD (or CHECK) may take, all plugins of the network together.
    pub add_deadline: Duration,
    /// How long DEL may take, all plugins of the network together; also the bound of one collection
    /// of garbage on one network.
    pub del_deadline: Duration,
    /// How long VERSION and STATUS may take, each for all plugins of the network together.
    pub status_deadline: Duration,
    /// How often a ready network of version 1.1.0 or later is asked for its STATUS.
    pub status_interval: Duration,
    /// The most chains of ADD and CHECK at once; as many of DEL may run beside them.
    pub max_plugins: usize,
    /// No other runtime uses these networks: lets plugins drop, by the verb GC, whatever is not ours.
    pub exclusive: bool,
    /// Whether attach brings up `lo`. Off only for tests without a namespace.
    pub loopback: bool,
}

// === impl CniConfig ===

impl Default for CniConfig {
    fn default() -> Self {
        Self {
            conf_dir: PathBuf::from("/etc/cni/net.d"),
            bin_dirs: vec![PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")],
            cache_dir: PathBuf::from("/var/lib/hull/cni"),
            default_network: None,
            interface: "eth0".to_owned(),
            add_deadline: Duration::from_secs(180),
            del_deadline: Duration::from_secs(60),
            status_deadline: Duration::from_secs(10),
            status_interval: Duration::from_secs(30),
            max_plugins: 16,
            exclusive: false,
            loopback: true,
        }
    }
}

impl CniConfig {
    pub(super) fn validate(&self) -> Result<()> {
        if !is_interface(&self.interface) {
            return Err(Error::Invalid(format!("{:?} cannot name a network interface", self.interface)));
        }
        // CNI_PATH has no escapes.
        let bad = |dir: &&PathBuf| !dir.is_absolute() || dir.to_str().is_none_or(|text| text.contains(':'));
        if let Some(dir) = self.bin_dirs.iter().find(bad) {
            return Err(Error::Invalid(format!(
                "plugin folder {} cannot be told to plugins: expected an absolute path without a colon",
                dir.display()
            )));
        }
        Ok(())
    }
}
