// SPDX-License-Identifier: Apache-2.0
//! A range of addresses on the bridge. The first address after the network's own is the gateway's.
//!
//! Addresses are counted by slot, the distance from the network's own address; a pod has the same
//! slot in each family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The gateway's slot.
const GATEWAY: u32 = 1;
/// The first slot for pods.
pub(super) const FIRST_SLOT: u32 = 2;
/// No more pods than this, however large the range.
const MOST_SLOTS: u128 = 1 << 24;

/// A range of addresses: `10.85.0.0/16`, `fd85:6b1f:20d7:a55::/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    network: IpAddr,
    prefix: u8,
}

// === impl Subnet ===

impl Subnet {
    /// The range around an address: its host bits are cleared. `None` for a prefix that is too long.
    pub(super) fn around(ip: IpAddr, prefix: u8) -> Option<Self> {
        let host_bits = width(ip).checked_sub(prefix)?;
        let network = match ip {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & !low(host_bits, 32) as u32)),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !low(host_bits, 128))),
        };
        Some(Self { network, prefix })
    }

    /// Whether it is a range of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// The length of the prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The bridge's own address in it.
    pub fn gateway(&self) -> IpAddr {
        self.address(GATEWAY)
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4()
            && Self::around(ip, self.prefix).is_some_and(|it| it.network == self.network)
    }

    /// Whether two ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.prefix <= other.prefix { self.contains(other.network) } else { other.contains(self.network) }
    }

    /// The address of a slot, which is at most [`Self::last_slot`].
    pub(super) fn address(&self, slot: u32) -> IpAddr {
        match self.network {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits().wrapping_add(slot))),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits().wrapping_add(u128::from(slot)))),
        }
    }

    /// The last slot for pods. The last address of an IPv4 range is its broadcast address.
    pub(super) fn last_slot(&self) -> u32 {
        let last = low(width(self.network) - self.prefix, 128) - u128::from(self.is_ipv4());
        last.min(MOST_SLOTS) as u32
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "must be a subnet, such as \"10.85.0.0/16\" or \"fd85:6b1f:20d7:a55::/64\"";
        let (ip, prefix) = text.split_once('/').ok_or(form)?;
        let (ip, prefix): (IpAddr, u8) = (ip.parse().map_err(|_| form)?, prefix.parse().map_err(|_| form)?);
        let subnet = Self::around(ip, prefix).ok_or(form)?;
        if subnet.network != ip {
            return Err(format!("has bits set beyond its prefix: write \"{subnet}\""));
        }
        let (shortest, longest) = if subnet.is_ipv4() { (8, 30) } else { (32, 126) };
        if !(shortest..=longest).contains(&prefix) {
            return Err(format!("must have a prefix of /{shortest} to /{longest} to hold pods"));
        }
        let special = match ip {
            IpAddr::V4(ip) => {
                ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.octets()[0] == 0
            }
            IpAddr::V6(ip) => ip.is_multicast() || ip.is_unicast_link_local() || ip.segments()[0] == 0,
        };
        if special {
            return Err("is reserved for other uses: take private addresses (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fd00::/8)".to_owned());
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// That many low bits set.
fn low(bits: u8, width: u8) -> u128 {
    if bits >= 128 {
        u128::MAX
    } else {
        ((1u128 << bits) - 1) & if width >= 128 { u128::MAX } else { (1u128 << width) - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn the_network_the_gateway_and_the_broadcast_address_are_not_for_pods() {
        let v4 = subnet("10.85.3.0/24");
        assert_eq!(v4.gateway().to_string(), "10.85.3.1");
        assert_eq!(v4.address(FIRST_SLOT).to_string(), "10.85.3.2");
        assert_eq!(v4.address(v4.last_slot()).to_string(), "10.85.3.254");
        assert_eq!(subnet("10.0.0.0/30").last_slot(), 2);
        let v6 = subnet("fd85::/126");
        assert_eq!((v6.gateway().to_string(), v6.last_slot()), ("fd85::1".to_owned(), 3));
        assert_eq!(subnet("fd85::/64").last_slot(), 1 << 24);
    }

    #[test]
    fn nonsense_is_refused_and_says_what() {
        for (text, part) in [
            ("10.85.0.0", "must be a subnet"),
            ("10.85.0.0/33", "must be a subnet"),
            ("ten/8", "must be a subnet"),
            ("10.85.0.1/16", "write \"10.85.0.0/16\""),
            ("fd85::1/64", "write \"fd85::/64\""),
            ("10.85.0.0/31", "/8 to /30"),
            ("fd85::/127", "/32 to /126"),
            ("127.0.0.0/8", "reserved"),
            ("169.254.0.0/16", "reserved"),
            ("224.0.0.0/8", "reserved"),
            ("fe80::/64", "reserved"),
            ("::/64", "reserved"),
            ("::/0", "/32 to /126"),
            ("0.0.0.0/0", "/8 to /30"),
        ] {
            assert!(text.parse::<Subnet>().unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn ranges_overlap_when_one_is_in_the_other() {
        let cases = [
            ("10.85.0.0/16", "10.85.7.0/24", true),
            ("10.85.0.0/16", "10.86.0.0/16", false),
            ("10.0.0.0/8", "10.85.0.0/16", true),
            ("fd85::/64", "fd85:0:0:1::/64", false),
            ("10.85.0.0/16", "fd85::/64", false),
        ];
        for (a, b, overlap) in cases {
            assert_eq!(
                (subnet(a).overlaps(&subnet(b)), subnet(b).overlaps(&subnet(a))),
                (overlap, overlap),
                "{a} {b}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_slot_is_inside_and_text_comes_back(bits in any::<u32>(), prefix in 8u8..=30, slot in any::<u32>()) {
            let v4 = Subnet::around(IpAddr::V4(Ipv4Addr::from_bits(bits)), prefix).unwrap();
            let slot = FIRST_SLOT + slot % (v4.last_slot() - FIRST_SLOT + 1);
            prop_assert!(v4.contains(v4.address(slot)));
            prop_assert_ne!(v4.address(slot), v4.gateway());
            if let Ok(again) = v4.to_string().parse::<Subnet>() {
                prop_assert_eq!(again, v4);
            }
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Subnet>();
        }
    }
}
