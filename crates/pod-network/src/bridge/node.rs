// SPDX-License-Identifier: Apache-2.0
//! The host's side: the bridge with its addresses, and the kernel's settings. Blocking; may be done
//! any number of times.
//!
//! ```text
//! look at links, addresses, routes -> is the name ours? are the subnets free? -> make or mend the bridge
//!     -> settings -> what is plugged in: leases that were lost
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use hull_failpoint::failpoint;

use super::config::BridgeConfig;
use super::lease::Lease;
use super::link::{self, Address, Link};
use super::names;
use super::netlink::{Netlink, errno};
use super::subnet::Subnet;
use super::sysctl;
use super::view::{View, is_link_local};

/// The bridge, ready for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) index: u32,
    pub(super) mtu: u32,
    /// Those of the configured that this kernel has the family of.
    pub(super) subnets: Vec<Subnet>,
}

/// Why the bridge cannot be used: words for people.
#[derive(Debug)]
pub(super) struct Problem(pub(super) String);

pub(super) type Result<T> = std::result::Result<T, Problem>;

/// Makes the bridge or mends it, and tells which pods it has that are not among `held`.
pub(super) fn prepare(config: &BridgeConfig, held: &[Lease]) -> Result<(Node, Vec<Lease>)> {
    let mut netlink = Netlink::route().map_err(io_problem("open a netlink socket"))?;
    let view = View::take(&mut netlink)?;
    let subnets = usable(&config.subnets, Path::new("/proc/sys/net/ipv6").exists())?;
    let mtu = config.mtu.unwrap_or_else(|| view.default_mtu());
    view.refuse_overlap(config, &subnets)?;
    refuse_strangers(config, held)?;
    let index = match view.bridge(config)? {
        Some(index) => index,
        None => create(&mut netlink, config)?,
    };
    shape(&mut netlink, config, &view, index, &subnets, mtu)?;
    settings(&config.name, &subnets).map_err(io_problem("prepare the node"))?;
    // A bridge that was made anew gets the pods back that the one before had.
    let lost = held
        .iter()
        .map(|lease| names::host_link(&lease.sandbox_id))
        .filter(|name| view.is_loose(name, index));
    let requests: Vec<_> =
        lost.flat_map(|name| [link::join(&name, index), link::set_hairpin(&name)]).collect();
    if !requests.is_empty() {
        netlink.batch(requests).map_err(io_problem("plug pods in again"))?;
    }
    Ok((Node { index, mtu, subnets }, view.found(index, held)))
}

/// Whether there is a bridge of this name that says that it is ours.
pub(super) fn is_ours(config: &BridgeConfig) -> io::Result<bool> {
    Ok(our_bridge(&link::links(&mut Netlink::route()?)?, config).is_some())
}

fn our_bridge<'a>(links: &'a [Link], config: &BridgeConfig) -> Option<&'a Link> {
    let owner = config.owner();
    links.iter().find(|it| it.name == config.name && it.is_bridge && it.alias.as_deref() == Some(&owner))
}

/// The pods whose links are on our bridge, with their addresses, as the links' aliases say.
pub(super) fn plugged(config: &BridgeConfig) -> io::Result<Vec<(String, Vec<IpAddr>)>> {
    let links = link::links(&mut Netlink::route()?)?;
    let Some(bridge) = our_bridge(&links, config).map(|it| it.index) else { return Ok(Vec::new()) };
    let ports = links.iter().filter(|it| it.controller == Some(bridge));
    Ok(ports.filter_map(|it| names::read_alias(&it.name, it.alias.as_deref()?)).collect())
}

/// Removes our bridge, unless it has ports.
pub(super) fn remove(config: &BridgeConfig) -> io::Result<()> {
    let mut netlink = Netlink::route()?;
    let links = link::links(&mut netlink)?;
    let Some(bridge) = our_bridge(&links, config) else { return Ok(()) };
    if links.iter().any(|it| it.controller == Some(bridge.index)) {
        return Ok(());
    }
    failpoint!("bridge.node.remove")?;
    netlink.batch(vec![link::delete(&config.name)])
}

/// Whether the host has a link of this name on the bridge, and it is up.
pub(super) fn is_plugged(name: &str, bridge: u32) -> io::Result<bool> {
    let links = link::links(&mut Netlink::route()?)?;
    Ok(links.iter().any(|it| it.name == name && it.controller == Some(bridge) && it.up))
}

fn usable(subnets: &[Subnet], has_ipv6: bool) -> Result<Vec<Subnet>> {
    let (usable, without): (Vec<Subnet>, Vec<Subnet>) =
        subnets.iter().partition(|subnet| subnet.is_ipv4() || has_ipv6);
    if usable.is_empty() {
        return Err(Problem(
            "this kernel has no IPv6, and no IPv4 subnet is configured: set network.bridge.subnets"
                .to_owned(),
        ));
    }
    for subnet in without {
        tracing::info!(%subnet, "this kernel has no IPv6: pods get IPv4 addresses alone");
    }
    Ok(usable)
}

