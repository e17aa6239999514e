// SPDX-License-Identifier: Apache-2.0
//! How [`BridgeNetwork`](super::BridgeNetwork) is set up.

use std::path::PathBuf;
use std::time::Duration;

use super::names::{self, check_bridge_name};
use super::subnet::Subnet;
use crate::{Error, Result};

/// The name of the bridge where none is configured.
pub const DEFAULT_NAME: &str = "hull0";
/// The subnets where none are configured: private, and unlikely to be anybody else's.
pub const DEFAULT_SUBNETS: [&str; 2] = ["10.85.0.0/16", "fd85:6b1f:20d7:a55::/64"];

/// How [`BridgeNetwork`](super::BridgeNetwork) is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The bridge's name, at most 15 bytes; also the network's, and part of the firewall table's.
    pub name: String,
    /// One subnet, or one of each family; the first is the primary one.
    pub subnets: Vec<Subnet>,
    /// The MTU of bridge and pods; `None`: that of the default route's link, or 1500.
    pub mtu: Option<u32>,
    /// Where leases are kept, in a folder for each bridge.
    pub state_dir: PathBuf,
    /// Where leases go that cannot be read.
    pub quarantine: PathBuf,
    /// Firewall rules are written by this program; without a slash it is looked up in PATH.
    pub nft: PathBuf,
    /// How long it may take.
    pub nft_deadline: Duration,
}

// === impl BridgeConfig ===

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            subnets: default_subnets(),
            mtu: None,
            state_dir: PathBuf::from("/var/lib/hull/bridge"),
            quarantine: PathBuf::from("/var/lib/hull/quarantine"),
            nft: PathBuf::from("nft"),
            nft_deadline: Duration::from_secs(10),
        }
    }
}

impl BridgeConfig {
    pub(super) fn validate(&self) -> Result<()> {
        check_bridge_name(&self.name)
            .map_err(|problem| Error::Invalid(format!("bridge name {:?} {problem}", self.name)))?;
        check_subnets(&self.subnets)
            .map_err(|problem| Error::Invalid(format!("the bridge's subnets {problem}")))?;
        match self.mtu {
            Some(mtu) if !(LEAST_MTU..=LARGEST_MTU).contains(&mtu) => {
                Err(Error::Invalid(format!("an MTU is {LEAST_MTU} to {LARGEST_MTU}, not {mtu}")))
            }
            _ => Ok(()),
        }
    }

    /// What the bridge's alias says.
    pub(super) fn owner(&self) -> String {
        names::owner(&self.state_dir.to_string_lossy())
    }
}

/// The least MTU that IPv6 works with (RFC 8200, section 5).
pub const LEAST_MTU: u32 = 1280;
/// The largest that a bridge takes.
pub const LARGEST_MTU: u32 = 65_535;

/// The subnets where none are configured.
pub fn default_subnets() -> Vec<Subnet> {
    DEFAULT_SUBNETS.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Whether a bridge can have these subnets: one, or one of each family.
///
/// # Errors
/// What is wrong, in words that follow the key.
pub fn check_subnets(subnets: &[Subnet]) -> std::result::Result<(), String> {
    let of_ipv4 = subnets.iter().filter(|subnet| subnet.is_ipv4()).count();
    match (of_ipv4, subnets.len() - of_ipv4) {
        (0, 0) => Err("must have at least one subnet".to_owned()),
        (0 | 1, 0 | 1) => Ok(()),
        _ => Err("can have at most one subnet of each family (IPv4, IPv6)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_one_subnet_of_each_family() {
        assert_eq!(default_subnets().len(), DEFAULT_SUBNETS.len());
        BridgeConfig::default().validate().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let config = BridgeConfig::default;
        let twice = vec![config().subnets[0], "10.86.0.0/16".parse().unwrap()];
        for (config, part) in [
            (BridgeConfig { name: "a/b".into(), ..config() }, "a/b"),
            (BridgeConfig { subnets: vec![], ..config() }, "at least one"),
            (BridgeConfig { subnets: twice, ..config() }, "each family"),
            (BridgeConfig { mtu: Some(68), ..config() }, "1280"),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
