// SPDX-License-Identifier: Apache-2.0
//! What the host has, and what follows from it: whether the bridge's name and subnets are free, and which
//! pods are plugged in. No changes.

use std::net::IpAddr;

use super::config::BridgeConfig;
use super::lease::Lease;
use super::link::{self, Address, Link, Route};
use super::names;
use super::netlink::Netlink;
use super::node::{Problem, Result, io_problem};
use super::subnet::Subnet;

/// Where no default route tells otherwise.
const USUAL_MTU: u32 = 1500;

/// What the host has.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
}

// === impl View ===

impl View {
    pub(super) fn take(netlink: &mut Netlink) -> Result<Self> {
        let step = "look at the node's links";
        Ok(Self {
            links: link::links(netlink).map_err(io_problem(step))?,
            addresses: link::addresses(netlink).map_err(io_problem(step))?,
            routes: link::routes(netlink).map_err(io_problem(step))?,
        })
    }

    fn name_of(&self, index: u32) -> &str {
        self.links.iter().find(|it| it.index == index).map_or("a link", |it| &it.name)
    }

    /// The MTU of the link of the default route: packets that leave must fit.
    pub(super) fn default_mtu(&self) -> u32 {
        let uplink = self.routes.iter().find(|it| it.to.is_none()).and_then(|it| it.link);
        let mtu = self.links.iter().find(|it| Some(it.index) == uplink).map(|it| it.mtu);
        mtu.filter(|mtu| *mtu >= 1280).unwrap_or(USUAL_MTU)
    }

    /// The bridge, if it is there and ours (or nobody's).
    pub(super) fn bridge(&self, config: &BridgeConfig) -> Result<Option<u32>> {
        let name = &config.name;
        let Some(bridge) = self.links.iter().find(|it| it.name == *name) else { return Ok(None) };
        let other = "set network.bridge.name to a name that is free";
        if !bridge.is_bridge {
            return Err(Problem(format!("the link {name} is no bridge: {other}")));
        }
        match &bridge.alias {
            Some(owner) if *owner == config.owner() => return Ok(Some(bridge.index)),
            Some(owner) => {
                return Err(Problem(format!(
                    "the bridge {name} belongs to another program ({owner}): {other}"
                )));
            }
            None => {}
        }
        let foreign = self.addresses.iter().find(|it| it.link == bridge.index && !is_link_local(it.ip));
        let port = self.links.iter().find(|it| it.controller == Some(bridge.index));
        match (foreign, port) {
            (Some(address), _) => Err(Problem(format!(
                "the bridge {name} has the address {} that Hull did not give it: {other}",
                address.ip
            ))),
            (None, Some(port)) => Err(Problem(format!(
                "the bridge {name} has the port {} that Hull did not make: {other}",
                port.name
            ))),
            (None, None) => Ok(Some(bridge.index)),
        }
    }

    pub(super) fn refuse_overlap(&self, config: &BridgeConfig, subnets: &[Subnet]) -> Result<()> {
        let own = self.links.iter().find(|it| it.name == config.name).map(|it| it.index);
        let addresses =
            self.addresses.iter().filter_map(|it| Some((Subnet::around(it.ip, it.prefix)?, Some(it.link))));
        // A shorter prefix is a default route in parts, as VPNs make it.
        let routes =
            self.routes.iter().filter_map(|it| Some((it.to.filter(|to| to.prefix() >= 8)?, it.link)));
        for (range, link) in addresses.chain(routes).filter(|(_, link)| own.is_none() || *link != own) {
            if let Some(subnet) = subnets.iter().find(|subnet| subnet.overlaps(&range)) {
                return Err(Problem(format!(
                    "the subnet {subnet} overlaps {range}, which the node reaches by {}: set network.bridge.subnets",
                    link.map_or("another way", |link| self.name_of(link))
                )));
            }
        }
        Ok(())
    }

    /// Whether there is a link of this name, and it is not on the bridge.
    pub(super) fn is_loose(&self, name: &str, bridge: u32) -> bool {
        self.links.iter().any(|it| it.name == name && it.controller != Some(bridge))
    }

    /// Pods that are plugged in without a lease: it was lost, or its record is in quarantine.
    pub(super) fn found(&self, bridge: u32, held: &[Lease]) -> Vec<Lease> {
        let ports = self.links.iter().filter(|it| it.controller == Some(bridge));
        let read = ports.filter_map(|it| names::read_alias(&it.name, it.alias.as_deref()?));
        read.filter(|(id, _)| !held.iter().any(|lease| lease.sandbox_id == *id))
            .map(|(sandbox_id, ips)| Lease { sandbox_id, ips, port_mappings: Vec::new(), found: true })
            .collect()
    }
}