/// Pods that were given addresses of other subnets would lose them.
fn refuse_strangers(config: &BridgeConfig, held: &[Lease]) -> Result<()> {
    let known = |ip: &IpAddr| config.subnets.iter().any(|subnet| subnet.contains(*ip));
    match held.iter().find(|lease| !lease.ips.iter().all(known)) {
        Some(lease) => Err(Problem(format!(
            "pod sandbox {} has addresses ({}) that are not in network.bridge.subnets: remove the pods that run, or configure the subnets that they were given",
            lease.sandbox_id,
            lease.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ))),
        None => Ok(()),
    }
}

fn create(netlink: &mut Netlink, config: &BridgeConfig) -> Result<u32> {
    let step = "make the bridge";
    failpoint!("bridge.node.create").map_err(io_problem(step))?;
    let requests = link::create_bridge(&config.name, names::bridge_mac(&config.name), &config.owner());
    netlink.batch(requests).map_err(io_problem(step))?;
    let links = link::links(netlink).map_err(io_problem(step))?;
    let found = links.iter().find(|it| it.name == config.name);
    found.map(|it| it.index).ok_or_else(|| Problem(format!("{} was made and is gone again", config.name)))
}

/// Addresses, MTU, up; what a bridge must have before it is up is set before.
fn shape(
    netlink: &mut Netlink,
    config: &BridgeConfig,
    view: &View,
    index: u32,
    subnets: &[Subnet],
    mtu: u32,
) -> Result<()> {
    let (name, step) = (config.name.as_str(), "set the bridge up");
    failpoint!("bridge.node.shape").map_err(io_problem(step))?;
    if subnets.iter().any(|subnet| !subnet.is_ipv4()) {
        sysctl::set(&["ipv6", "conf", name, "disable_ipv6"], "0").map_err(io_problem(step))?;
    }
    // Its addresses are ours alone; a pod must not reconfigure the host by router advertisements.
    for key in ["accept_dad", "accept_ra"] {
        sysctl::set(&["ipv6", "conf", name, key], "0").map_err(io_problem(step))?;
    }
    let mut requests = vec![link::set_bridge(index, &config.owner(), mtu)];
    let wanted = |ip: IpAddr, prefix: u8| subnets.iter().any(|s| s.gateway() == ip && s.prefix() == prefix);
    let now: Vec<&Address> =
        view.addresses.iter().filter(|it| it.link == index && !is_link_local(it.ip)).collect();
    requests.extend(
        now.iter()
            .filter(|it| !wanted(it.ip, it.prefix))
            .map(|it| link::delete_address(index, it.ip, it.prefix)),
    );
    for subnet in subnets {
        if !now.iter().any(|it| it.ip == subnet.gateway() && it.prefix == subnet.prefix()) {
            requests.push(link::add_address(index, subnet.gateway(), subnet.prefix()));
        }
    }
    match netlink.batch(requests) {
        // A twin of this call was faster.
        Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
        other => other.map_err(io_problem(step)),
    }
}

/// Forwarding, and host ports on 127.0.0.1.
fn settings(bridge: &str, subnets: &[Subnet]) -> io::Result<()> {
    if subnets.iter().any(Subnet::is_ipv4) {
        sysctl::set(&["ipv4", "ip_forward"], "1")?;
        sysctl::set(&["ipv4", "conf", bridge, "route_localnet"], "1")?;
    }
    let forwarding: sysctl::Parts<'_> = &["ipv6", "conf", "all", "forwarding"];
    if subnets.iter().any(|subnet| !subnet.is_ipv4()) && sysctl::get(forwarding)?.as_deref() == Some("0") {
        // A host that forwards takes no router advertisements unless told so: uplinks that live by them
        // (accept_ra = 1) would lose their default route.
        for link in fs::read_dir("/proc/sys/net/ipv6/conf")?.flatten() {
            let link = link.file_name().to_string_lossy().into_owned();
            let accept: sysctl::Parts<'_> = &["ipv6", "conf", &link, "accept_ra"];
            let is_link = !matches!(link.as_str(), "all" | "default") && link != bridge;
            if is_link && sysctl::get(accept)?.as_deref() == Some("1") {
                sysctl::set(accept, "2")?;
            }
        }
        sysctl::set(forwarding, "1")?;
    }
    Ok(())
}

pub(super) fn io_problem(step: &'static str) -> impl FnOnce(io::Error) -> Problem {
    move |error| Problem(format!("cannot {step}: {error}"))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Node ===

impl Node {
    pub(super) fn has_ipv6(&self) -> bool {
        self.subnets.iter().any(|subnet| !subnet.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BridgeConfig {
        BridgeConfig::default()
    }

    #[test]
    fn a_kernel_without_ipv6_leaves_ipv4() {
        let subnets = config().subnets;
        assert_eq!(usable(&subnets, true).unwrap(), subnets);
        assert_eq!(usable(&subnets, false).unwrap(), subnets[..1]);
        assert!(usable(&subnets[1..], false).unwrap_err().0.contains("no IPv6"));
    }

    #[test]
    fn pods_keep_the_subnets_that_they_were_given() {
        let lease =
            |ip: &str| Lease { sandbox_id: "web".into(), ips: vec![ip.parse().unwrap()], ..Lease::default() };
        refuse_strangers(&config(), &[lease("10.85.0.2")]).unwrap();
        let problem = refuse_strangers(&config(), &[lease("10.99.0.2")]).unwrap_err().0;
        assert!(problem.contains("web") && problem.contains("10.99.0.2"), "{problem}");
    }
}
