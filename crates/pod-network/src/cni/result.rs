// SPDX-License-Identifier: Apache-2.0
//! The result of ADD, of every version of the protocol, in one form.
//!
//! ```text
//! 0.1.0, 0.2.0         {cniVersion, ip4:{ip, gateway, routes[]}, ip6:{...}, dns}
//! 0.3.0 .. 0.4.0       {cniVersion, interfaces[], ips[] with version, routes[], dns}
//! 1.0.0                the same, ips[] without version
//! 1.1.0                interfaces[] with mtu, socketPath, pciID; routes[] with mtu, advmss, priority, ...
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::conf::{get, object};
use super::version::Version;

/// What a chain of plugins has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CniResult {
    pub(crate) version: Version,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Dns,
}

/// An interface, in the pod or on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Interface {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) mac: String,
    /// The network namespace; empty: on the host.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) sandbox: String,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) address: Cidr,
    pub(crate) gateway: Option<IpAddr>,
    /// Whose it is: an index into the interfaces.
    pub(crate) interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) dst: Cidr,
    pub(crate) gw: Option<IpAddr>,
}

/// Name resolution as the network wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Dns {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) nameservers: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) domain: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) search: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Vec<String>,
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

#[derive(Deserialize)]
struct RawIp {
    address: String,
    #[serde(default, deserialize_with = "or_default")]
    gateway: String,
    #[serde(default)]
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct RawRoute {
    dst: String,
    #[serde(default, deserialize_with = "or_default")]
    gw: String,
}

/// `ip4` and `ip6` of the first versions.
#[derive(Deserialize)]
struct RawFamily {
    ip: String,
    #[serde(default, deserialize_with = "or_default")]
    gateway: String,
    #[serde(default, deserialize_with = "or_default")]
    routes: Vec<RawRoute>,
}

// === impl CniResult ===

impl CniResult {
    /// Reads a result; one without a version is taken in that of the network.
    pub(crate) fn parse(bytes: &[u8], default: Version) -> Result<Self, String> {
        let object = object(bytes)?;
        let version = match get::<String>(&object, "cniVersion")?.filter(|text| !text.is_empty()) {
            None => default,
            Some(text) => {
                Version::parse(&text).ok_or_else(|| format!("\"cniVersion\" {text:?} is not known"))?
            }
        };
        let mut result = Self {
            version,
            interfaces: Vec::new(),
            ips: Vec::new(),
            routes: Vec::new(),
            dns: get(&object, "dns")?.unwrap_or_default(),
        };
        if version < Version::V0_3_0 {
            for family in ["ip4", "ip6"] {
                if let Some(raw) = get::<RawFamily>(&object, family)? {
                    result.add_family(raw)?;
                }
            }
            return Ok(result);
        }
        result.interfaces = get(&object, "interfaces")?.unwrap_or_default();
        let ips: Vec<RawIp> = get(&object, "ips")?.unwrap_or_default();
        result.ips =
            ips.into_iter().map(|raw| raw.read(result.interfaces.len())).collect::<Result<_, _>>()?;
        let routes: Vec<RawRoute> = get(&object, "routes")?.unwrap_or_default();
        result.routes = routes.into_iter().map(RawRoute::read).collect::<Result<_, _>>()?;
        Ok(result)
    }

    /// The pod's addresses in the plugins' order, without doubles: those on an interface that is
    /// said to be on the host are not the pod's, unless there is no other.
    pub(crate) fn pod_ips(&self) -> Vec<IpAddr> {
        let on_host = |ip: &&Ip| {
            let interface = ip.interface.and_then(|n| self.interfaces.get(n));
            interface.is_some_and(|interface| interface.sandbox.is_empty())
        };
        let mut ips: Vec<IpAddr> = Vec::new();
        for ip in self.ips.iter().filter(|ip| !on_host(ip)) {
            if !ips.contains(&ip.address.address) {
                ips.push(ip.address.address);
            }
        }
        if ips.is_empty() { self.ips.iter().map(|ip| ip.address.address).collect() } else { ips }
    }

    fn add_family(&mut self, raw: RawFamily) -> Result<(), String> {
        let address = raw.ip.parse()?;
        self.ips.push(Ip { address, gateway: optional(&raw.gateway)?, interface: None });
        for route in raw.routes {
            self.routes.push(route.read()?);
        }
        Ok(())
    }
}

// === impl RawIp ===

impl RawIp {
    /// An index that leads nowhere is as good as none.
    fn read(self, interfaces: usize) -> Result<Ip, String> {
        let interface = self.interface.and_then(|n| usize::try_from(n).ok()).filter(|n| *n < interfaces);
        Ok(Ip { address: self.address.parse()?, gateway: optional(&self.gateway)?, interface })
    }
}

// === impl RawRoute ===

impl RawRoute {
    fn read(self) -> Result<Route, String> {
        Ok(Route { dst: self.dst.parse()?, gw: optional(&self.gw)? })
    }
}

// === impl Cidr ===

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let prefix = prefix.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            (prefix <= most).then_some(Self { address, prefix })
        };
        read().ok_or_else(|| format!("{text:?} is not an address with a prefix length"))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn optional(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("{text:?} is not an address"))
}

/// Plugins in Go write `null` for an empty list.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
