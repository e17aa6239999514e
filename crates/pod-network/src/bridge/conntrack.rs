// SPDX-License-Identifier: Apache-2.0
//! Forgetting connections: a datagram's way is remembered, and goes on to be used after the rule that
//! chose it is gone.
//!
//! ```text
//! IPCTNL_MSG_CT_DELETE with a filter: a kernel of today deletes what matches
//! nfgenmsg      family, version 0, resource 0
//! CTA_TUPLE_*   { CTA_TUPLE_IP { source }, CTA_TUPLE_PROTO { number, source or destination port } }
//! CTA_FILTER    { flags for the original tuple, flags for the reply: which of these to compare }
//! ```
//! An older kernel (6.1 is one) takes that for a malformed question about one connection and refuses it. Then all
//! connections are looked at here, and those that match deleted one by one, by CTA_TUPLE_ORIG and CTA_ID.

use std::io;
use std::net::IpAddr;

use super::netlink::{Netlink, attribute, errno, push_attribute};
use super::ports::number;
use crate::PortMapping;

/// NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE.
const DELETE: u16 = 1 << 8 | 2;
/// IPCTNL_MSG_CT_GET.
const GET: u16 = 1 << 8 | 1;
/// The length of an nfgenmsg.
const HEAD: usize = 4;
const NESTED: u16 = 1 << 15;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

const F_IP_SRC: u32 = 1;
const F_PROTO_NUM: u32 = 1 << 3;
const F_PROTO_SRC_PORT: u32 = 1 << 4;
const F_PROTO_DST_PORT: u32 = 1 << 5;

/// Which connections to forget.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    /// Those that were led to a pod: the answers come from its address and port.
    LedTo(IpAddr),
    /// Those that began with the host port, of this family, wherever they were led.
    Begun { ipv4: bool },
}

impl Which {
    fn is_ipv4(self) -> bool {
        match self {
            Self::LedTo(ip) => ip.is_ipv4(),
            Self::Begun { ipv4 } => ipv4,
        }
    }
}

/// Forgets the connections of a mapping.
pub(super) fn forget(mapping: &PortMapping, which: Which) -> io::Result<()> {
    let mut netlink = Netlink::netfilter()?;
    match netlink.raw(DELETE, 0, &body(mapping, which)) {
        Err(error) if is_refused(&error) => forget_each(&mut netlink, mapping, which),
        other => unless_gone(other),
    }
}

/// Without the kernel's help: what is there is looked at, and what matches is deleted.
fn forget_each(netlink: &mut Netlink, mapping: &PortMapping, which: Which) -> io::Result<()> {
    let ours = |entry: &[u8]| matches(entry, mapping, which);
    let found = match netlink.dump_raw(GET, &body(mapping, which), ours) {
        // A dump takes a filter from 5.8 on.
        Err(error) if is_refused(&error) => netlink.dump_raw(GET, &head(which.is_ipv4()), ours),
        answer => answer,
    };
    let requests = found?.into_iter().filter_map(|entry| one(&entry));
    // All are tried; the first refusal (an offloaded one is busy) is told.
    requests.map(|request| unless_gone(netlink.raw(DELETE, 0, &request))).fold(Ok(()), Result::and)
}

