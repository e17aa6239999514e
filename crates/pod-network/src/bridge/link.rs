// SPDX-License-Identifier: Apache-2.0
//! Links, addresses and routes as netlink messages, and as they are read back.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::netlink::{Netlink, Request};
use super::subnet::Subnet;

/// A link as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) is_bridge: bool,
    /// The bridge that it is a port of.
    pub(super) controller: Option<u32>,
    pub(super) alias: Option<String>,
    pub(super) mtu: u32,
    pub(super) up: bool,
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) link: u32,
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// `None`: the default route.
    pub(super) to: Option<Subnet>,
    pub(super) link: Option<u32>,
}

/// A pod's link, to be made.
#[derive(Debug, Clone)]
pub(super) struct Veth<'a> {
    pub(super) host: &'a str,
    pub(super) host_mac: [u8; 6],
    pub(super) pod: &'a str,
    pub(super) pod_mac: [u8; 6],
    pub(super) alias: &'a str,
    pub(super) mtu: u32,
    pub(super) bridge: u32,
    /// The pod's namespace.
    pub(super) netns: RawFd,
    /// Whether the kernel has it at all.
    pub(super) ipv6: bool,
}

/// Makes a veth: the host's end up on the bridge, the other end in the pod's namespace, down still.
pub(super) fn create_veth(veth: &Veth<'_>) -> Vec<Request> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(veth.pod.to_owned()),
        LinkAttribute::Address(veth.pod_mac.to_vec()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::NetNsFd(veth.netns),
    ];
    let mut create = LinkMessage::default();
    create.attributes = vec![
        LinkAttribute::IfName(veth.host.to_owned()),
        LinkAttribute::Address(veth.host_mac.to_vec()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::Controller(veth.bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    // What a link can be given only once it is there. A port has no use for an IPv6 address of its own.
    let mut finish = up(0);
    finish.attributes = vec![
        LinkAttribute::IfName(veth.host.to_owned()),
        LinkAttribute::IfAlias(veth.alias.to_owned()),
        hairpin(),
    ];
    if veth.ipv6 {
        let no_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        finish.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![no_address])]));
    }
    vec![(Message::NewLink(create), NLM_F_CREATE | NLM_F_EXCL), (Message::NewLink(finish), 0)]
}

/// Makes a link a port of a bridge.
pub(super) fn join(name: &str, bridge: u32) -> Request {
    let mut message = up(0);
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Controller(bridge)];
    (Message::NewLink(message), 0)
}

/// Lets a port send back where it received: a pod reaches itself by its own host port.
pub(super) fn set_hairpin(name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), hairpin()];
    (Message::NewLink(message), 0)
}

/// Makes a bridge that is down, and says whose it is.
pub(super) fn create_bridge(name: &str, mac: [u8; 6], owner: &str) -> Vec<Request> {
    let mut create = LinkMessage::default();
    create.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    let mut own = LinkMessage::default();
    own.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::IfAlias(owner.to_owned())];
    vec![(Message::NewLink(create), NLM_F_CREATE | NLM_F_EXCL), (Message::NewLink(own), 0)]
}

/// Brings a link up.
pub(super) fn set_up(index: u32) -> Request {
    (Message::NewLink(up(index)), 0)
}

/// Sets what a bridge should be: its owner, its MTU, up.
pub(super) fn set_bridge(index: u32, owner: &str, mtu: u32) -> Request {
    let mut message = up(index);
    message.attributes = vec![LinkAttribute::IfAlias(owner.to_owned()), LinkAttribute::Mtu(mtu)];
    (Message::NewLink(message), 0)
}

/// Removes a link by its name, and with a veth its other end.
pub(super) fn delete(name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    (Message::DelLink(message), 0)
}

/// Gives a link an address, at once (no duplicate address detection: every address is leased).
pub(super) fn add_address(index: u32, ip: IpAddr, prefix: u8) -> Request {
    let mut message = address(index, ip, prefix);
    message.header.flags = AddressHeaderFlags::Permanent;
    if let IpAddr::V4(v4) = ip {
        let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        message.attributes.push(AddressAttribute::Broadcast((v4.to_bits() | hosts).into()));
    } else {
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Permanent | AddressFlags::Nodad));
    }
    // Again is no error: it is refused as existing, and the caller looks at that.
    (Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Takes an address from a link.
pub(super) fn delete_address(index: u32, ip: IpAddr, prefix: u8) -> Request {
    (Message::DelAddress(address(index, ip, prefix)), 0)
}

/// The default route.
pub(super) fn add_default_route(index: u32, gateway: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::from(gateway)), RouteAttribute::Oif(index)];
    (Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
}

fn hairpin() -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
    ])
}

fn up(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn address(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Every link of the namespace.
pub(super) fn links(netlink: &mut Netlink) -> std::io::Result<Vec<Link>> {
    let messages = netlink.dump(Message::GetLink(LinkMessage::default()))?;
    Ok(messages
        .into_iter()
        .filter_map(|it| if let Message::NewLink(it) = it { Some(link(it)) } else { None })
        .collect())
}

/// Every address of the namespace.
pub(super) fn addresses(netlink: &mut Netlink) -> std::io::Result<Vec<Address>> {
    let messages = netlink.dump(Message::GetAddress(AddressMessage::default()))?;
    let read = |message| match message {
        Message::NewAddress(message) => {
            let ip = message.attributes.iter().find_map(|it| match it {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let ip = ip.or_else(|| {
                message.attributes.iter().find_map(|it| match it {
                    AddressAttribute::Address(ip) => Some(*ip),
                    _ => None,
                })
            })?;
            Some(Address { link: message.header.index, ip, prefix: message.header.prefix_len })
        }
        _ => None,
    };
    Ok(messages.into_iter().filter_map(read).collect())
}

/// Every unicast route of the main table.
pub(super) fn routes(netlink: &mut Netlink) -> std::io::Result<Vec<Route>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        let messages = netlink.dump(Message::GetRoute(question))?;
        all.extend(
            messages
                .into_iter()
                .filter_map(|it| if let Message::NewRoute(it) = it { route(&it) } else { None }),
        );
    }
    Ok(all)
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        is_bridge: false,
        controller: None,
        alias: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    link
}

fn route(message: &RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut to, mut link) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    // fe80::/10 is on every link.
    let local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if Ipv6Addr::is_unicast_link_local(&ip));
    if to.is_some_and(local) {
        return None;
    }
    let prefix = message.header.destination_prefix_length;
    Some(Route { to: to.filter(|_| prefix > 0).and_then(|ip| Subnet::around(ip, prefix)), link })
}
