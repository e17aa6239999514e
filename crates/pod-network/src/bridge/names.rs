// SPDX-License-Identifier: Apache-2.0
//! Names and hardware addresses: all derived, so that cleaning up needs no memory.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// The most that the kernel takes for a link's name (IFNAMSIZ without the closing zero).
const LONGEST_NAME: usize = 15;
/// The most for a link's alias (IFALIASZ without the closing zero).
const LONGEST_ALIAS: usize = 255;

/// The interface inside a pod.
pub(super) const POD_LINK: &str = "eth0";

/// The host's end of a pod's link.
pub(super) fn host_link(sandbox_id: &str) -> String {
    format!("hv{}", hex(&digest(sandbox_id)[..6]))
}

/// The table of a bridge.
pub(super) fn table(bridge: &str) -> String {
    format!("hull-{bridge}")
}

/// What the bridge's alias says: whose it is. Two daemons on one bridge would give out the same addresses.
pub(super) fn owner(root: &str) -> String {
    let text = format!("hull {root}");
    if text.len() <= LONGEST_ALIAS && !text.contains(char::is_control) {
        return text;
    }
    format!("hull {}", hex(&digest(root)))
}

/// What the alias of a pod's link says: pod and addresses, for a daemon that has lost the lease.
pub(super) fn alias(sandbox_id: &str, ips: &[IpAddr]) -> String {
    let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
    format!("{sandbox_id} {}", ips.join(" "))
}

/// Reads an alias; `None` unless the link is one of ours.
pub(super) fn read_alias(link: &str, alias: &str) -> Option<(String, Vec<IpAddr>)> {
    let mut words = alias.split(' ');
    let id = words.next().filter(|id| is_id(id) && host_link(id) == link)?;
    let ips: Vec<IpAddr> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    (!ips.is_empty()).then(|| (id.to_owned(), ips))
}

/// Whether it can name a record and stand in an alias.
pub(super) fn is_id(id: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=128).contains(&id.len()) && id.bytes().all(fine) && !id.starts_with('.')
}

/// Whether it can name a bridge, and be part of the name of a table.
///
/// # Errors
/// What is wrong with it, in words that follow the name.
pub fn check_bridge_name(name: &str) -> Result<(), String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(format!("must be 1 to {LONGEST_NAME} bytes long"));
    }
    if !name.bytes().all(fine) || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(
            "must begin with a letter and contain only a-z, A-Z, 0-9, \"_\", \".\" and \"-\"".to_owned()
        );
    }
    // The kernel's own entries beside those of interfaces in /proc/sys/net/*/conf.
    if matches!(name, "all" | "default" | "lo" | "eth0") {
        return Err("is taken: choose another, such as \"hull0\"".to_owned());
    }
    Ok(())
}

/// The pod's hardware address: the same for the same address, so that a neighbour that remembers the
/// former holder of an address still reaches the new one.
pub(super) fn pod_mac(first_ip: IpAddr) -> [u8; 6] {
    let hash = digest(&first_ip.to_string());
    [0x0a, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

/// The hardware address of the host's end. Named, not left to chance: udev changes those left to chance.
pub(super) fn host_mac(sandbox_id: &str) -> [u8; 6] {
    let hash = digest(sandbox_id);
    [0x0e, hash[6], hash[7], hash[8], hash[9], hash[10]]
}

/// The bridge's hardware address: without one of its own it would take the lowest of its ports, and change.
pub(super) fn bridge_mac(bridge: &str) -> [u8; 6] {
    let hash = digest(bridge);
    [0x06, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let (a, b) = (host_link(&"a".repeat(64)), host_link("b"));
        assert_ne!(a, b);
        assert!(a.len() <= LONGEST_NAME && a.starts_with("hv"), "{a}");
        assert_ne!(host_mac("a"), host_mac("b"));
        let macs = [pod_mac("10.85.0.2".parse().unwrap()), host_mac("a"), bridge_mac("hull0")];
        assert!(macs.iter().all(|mac| mac[0] & 3 == 2), "local and not multicast: {macs:?}");
    }

    #[test]
    fn an_alias_tells_pod_and_addresses_of_our_links_alone() {
        let id = "4f".repeat(32);
        let ips: Vec<IpAddr> =
            vec!["10.85.0.2".parse().unwrap(), "fd85:6b1f:20d7:a55:ffff:ffff:ffff:fffe".parse().unwrap()];
        let text = alias(&"x".repeat(128), &ips);
        assert!(text.len() <= LONGEST_ALIAS, "{}", text.len());
        assert_eq!(read_alias(&host_link(&id), &alias(&id, &ips)), Some((id.clone(), ips.clone())));
        assert_eq!(read_alias("hv000000000000", &alias(&id, &ips)), None, "another link");
        for alias in ["", " ", &id, "uplink to 10.0.0.1", &format!("{id} 10.85.0")] {
            assert_eq!(read_alias(&host_link(&id), alias), None, "{alias}");
        }
    }

    #[test]
    fn bridges_have_names_that_the_kernel_and_nft_take() {
        for name in ["hull0", "br-1.2_x", "a", "abcdefghijklmno"] {
            assert_eq!(check_bridge_name(name), Ok(()), "{name}");
        }
        for name in ["", "0hull", "abcdefghijklmnop", "a b", "a/b", "a;b", "é", "..", "all", "lo"] {
            assert!(check_bridge_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_owner_is_told_whole_or_by_its_hash() {
        assert_eq!(owner("/var/lib/hull"), "hull /var/lib/hull");
        assert!(owner(&"/x".repeat(500)).len() <= LONGEST_ALIAS);
        assert_ne!(owner(&"/x".repeat(500)), owner(&"/y".repeat(500)));
    }
}