fn is_refused(error: &io::Error) -> bool {
    matches!(errno(error), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// No connection matched, or it has ended by itself.
fn unless_gone(answer: io::Result<()>) -> io::Result<()> {
    answer.or_else(|error| if errno(&error) == Some(libc::ENOENT) { Ok(()) } else { Err(error) })
}

fn matches(entry: &[u8], mapping: &PortMapping, which: Which) -> bool {
    let compare = || {
        let attributes = entry.get(HEAD..)?;
        let (tuple, port_kind, port) = match which {
            Which::LedTo(_) => (CTA_TUPLE_REPLY, CTA_PROTO_SRC_PORT, mapping.container_port),
            Which::Begun { .. } => (CTA_TUPLE_ORIG, CTA_PROTO_DST_PORT, mapping.host_port),
        };
        let tuple = attribute(attributes, tuple)?;
        let is_from = match which {
            Which::LedTo(IpAddr::V4(ip)) => {
                attribute(attribute(tuple, CTA_TUPLE_IP)?, CTA_IP_V4_SRC)? == ip.octets()
            }
            Which::LedTo(IpAddr::V6(ip)) => {
                attribute(attribute(tuple, CTA_TUPLE_IP)?, CTA_IP_V6_SRC)? == ip.octets()
            }
            Which::Begun { .. } => true,
        };
        let protocol = attribute(tuple, CTA_TUPLE_PROTO)?;
        let is_protocol = attribute(protocol, CTA_PROTO_NUM)? == [number(mapping.protocol)];
        Some(is_from && is_protocol && attribute(protocol, port_kind)? == port.to_be_bytes())
    };
    compare().unwrap_or(false)
}

/// The request to delete this one connection.
fn one(entry: &[u8]) -> Option<Vec<u8>> {
    let mut request = vec![*entry.first()?, 0, 0, 0];
    let attributes = entry.get(HEAD..)?;
    push_attribute(&mut request, CTA_TUPLE_ORIG | NESTED, attribute(attributes, CTA_TUPLE_ORIG)?);
    push_attribute(&mut request, CTA_ID, attribute(attributes, CTA_ID)?);
    if let Some(zone) = attribute(attributes, CTA_ZONE) {
        push_attribute(&mut request, CTA_ZONE, zone);
    }
    Some(request)
}

/// nfgenmsg: family, version, resource id.
fn head(ipv4: bool) -> Vec<u8> {
    let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 };
    vec![u8::try_from(family).unwrap_or_default(), 0, 0, 0]
}

fn body(mapping: &PortMapping, which: Which) -> Vec<u8> {
    let (tuple_kind, port_kind, port, flags) = match which {
        Which::LedTo(_) => {
            let flags = (0, F_IP_SRC | F_PROTO_NUM | F_PROTO_SRC_PORT);
            (CTA_TUPLE_REPLY, CTA_PROTO_SRC_PORT, mapping.container_port, flags)
        }
        Which::Begun { .. } => {
            let flags = (F_PROTO_NUM | F_PROTO_DST_PORT, 0);
            (CTA_TUPLE_ORIG, CTA_PROTO_DST_PORT, mapping.host_port, flags)
        }
    };
    let mut tuple = Vec::new();
    if let Which::LedTo(ip) = which {
        let mut address = Vec::new();
        match ip {
            IpAddr::V4(ip) => push_attribute(&mut address, CTA_IP_V4_SRC, &ip.octets()),
            IpAddr::V6(ip) => push_attribute(&mut address, CTA_IP_V6_SRC, &ip.octets()),
        }
        push_attribute(&mut tuple, CTA_TUPLE_IP | NESTED, &address);
    }
    let mut protocol = Vec::new();
    push_attribute(&mut protocol, CTA_PROTO_NUM, &[number(mapping.protocol)]);
    push_attribute(&mut protocol, port_kind, &port.to_be_bytes());
    push_attribute(&mut tuple, CTA_TUPLE_PROTO | NESTED, &protocol);
    let mut filter = Vec::new();
    push_attribute(&mut filter, CTA_FILTER_ORIG_FLAGS, &flags.0.to_ne_bytes());
    push_attribute(&mut filter, CTA_FILTER_REPLY_FLAGS, &flags.1.to_ne_bytes());
    let mut body = head(which.is_ipv4());
    push_attribute(&mut body, tuple_kind | NESTED, &tuple);
    push_attribute(&mut body, CTA_FILTER | NESTED, &filter);
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[test]
    fn a_filter_names_what_it_compares() {
        let mapping =
            PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 5353, host_ip: None };
        let led = body(&mapping, Which::LedTo("10.85.0.2".parse().unwrap()));
        assert_eq!(led[0], 2, "AF_INET");
        let tuple = attribute(&led[4..], CTA_TUPLE_REPLY).unwrap();
        let ip = attribute(attribute(tuple, CTA_TUPLE_IP).unwrap(), CTA_IP_V4_SRC);
        assert_eq!(ip, Some(&[10, 85, 0, 2][..]));
        let proto = attribute(tuple, CTA_TUPLE_PROTO).unwrap();
        assert_eq!(attribute(proto, CTA_PROTO_NUM), Some(&[17][..]));
        assert_eq!(attribute(proto, CTA_PROTO_SRC_PORT), Some(&53u16.to_be_bytes()[..]));
        let begun = body(&mapping, Which::Begun { ipv4: false });
        assert_eq!(begun[0], 10, "AF_INET6");
        let proto = attribute(attribute(&begun[4..], CTA_TUPLE_ORIG).unwrap(), CTA_TUPLE_PROTO).unwrap();
        assert_eq!(attribute(proto, CTA_PROTO_DST_PORT), Some(&5353u16.to_be_bytes()[..]));
        let flags = attribute(attribute(&begun[4..], CTA_FILTER).unwrap(), CTA_FILTER_REPLY_FLAGS);
        assert_eq!(flags, Some(&0u32.to_ne_bytes()[..]));
    }

    /// What the kernel tells of a datagram's way: from anywhere to a host port, led to a pod.
    fn entry(host_port: u16, pod: [u8; 4], container_port: u16) -> Vec<u8> {
        let tuple = |from: [u8; 4], source: u16, destination: u16| {
            let (mut ip, mut protocol, mut tuple) = (Vec::new(), Vec::new(), Vec::new());
            push_attribute(&mut ip, CTA_IP_V4_SRC, &from);
            push_attribute(&mut protocol, CTA_PROTO_NUM, &[17]);
            push_attribute(&mut protocol, CTA_PROTO_SRC_PORT, &source.to_be_bytes());
            push_attribute(&mut protocol, CTA_PROTO_DST_PORT, &destination.to_be_bytes());
            push_attribute(&mut tuple, CTA_TUPLE_IP | NESTED, &ip);
            push_attribute(&mut tuple, CTA_TUPLE_PROTO | NESTED, &protocol);
            tuple
        };
        let mut entry = head(true);
        push_attribute(&mut entry, CTA_TUPLE_ORIG | NESTED, &tuple([192, 0, 2, 9], 4444, host_port));
        push_attribute(&mut entry, CTA_TUPLE_REPLY | NESTED, &tuple(pod, container_port, 4444));
        push_attribute(&mut entry, CTA_ID, &[1, 2, 3, 4]);
        entry
    }

    #[test]
    fn connections_are_told_apart_without_a_filter() {
        let mapping =
            PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 5353, host_ip: None };
        let led = |ip: &str| Which::LedTo(ip.parse().unwrap());
        let begun = Which::Begun { ipv4: true };
        let ours = entry(5353, [10, 85, 0, 2], 53);
        assert!(matches(&ours, &mapping, led("10.85.0.2")) && matches(&ours, &mapping, begun));
        assert!(!matches(&ours, &mapping, led("10.85.0.3")) && !matches(&ours, &mapping, led("fd00::2")));
        assert!(!matches(&entry(5353, [10, 85, 0, 2], 54), &mapping, led("10.85.0.2")));
        assert!(!matches(&entry(5354, [10, 85, 0, 2], 53), &mapping, begun));
        let tcp = PortMapping { protocol: Protocol::Tcp, ..mapping.clone() };
        assert!(!matches(&ours, &tcp, begun) && !matches(&[], &mapping, begun));
        let request = one(&ours).unwrap();
        assert_eq!(attribute(&request[HEAD..], CTA_ID), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attribute(&request[HEAD..], CTA_TUPLE_ORIG), attribute(&ours[HEAD..], CTA_TUPLE_ORIG));
    }
}