/// Whether the kernel gives such an address by itself.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, is_bridge: bool) -> Link {
        Link { index, name: name.to_owned(), is_bridge, controller: None, alias: None, mtu: 9000, up: true }
    }

    fn address(link: u32, ip: &str, prefix: u8) -> Address {
        Address { link, ip: ip.parse().unwrap(), prefix }
    }

    fn config() -> BridgeConfig {
        BridgeConfig::default()
    }

    fn bridge_problem(bridge: Link, address_: Option<Address>, port: Option<Link>) -> String {
        let view = View {
            links: std::iter::once(bridge).chain(port).collect(),
            addresses: address_.into_iter().collect(),
            routes: vec![],
        };
        view.bridge(&config()).map(|found| format!("{found:?}")).unwrap_or_else(|problem| problem.0)
    }

    #[test]
    fn a_link_of_the_bridges_name_must_be_ours() {
        let named = |alias: &str| Link { alias: Some(alias.to_owned()), ..link(7, "hull0", true) };
        let port = Link { controller: Some(7), ..link(8, "eth9", false) };
        let gateway = || Some(address(7, "10.85.0.1", 16));
        assert_eq!(bridge_problem(link(7, "br0", true), None, None), "None");
        assert_eq!(bridge_problem(link(7, "hull0", true), Some(address(7, "fe80::1", 64)), None), "Some(7)");
        assert_eq!(bridge_problem(named(&config().owner()), gateway(), Some(port.clone())), "Some(7)");
        for (problem, part) in [
            (bridge_problem(link(7, "hull0", false), None, None), "no bridge"),
            (bridge_problem(named("hull /other"), None, None), "hull /other"),
            (bridge_problem(link(7, "hull0", true), gateway(), None), "10.85.0.1"),
            (bridge_problem(link(7, "hull0", true), None, Some(port)), "eth9"),
        ] {
            assert!(problem.contains(part) && problem.contains("network.bridge.name"), "{problem}");
        }
    }

    #[test]
    fn subnets_must_not_be_elsewhere() {
        let config = config();
        let mut view =
            View { links: vec![link(2, "eth0", false), link(7, "hull0", true)], ..View::default() };
        view.addresses = vec![address(2, "192.0.2.7", 24), address(7, "10.85.0.1", 16)];
        view.routes = vec![
            Route { to: None, link: Some(2) },
            Route { to: Subnet::around("10.85.0.0".parse().unwrap(), 16), link: Some(7) },
        ];
        view.refuse_overlap(&config, &config.subnets).unwrap();
        view.addresses.push(address(2, "10.85.3.4", 32));
        let problem = view.refuse_overlap(&config, &config.subnets).unwrap_err().0;
        assert!(
            problem.contains("10.85.0.0/16 overlaps 10.85.3.4/32") && problem.contains("eth0"),
            "{problem}"
        );
        view.addresses.pop();
        view.routes.push(Route { to: Subnet::around("10.0.0.0".parse().unwrap(), 8), link: None });
        assert!(view.refuse_overlap(&config, &config.subnets).unwrap_err().0.contains("10.0.0.0/8"));
        view.routes.pop();
        view.routes.push(Route { to: Subnet::around("0.0.0.0".parse().unwrap(), 1), link: Some(2) });
        view.refuse_overlap(&config, &config.subnets).expect("half of a default route");
    }

    #[test]
    fn the_default_routes_mtu_is_the_pods() {
        let mut view = View { links: vec![link(2, "eth0", false)], ..View::default() };
        assert_eq!(view.default_mtu(), 1500);
        view.routes = vec![Route { to: None, link: Some(2) }];
        assert_eq!(view.default_mtu(), 9000);
    }

    #[test]
    fn a_lost_lease_is_read_back_from_its_link() {
        let ips: Vec<IpAddr> = vec!["10.85.0.9".parse().unwrap()];
        let port = Link {
            controller: Some(7),
            alias: Some(names::alias("web", &ips)),
            ..link(8, &names::host_link("web"), false)
        };
        let view = View {
            links: vec![port, Link { controller: Some(7), ..link(9, "tap0", false) }],
            ..View::default()
        };
        let found = view.found(7, &[]);
        assert_eq!(
            (found.len(), &found[0].sandbox_id, &found[0].ips, found[0].found),
            (1, &"web".to_owned(), &ips, true)
        );
        assert_eq!(view.found(7, &found), []);
        assert_eq!(view.found(6, &[]), []);
    }
}
