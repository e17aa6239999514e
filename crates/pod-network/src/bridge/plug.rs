// SPDX-License-Identifier: Apache-2.0
//! A pod's link: made from inside the pod's namespace, on the one fresh thread that may be there. Blocking.
//!
//! ```text
//! socket of the host ── veth made: host end up on the bridge, eth0 in the namespace   one system call
//! settings of eth0   ── before it is up
//! socket of the pod  ── lo up, eth0 up, addresses, default routes                     one system call
//! ```

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use hull_failpoint::failpoint;

use super::lease::Lease;
use super::link::{self, Veth};
use super::names::{self, POD_LINK};
use super::netlink::{Netlink, errno};
use super::node::Node;
use super::subnet::Subnet;
use super::sysctl;

/// `lo` is the first link of every namespace.
const LOOPBACK: u32 = 1;

/// Plugs a pod in.
pub(super) fn plug(node: &Node, lease: &Lease, netns: &Path) -> io::Result<()> {
    let (node, lease) = (node.clone(), lease.clone());
    // Of the host, although it is used by a thread in the pod's namespace.
    let mut host = Netlink::route()?;
    hull_netns::enter(netns, move || {
        failpoint!("bridge.plug.link")?;
        make(&mut host, &node, &lease)?;
        failpoint!("bridge.plug.pod")?;
        settings(&node).and_then(|()| wire(&node, &lease))
    })?
}

/// Removes the link of a pod; none is fine.
pub(super) fn unplug(sandbox_id: &str) -> io::Result<()> {
    failpoint!("bridge.unplug.link")?;
    match Netlink::route()?.batch(vec![link::delete(&names::host_link(sandbox_id))]) {
        Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// The addresses of the pod's interface and whether it is up.
pub(super) fn look(netns: &Path) -> io::Result<Option<(bool, Vec<IpAddr>)>> {
    hull_netns::enter(netns, || {
        let mut pod = Netlink::route()?;
        let Some(eth0) = link::links(&mut pod)?.into_iter().find(|it| it.name == POD_LINK) else {
            return Ok(None);
        };
        let addresses = link::addresses(&mut pod)?;
        let ips = addresses.iter().filter(|it| it.link == eth0.index).map(|it| it.ip).collect();
        Ok(Some((eth0.up, ips)))
    })?
}

fn make(host: &mut Netlink, node: &Node, lease: &Lease) -> io::Result<()> {
    let pod = File::open("/proc/thread-self/ns/net")?;
    let first = *lease.ips.first().ok_or_else(|| io::Error::other("a lease without an address"))?;
    let requests = link::create_veth(&Veth {
        host: &names::host_link(&lease.sandbox_id),
        host_mac: names::host_mac(&lease.sandbox_id),
        pod: POD_LINK,
        pod_mac: names::pod_mac(first),
        alias: &names::alias(&lease.sandbox_id, &lease.ips),
        mtu: node.mtu,
        bridge: node.index,
        netns: pod.as_raw_fd(),
        ipv6: node.has_ipv6(),
    });
    host.batch(requests)
}

/// Another pod on the bridge must not reconfigure this one by router advertisements; its addresses are
/// leased, so looking for duplicates only costs a second.
fn settings(node: &Node) -> io::Result<()> {
    if node.has_ipv6() {
        sysctl::set(&["ipv6", "conf", POD_LINK, "disable_ipv6"], "0")?;
    }
    // A pod without leased IPv6 addresses still has one of the link.
    sysctl::set(&["ipv6", "conf", POD_LINK, "accept_dad"], "0")?;
    sysctl::set(&["ipv6", "conf", POD_LINK, "accept_ra"], "0")
}

fn wire(node: &Node, lease: &Lease) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(POD_LINK)?;
    let mut requests = vec![link::set_up(LOOPBACK), link::set_up(index)];
    let subnet = |ip: &IpAddr| node.subnets.iter().find(|subnet| subnet.contains(*ip));
    let leased: Vec<(IpAddr, &Subnet)> = lease.ips.iter().filter_map(|ip| Some((*ip, subnet(ip)?))).collect();
    requests.extend(leased.iter().map(|(ip, subnet)| link::add_address(index, *ip, subnet.prefix())));
    requests.extend(leased.iter().map(|(_, subnet)| link::add_default_route(index, subnet.gateway())));
    Netlink::route()?.batch(requests)
}
